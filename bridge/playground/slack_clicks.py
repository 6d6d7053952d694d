"""People's clicks on the buttons of messages, as the payloads that an app gets of them.

https://docs.slack.dev/reference/interaction-payloads/block_actions-payload/ . Modals are `slack_modals`' business.
"""

from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from bridge.playground.serving import Json
from bridge.playground.slack_delivery import Delivery
from bridge.playground.slack_events import shown
from bridge.playground.slack_interactions import Interactions, elements_of, named
from bridge.playground.slack_workspace import Channel, Workspace

_SELECTED_KEPT = 10_000
_CHOICES = ("static_select", "radio_buttons", "overflow")


class Clicks:
    """Presses elements of messages, and knows what each feedback widget shows; `base_url` is where answers may go."""

    def __init__(
        self,
        workspace: Workspace,
        interactions: Interactions,
        base_url: Callable[[], str],
        publish: Callable[[Json], None],
    ) -> None:
        self._workspace = workspace
        self._interactions = interactions
        self._base_url = base_url
        self._publish = publish
        self._feedback: OrderedDict[tuple[str, str, str], bool] = OrderedDict()

    def selected(self) -> dict[str, dict[str, str]]:
        """Give which feedback button each person has selected: by person, then by `<channel>:<ts>`."""
        found: dict[str, dict[str, str]] = {}
        for (channel, ts, user), is_positive in self._feedback.items():
            found.setdefault(user, {})[f"{channel}:{ts}"] = _name(is_positive)
        return found

    async def press(self, user: str, channel: Channel, ts: str, action_id: str, value: str | None) -> Delivery:
        """Press the element `action_id`; raises LookupError where the person sees no such thing."""
        message = self._seen(user, channel, ts)
        for block in message["blocks"]:
            for element in elements_of(block):
                if element["action_id"] == action_id and element["type"] != "feedback_buttons":
                    return await self._click(user, channel, message, block, element, _chosen(element, value))
        raise LookupError(f"no element {action_id} in {ts}")

    async def give_feedback(self, user: str, channel: Channel, ts: str, positive: bool) -> Delivery | None:
        """Press one of the feedback buttons; the one that is selected already is let go without a word to the app.

        Where the app does not answer, what was selected before is selected again.
        """
        message = self._seen(user, channel, ts)
        found = ((block, one) for block in message["blocks"] for one in elements_of(block))
        block, element = next((pair for pair in found if pair[1]["type"] == "feedback_buttons"), (None, None))
        if block is None or element is None:
            raise LookupError(f"no feedback buttons in {ts}")
        key = (channel.id, ts, user)
        before = self._feedback.get(key)
        if before is positive:
            self._select(key, None)
            return None
        self._select(key, positive)
        button = element["positive_button" if positive else "negative_button"]
        delivery = await self._click(user, channel, message, block, element, _chosen(button, None))
        if not delivery.is_acknowledged and self._feedback.get(key) is positive:
            self._select(key, before)
        return delivery

    def _select(self, key: tuple[str, str, str], choice: bool | None) -> None:
        self._feedback.pop(key, None)
        if choice is not None:
            self._feedback[key] = choice
        while len(self._feedback) > _SELECTED_KEPT:
            self._feedback.popitem(last=False)
        channel, ts, user = key
        selected = None if choice is None else _name(choice)
        self._publish({"type": "feedback", "user": user, "channel": channel, "ts": ts, "selected": selected})

    def _seen(self, user: str, channel: Channel, ts: str) -> Json:
        """Give a message as this person sees it, every part of it with an id."""
        message = channel.messages.get(ts) if user in channel.members else None
        if message is None:
            message = next((one for one in channel.ephemerals if (one["ts"], one["to"]) == (ts, user)), None)
        if message is None:
            raise LookupError(f"{user} sees no message {ts}")
        return {**shown(message), "blocks": named(message.get("blocks", []))}

    async def _click(
        self, user: str, channel: Channel, message: Json, block: Json, element: Json, chosen: Json
    ) -> Delivery:
        frame = self._interactions.frame("block_actions", user)
        name = "directmessage" if channel.type == "im" else channel.name
        ids = {"action_id": element["action_id"], "block_id": block["block_id"]}
        at = self._workspace.next_ts()
        payload = {
            **frame,
            "container": _container(channel.id, message),
            "channel": {"id": channel.id, "name": name},
            **({} if "to" in message else {"message": message}),
            "state": {"values": {}},
            "response_url": f"{self._base_url()}/actions/{frame['team']['id']}/{at}",
            "actions": [{"type": element["type"], **ids, **chosen, "action_ts": at}],
        }
        return await self._interactions.send(deepcopy(payload))


def _name(is_positive: bool) -> str:
    return "positive" if is_positive else "negative"


def _container(channel: str, message: Json) -> Json:
    thread = {"thread_ts": message["thread_ts"]} if "thread_ts" in message else {}
    return {
        "type": "message",
        "message_ts": message["ts"],
        "channel_id": channel,
        "is_ephemeral": "to" in message,
        **thread,
    }


def _chosen(element: Json, value: str | None) -> Json:
    """Give what an action says beside its ids; a choice has `value` among its options."""
    if element.get("type") in _CHOICES:
        options: list[Any] = element.get("options", [])
        option = next((one for one in options if one.get("value") == value), None)
        if option is None:
            raise LookupError(f"no option {value}")
        return {"selected_option": option}
    own: Json = {key: element[key] for key in ("text", "value") if key in element}
    return own | ({} if value is None else {"value": value})
