"""People's clicks on the buttons of messages, as the payloads that an app gets of them.

https://docs.slack.dev/reference/interaction-payloads/block_actions-payload/ . Modals are `slack_modals`' business.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from bridge.playground.serving import Json
from bridge.playground.slack_delivery import Delivery
from bridge.playground.slack_events import shown
from bridge.playground.slack_interactions import Interactions, elements_of, named
from bridge.playground.slack_workspace import Channel, Workspace

_CHOICES = ("static_select", "radio_buttons", "overflow")


class Clicks:
    """Presses elements of messages, and knows what each feedback widget shows; `base_url` is where answers may go."""

    def __init__(self, workspace: Workspace, interactions: Interactions, base_url: Callable[[], str]) -> None:
        self._workspace = workspace
        self._interactions = interactions
        self._base_url = base_url
        self._feedback: dict[tuple[str, str, str], bool] = {}

    async def press(self, user: str, channel: Channel, ts: str, action_id: str, value: str | None) -> Delivery:
        """Press the element `action_id`; raises LookupError where the person sees no such thing."""
        message = self._seen(user, channel, ts)
        for block in message["blocks"]:
            for element in elements_of(block):
                if element["action_id"] == action_id and element["type"] != "feedback_buttons":
                    return await self._click(user, channel, message, block, element, _chosen(element, value))
        raise LookupError(f"no element {action_id} in {ts}")

    async def give_feedback(self, user: str, channel: Channel, ts: str, positive: bool) -> Delivery | None:
        """Press one of the feedback buttons; the one that is selected already is let go without a word to the app."""
        message = self._seen(user, channel, ts)
        found = ((block, one) for block in message["blocks"] for one in elements_of(block))
        block, element = next((pair for pair in found if pair[1]["type"] == "feedback_buttons"), (None, None))
        if block is None or element is None:
            raise LookupError(f"no feedback buttons in {ts}")
        key = (channel.id, ts, user)
        if self._feedback.get(key) is positive:
            del self._feedback[key]
            return None
        self._feedback[key] = positive
        button = element["positive_button" if positive else "negative_button"]
        return await self._click(user, channel, message, block, element, _chosen(button, None))

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
