"""Reads what Slack sends in events: messages, their edits and deletions, emoji; and Slack's markup as readable text.

Pure: what is done about a message is decided in `policy`. Shapes: https://docs.slack.dev/reference/events.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from bridge.models import Deletion, Edit, Emoji, Message

# A message with any other subtype is no one's question: https://docs.slack.dev/reference/events/message.
SUBTYPES_OF_MESSAGES: Final = frozenset({"file_share", "thread_broadcast"})
# Slack cuts a message off there (https://docs.slack.dev/reference/methods/chat.postMessage, Truncating content).
MOST_CHARACTERS: Final = 40_000
SLACKBOT: Final = "USLACKBOT"
TOMBSTONE: Final = "tombstone"
# Two names for one emoji (https://docs.slack.dev/reference/events/reaction_added): the first stands for both.
ALIASES: Final = {"thumbsup": "+1", "thumbsdown": "-1"}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the bridge is in its workspace, as `auth.test` says. `url` ends in a slash."""

    team: str
    user: str
    bot: str
    url: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """An event that is nothing to the bridge, and the reason as a constant word."""

    reason: str


def _or_none(check: Callable[[Any], bool]) -> BeforeValidator:
    """Read anything of another kind as absent: an odd optional field is no reason to refuse an event."""
    return BeforeValidator(lambda value: value if check(value) else None)


_TS = r"^[0-9]{1,12}\.[0-9]{1,9}$"
Id = Annotated[str, Field(pattern=r"^[A-Z0-9]{2,40}$")]
Ts = Annotated[str, Field(pattern=_TS)]
_OptionalStr = Annotated[str | None, _or_none(lambda value: isinstance(value, str))]
OptionalTs = Annotated[
    str | None, _or_none(lambda value: isinstance(value, str) and re.fullmatch(_TS, value) is not None)
]


# It becomes part of a key, so it may be nothing that cannot be written.
_OptionalWord = Annotated[
    str | None, _or_none(lambda value: isinstance(value, str) and re.fullmatch(r"[!-~]{1,200}", value) is not None)
]


class _Event(BaseModel):
    type: str
    subtype: _OptionalStr = None


class _MessageEvent(BaseModel):
    channel: Id
    ts: Ts
    user: Id | None = None
    text: _OptionalStr = None
    thread_ts: OptionalTs = None
    bot_id: _OptionalStr = None
    client_msg_id: _OptionalWord = None
    channel_type: _OptionalStr = None
    team: _OptionalStr = None
    user_team: _OptionalStr = None


class _Edited(BaseModel):
    ts: Ts


class _Version(BaseModel):
    """What of a changed message tells whether a person changed it."""

    subtype: _OptionalStr = None
    user: _OptionalStr = None
    text: _OptionalStr = None
    ts: OptionalTs = None
    thread_ts: OptionalTs = None
    edited: Annotated[_Edited | None, _or_none(lambda value: isinstance(value, dict))] = None


class _ChangeEvent(BaseModel):
    channel: Id
    event_ts: Ts
    channel_type: _OptionalStr = None
    deleted_ts: OptionalTs = None
    message: _Version = Field(default_factory=_Version)
    previous_message: _Version = Field(default_factory=_Version)


class _Item(BaseModel):
    type: str
    channel: Id
    ts: Ts


class _ReactionEvent(BaseModel):
    user: Id
    reaction: Annotated[str, Field(min_length=1, max_length=200)]
    event_ts: Ts
    item: _Item
    item_user: _OptionalStr = None


Event = Message | Edit | Deletion | Emoji | Ignored


def event(body: object, identity: Identity) -> Event:
    """Read the body of an Events API callback.

    Whatever is not of Slack's documented shape is Ignored with the reason `malformed`.
    """
    if not isinstance(body, dict):
        return Ignored("malformed")
    inner = body.get("event")
    team, is_shared = team_of(body, identity), body.get("is_ext_shared_channel") is True
    try:
        kind = _Event.model_validate(inner)
        if kind.type == "message" and kind.subtype == "message_changed":
            return _changed(inner, team, identity, is_shared)
        if kind.type == "message" and kind.subtype == "message_deleted":
            return _deleted(inner, team, identity)
        if kind.type in {"message", "app_mention"}:
            return _message(inner, team, identity, is_shared)
        if kind.type in {"reaction_added", "reaction_removed"}:
            return _emoji(inner, kind.type == "reaction_added", team, identity)
    except ValidationError:
        return Ignored("malformed")
    return Ignored("other_event")


def team_of(body: dict[str, Any], identity: Identity) -> str:
    """Give the team whose installation got the event: right in channels shared with another company too."""
    authorizations = body.get("authorizations")
    first = authorizations[0] if isinstance(authorizations, list) and authorizations else None
    for holder in (first, body):
        team = holder.get("team_id") if isinstance(holder, dict) else None
        if isinstance(team, str) and _team(team):
            return team
    return identity.team


def _message(inner: Any, team: str, identity: Identity, is_shared: bool) -> Message | Ignored:
    kind = _Event.model_validate(inner)
    # An app_mention may carry any subtype of its message.
    if kind.subtype is not None and kind.subtype not in SUBTYPES_OF_MESSAGES:
        return Ignored("subtype")
    found = _MessageEvent.model_validate(inner)
    if found.bot_id or found.user in {None, identity.user, SLACKBOT}:
        return Ignored("bot")
    raw = (found.text or "")[:MOST_CHARACTERS]
    home = _team(found.user_team) or _team(found.team) or team
    return Message(
        team=team,
        channel=found.channel,
        id=found.ts,
        thread=found.thread_ts if found.thread_ts != found.ts else None,
        user=str(found.user),
        text=readable(raw, bridge_user=identity.user),
        origin_url=permalink(identity.url, found.channel, found.ts, found.thread_ts),
        client_id=found.client_msg_id,
        is_direct=found.channel_type == "im" or found.channel.startswith("D"),
        mentions_bridge=kind.type == "app_mention" or _mentions(raw, identity.user),
        addresses_someone_else=_opens_with_someone_else(raw, identity.user),
        written_at=float(found.ts),
        user_team=home if home != team else "",
        is_shared=is_shared,
    )


def _changed(inner: Any, team: str, identity: Identity, is_shared: bool) -> Edit | Deletion | Ignored:
    """Tell an edit, and a deletion that left replies behind, from all else that changes a message, such as unfurls.

    Source: https://docs.slack.dev/reference/events/message/message_changed; the tombstone is not documented.
    """
    found = _ChangeEvent.model_validate(inner)
    now, before = found.message, found.previous_message
    if now.subtype == TOMBSTONE:
        return _gone(found, now.ts, team, identity)
    if now.edited is None or (before.edited and before.edited.ts == now.edited.ts) or now.text == before.text:
        return Ignored("no_edit")
    message = _message(
        {**inner["message"], "channel": found.channel, "channel_type": found.channel_type}, team, identity, is_shared
    )
    if isinstance(message, Ignored):
        return message
    at = float(found.event_ts)
    return Edit(replace(message, written_at=at), at=found.event_ts, age=max(0.0, at - message.written_at))


def _deleted(inner: Any, team: str, identity: Identity) -> Deletion | Ignored:
    found = _ChangeEvent.model_validate(inner)
    if found.previous_message.subtype == TOMBSTONE:
        # What was left of a message that was deleted before: its last reply is gone too.
        return Ignored("tombstone")
    return _gone(found, found.deleted_ts, team, identity)


def _gone(found: _ChangeEvent, ts: str | None, team: str, identity: Identity) -> Deletion | Ignored:
    before = found.previous_message
    if ts is None:
        return Ignored("malformed")
    if before.user in {None, identity.user, SLACKBOT}:
        return Ignored("bot")
    return Deletion(
        team=team,
        channel=found.channel,
        id=ts,
        thread=before.thread_ts if before.thread_ts != ts else None,
        user=str(before.user),
        at=found.event_ts,
        age=max(0.0, float(found.event_ts) - float(ts)),
    )


def _team(value: str | None) -> str | None:
    return value if value is not None and re.fullmatch(r"[A-Z0-9]{2,40}", value) else None


def _emoji(inner: Any, is_on: bool, team: str, identity: Identity) -> Emoji | Ignored:
    found = _ReactionEvent.model_validate(inner)
    if found.item.type != "message":
        return Ignored("not_a_message")
    if found.user == identity.user:
        return Ignored("bot")
    if found.item_user is not None and found.item_user != identity.user:
        return Ignored("elsewhere")
    return Emoji(
        team=team,
        channel=found.item.channel,
        message=found.item.ts,
        user=found.user,
        name=emoji_name(found.reaction),
        is_on=is_on,
        at=found.event_ts,
    )


def emoji_name(reaction: str) -> str:
    """Give the one name of an emoji, its skin tone kept: `thumbsup::skin-tone-2` is `+1::skin-tone-2`."""
    name, tone, rest = reaction.strip(":").partition("::")
    return ALIASES.get(name, name) + tone + rest


def permalink(workspace_url: str, channel: str, ts: str, thread_ts: str | None = None) -> str:
    """Build a message's permalink (https://docs.slack.dev/reference/methods/chat.getPermalink)."""
    url = f"{workspace_url.rstrip('/')}/archives/{channel}/p{ts.replace('.', '')}"
    return url if thread_ts in {None, ts} else f"{url}?thread_ts={thread_ts}&cid={channel}"


_TOKEN = re.compile(r"<([^<>]*)>")
_PERSON = re.compile(r"^\s*<@([UW][A-Z0-9]+)(?:\|[^<>]*)?>")


def _mentions(raw: str, user: str) -> bool:
    return re.search(rf"<@{re.escape(user)}(?:\|[^<>]*)?>", raw) is not None


def _opens_with_someone_else(raw: str, user: str) -> bool:
    opening = _PERSON.match(raw)
    return opening is not None and opening.group(1) != user


def readable(raw: str, *, bridge_user: str) -> str:
    """Turn Slack's markup into the text a person saw, without mentions of the bridge itself.

    Source: https://docs.slack.dev/messaging/formatting-message-text. Total: any text gives a text.
    """
    mention = rf"<@{re.escape(bridge_user)}(?:\|[^<>]*)?>[ \t]*[:,]?[ \t]*"
    text = _TOKEN.sub(lambda token: _shown(token.group(1)), re.sub(mention, "", raw))
    for escape, character in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        text = text.replace(escape, character)
    # Half a surrogate pair, which JSON can carry, can be stored and sent nowhere.
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "").strip()


def _shown(token: str) -> str:
    target, _, label = token.partition("|")
    if target.startswith("@"):
        return f"@{label.lstrip('@') or target[1:]}"
    if target.startswith("#"):
        return f"#{label.lstrip('#') or target[1:]}"
    if target.startswith("!"):
        return label or f"@{target[1:].partition('^')[0]}"
    address = target.removeprefix("mailto:").removeprefix("tel:")
    if not label or label in {target, address}:
        return address
    return f"{label} ({address})"
