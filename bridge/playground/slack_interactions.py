"""What all interactive payloads of Slack have in common, and the trigger ids that they hand out.

https://docs.slack.dev/interactivity/handling-user-interaction/ . Clicks are `slack_clicks`' business, modals
`slack_modals`'; how payloads travel is `slack_delivery`'s.
"""

import itertools
from collections.abc import Awaitable, Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from bridge.playground.serving import Json
from bridge.playground.slack_delivery import Delivery
from bridge.playground.slack_rules import SlackError
from bridge.playground.slack_workspace import Workspace

TRIGGER_SECONDS = 3.0
"""Seconds in which a trigger id must be used."""


@dataclass
class _Trigger:
    user: str
    issued: float
    is_used: bool = False


class Interactions:
    """Frames payloads, sends them with `send`, and remembers every trigger id it gave out."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        app: str,
        domain: str,
        clock: Callable[[], float],
        send: Callable[[Json], Awaitable[Delivery]],
    ) -> None:
        self.app = app
        self.send = send
        self._workspace = workspace
        self._domain = domain
        self._clock = clock
        self._numbers = itertools.count(1)
        self._triggers: dict[str, _Trigger] = {}

    def frame(self, kind: str, user: str) -> Json:
        """Give the fields that every payload has, with a fresh trigger id; raises KeyError for an unknown person."""
        person = self._workspace.people[user]
        trigger_id = f"{next(self._numbers)}.{self._workspace.next_ts()}.{person.id.lower()}"
        self._triggers[trigger_id] = _Trigger(user, self._clock())
        return {
            "type": kind,
            "api_app_id": self.app,
            "token": "deprecated",
            "trigger_id": trigger_id,
            "user": {
                "id": person.id,
                "username": person.name,
                "name": person.name,
                "team_id": self._workspace.team_of(user),
            },
            "team": {"id": self._workspace.team, "domain": self._domain},
            "enterprise": None,
            "is_enterprise_install": False,
        }

    def owner(self, trigger_id: str) -> str:
        """Give the person of a trigger id that is still good; raises SlackError for any other."""
        trigger = self._triggers.get(trigger_id)
        if trigger is None:
            raise SlackError("invalid_trigger_id")
        if trigger.is_used:
            raise SlackError("exchanged_trigger_id")
        if self._clock() - trigger.issued > TRIGGER_SECONDS:
            raise SlackError("expired_trigger_id")
        return trigger.user

    def use_up(self, trigger_id: str) -> None:
        """Let a trigger id be good no more."""
        self._triggers[trigger_id].is_used = True


def elements_of(block: Json) -> Iterator[Json]:
    """Give the interactive elements of a block."""
    found: list[Any] = [block.get("accessory"), block.get("element")]
    if block.get("type") in ("actions", "context_actions"):
        found += block["elements"]
    yield from (one for one in found if isinstance(one, dict) and one.get("type") != "image")


def named(blocks: list[Json]) -> list[Json]:
    """Give a copy of blocks with the ids that Slack makes up where the app gave none."""
    copies = deepcopy(blocks)
    for number, block in enumerate(copies):
        block.setdefault("block_id", f"block{number}")
        for place, element in enumerate(elements_of(block)):
            element.setdefault("action_id", f"action{number}.{place}")
    return copies
