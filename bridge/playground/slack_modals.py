"""Modals: views.open of the Web API, and the people who fill them in, submit or dismiss them.

https://docs.slack.dev/surfaces/modals/ . What a view may look like is in `slack_view_rules`.
"""

import itertools
import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from bridge.playground.serving import Json
from bridge.playground.slack_delivery import Delivery
from bridge.playground.slack_interactions import Interactions, named
from bridge.playground.slack_rules import SlackError
from bridge.playground.slack_view_rules import check_view
from bridge.playground.slack_workspace import Workspace

_KEPT = ("type", "title", "submit", "close", "blocks", "callback_id", "private_metadata")


@dataclass
class _Modal:
    user: str
    view: Json


class Modals:
    """The open modals of all people, oldest first."""

    def __init__(self, workspace: Workspace, interactions: Interactions, publish: Callable[[Json], None]) -> None:
        self._workspace = workspace
        self._interactions = interactions
        self._publish = publish
        self._numbers = itertools.count(1)
        self._open: dict[str, _Modal] = {}

    def open(self, args: Json) -> Json:
        """Run views.open."""
        user = self._interactions.owner(args["trigger_id"])
        check_view(args["view"])
        self._interactions.use_up(args["trigger_id"])
        view_id = f"V{next(self._numbers):010d}"
        modal = _Modal(user, self._composed(view_id, args["view"]))
        self._open[view_id] = modal
        self._tell(modal)
        return {"view": deepcopy(modal.view)}

    def _composed(self, view_id: str, view: Json) -> Json:
        given = deepcopy({key: view[key] for key in _KEPT if view.get(key) is not None})
        bare = {"callback_id": "", "private_metadata": "", "submit": None, "close": None}
        return {
            "id": view_id,
            **bare,
            **given,
            "blocks": named(given["blocks"]),
            "state": {"values": {}},
            "hash": self._workspace.next_ts(),
            "team_id": self._workspace.team,
            "app_id": self._interactions.app,
            "app_installed_team_id": self._workspace.team,
            "bot_id": self._workspace.bot.bot_id,
            "root_view_id": view_id,
            "previous_view_id": None,
        }

    def views(self, user: str) -> list[Json]:
        """Give a person's open modals, oldest first; `errors` are what the app said about the fields of one."""
        return [deepcopy(modal.view) for modal in self._open.values() if modal.user == user]

    async def submit(self, user: str, view_id: str, values: Mapping[str, Any]) -> Delivery:
        """Submit a modal; raises ValueError for what Slack itself does not let pass, LookupError for no such modal."""
        modal = self._modal(user, view_id)
        state = {"values": _filled_in(modal.view["blocks"], values)}
        view = {key: value for key, value in modal.view.items() if key != "errors"} | {"state": state}
        frame = self._interactions.frame("view_submission", user)
        delivery = await self._interactions.send(deepcopy({**frame, "view": view, "response_urls": []}))
        if delivery.is_acknowledged and view_id in self._open:
            self._follow(modal, delivery.body)
        return delivery

    def dismiss(self, user: str, view_id: str) -> None:
        """Close a modal unsent; raises LookupError where the person has no such modal."""
        self._close(self._modal(user, view_id))

    def _follow(self, modal: _Modal, body: str) -> None:
        """Do what the app answered to a submission: nothing where that is not understood."""
        try:
            answer = json.loads(body) if body.strip() else {}
        except ValueError:
            return
        answer = answer if isinstance(answer, dict) else {}
        action = answer.get("response_action")
        if action == "errors":
            modal.view["errors"] = answer.get("errors", {})
            self._tell(modal)
        elif action == "update":
            self._update(modal, answer.get("view"))
        elif action == "clear":
            for one in [one for one in self._open.values() if one.user == modal.user]:
                self._close(one)
        elif action is None:
            self._close(modal)

    def _update(self, modal: _Modal, view: Any) -> None:
        try:
            check_view(view)
        except SlackError:
            return
        modal.view = self._composed(modal.view["id"], view)
        self._tell(modal)

    def _modal(self, user: str, view_id: str) -> _Modal:
        modal = self._open.get(view_id)
        if modal is None or modal.user != user:
            raise LookupError(f"{user} has no modal {view_id}")
        return modal

    def _close(self, modal: _Modal) -> None:
        del self._open[modal.view["id"]]
        self._publish({"type": "view_closed", "to": modal.user, "view_id": modal.view["id"]})

    def _tell(self, modal: _Modal) -> None:
        self._publish({"type": "view", "to": modal.user, "view": deepcopy(modal.view)})


def _filled_in(blocks: list[Json], values: Mapping[str, Any]) -> Json:
    inputs = [block for block in blocks if block["type"] == "input"]
    unknown = values.keys() - {block["element"]["action_id"] for block in inputs}
    if unknown:
        raise ValueError(f"no such fields: {', '.join(sorted(unknown))}")
    return {block["block_id"]: _field(block, values) for block in inputs}


def _field(block: Json, values: Mapping[str, Any]) -> Json:
    element, action_id = block["element"], block["element"]["action_id"]
    if not isinstance(values.get(action_id, ""), str if element["type"] == "plain_text_input" else str | list):
        raise ValueError(f"{action_id} is of another kind")
    if element["type"] == "plain_text_input":
        text = str(values.get(action_id, element.get("initial_value") or ""))
        if len(text) > element.get("max_length", 3_000):
            raise ValueError(f"{action_id} is too long")
        state: Json = {"value": text or None}
    elif element["type"] == "checkboxes":
        state = {"selected_options": _options(element, values.get(action_id), element.get("initial_options", []))}
    else:
        initial = [element["initial_option"]] if "initial_option" in element else []
        chosen = _options(element, values.get(action_id), initial)
        state = {"selected_option": chosen[0] if chosen else None}
    if not block.get("optional") and not any(state.values()):
        raise ValueError(f"{action_id} is required")
    return {action_id: {"type": element["type"], **state}}


def _options(element: Json, wanted: str | list[str] | None, initial: list[Json]) -> list[Json]:
    if wanted is None:
        return initial
    wanted = [wanted] if isinstance(wanted, str) else wanted
    known = {option["value"]: option for option in element["options"]}
    if unknown := set(wanted) - known.keys():
        raise ValueError(f"no such options: {', '.join(sorted(unknown))}")
    return [known[value] for value in known if value in wanted]
