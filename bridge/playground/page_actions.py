"""What a person can do on the playground's page: each action of the page as one method, from the JSON that it sent.

What comes of it is the simulated Slack's business; HTTP, and who may ask, is `slack_page`'s.
"""

import html
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bridge.playground.serving import Json
from bridge.playground.slack import Delivery, SimulatedSlack
from bridge.playground.slack_methods import is_emoji_name
from bridge.playground.slack_rules import SlackError
from bridge.playground.slack_workspace import Channel

NO_ANSWER = "the app did not answer"
_TYPED = re.compile(r"(?P<url>https?://[^\s<>|]*[^\s<>|.,;:!?)])|(?<!\w)@(?P<name>[\w-]+)|[&<>]")


def typed(text: str, ids: Mapping[str, str]) -> str:
    """Give what Slack makes of a text as it was typed: escaped, links marked, `@name` turned into a mention."""

    def mark(match: re.Match[str]) -> str:
        if match["url"]:
            return f"<{html.escape(match['url'], quote=False)}>"
        user = ids.get((match["name"] or "").lower())
        return f"<@{user}>" if user else html.escape(match[0], quote=False)

    return _TYPED.sub(mark, text)


class PageActions:
    """The actions by name; each raises SlackError with a sentence or one of Slack's codes where it cannot be done."""

    def __init__(self, slack: SimulatedSlack) -> None:
        self._slack = slack
        self._table: dict[str, Callable[[str, Channel, Json], Awaitable[Json]]] = {
            "say": self._say,
            "react": self._react,
            "unreact": self._unreact,
            "edit": self._edit,
            "delete": self._delete,
            "press": self._press,
            "feedback": self._feedback,
            "submit": self._submit,
            "dismiss": self._dismiss,
        }

    @property
    def names(self) -> list[str]:
        """The names of all actions."""
        return list(self._table)

    async def act(self, name: str, body: Json) -> Json:
        """Let the person that `body` names do something in the channel that it names, and give what to answer."""
        user, channel = self._actor(body)
        return await self._table[name](user, channel, body)

    def _actor(self, body: Json) -> tuple[str, Channel]:
        workspace = self._slack.workspace
        person = workspace.people.get(str(body.get("user")))
        if person is None or person.bot_id:
            raise SlackError("user_not_found")
        channel = workspace.channel(body.get("channel"))
        if person.id not in channel.members:
            raise SlackError("channel_not_found")
        return person.id, channel

    async def _say(self, user: str, channel: Channel, body: Json) -> Json:
        thread = body.get("thread") or None
        if thread is not None:
            self._slack.workspace.message(channel, thread)
        return {"ts": await self._slack.say(user, channel.id, self._typed(body), thread=thread)}

    async def _react(self, user: str, channel: Channel, body: Json) -> Json:
        await self._slack.react(user, channel.id, _text(body, "ts"), _emoji(body))
        return {}

    async def _unreact(self, user: str, channel: Channel, body: Json) -> Json:
        await self._slack.unreact(user, channel.id, _text(body, "ts"), _emoji(body))
        return {}

    async def _edit(self, user: str, channel: Channel, body: Json) -> Json:
        await self._slack.edit(user, channel.id, _text(body, "ts"), self._typed(body))
        return {}

    async def _delete(self, user: str, channel: Channel, body: Json) -> Json:
        await self._slack.delete(user, channel.id, _text(body, "ts"))
        return {}

    async def _press(self, user: str, channel: Channel, body: Json) -> Json:
        ts, action_id = _text(body, "ts"), _text(body, "action_id")
        return await _heard(self._slack.press(user, channel.id, ts, action_id))

    async def _feedback(self, user: str, channel: Channel, body: Json) -> Json:
        positive = body.get("positive")
        if not isinstance(positive, bool):
            raise SlackError("invalid_arguments")
        return await _heard(self._slack.give_feedback(user, channel.id, _text(body, "ts"), positive))

    async def _submit(self, user: str, _: Channel, body: Json) -> Json:
        return await _heard(self._slack.submit(user, _text(body, "view_id"), _values(body)))

    async def _dismiss(self, user: str, _: Channel, body: Json) -> Json:
        view_id = _text(body, "view_id")
        if not any(view["id"] == view_id for view in self._slack.views(user)):
            raise SlackError("view_not_found")
        self._slack.dismiss(user, view_id)
        return {}

    def _typed(self, body: Json) -> str:
        ids = {person.name: person.id for person in self._slack.workspace.people.values()}
        return typed(_text(body, "text"), ids)


async def _heard(sending: Awaitable[Delivery | None]) -> Json:
    """Wait for what the app says to a click; raises SlackError where it says nothing, or there is no such thing."""
    try:
        delivery = await sending
    except LookupError as error:
        raise SlackError("not_found", *map(str, error.args)) from None
    except ValueError as error:
        raise SlackError(str(error)) from None
    if delivery is not None and not delivery.is_acknowledged:
        raise SlackError(NO_ANSWER)
    return {}


def _text(body: Json, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise SlackError("no_text" if name == "text" else "invalid_arguments")
    return value


def _emoji(body: Json) -> str:
    name = _text(body, "emoji")
    if not is_emoji_name(name):
        raise SlackError("invalid_name")
    return name


def _values(body: Json) -> dict[str, Any]:
    values = body.get("values")
    if not isinstance(values, dict) or not all(_is_value(value) for value in values.values()):
        raise SlackError("invalid_arguments")
    return values


def _is_value(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(part, str) for part in value))
