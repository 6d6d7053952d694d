"""The methods of Slack's Web API that the bridge may call, over a simulated workspace.

https://docs.slack.dev/reference/methods/ . Tokens, limits and HTTP are `slack_api`'s business, the shapes of
messages `slack_rules`'.
"""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from bridge.playground.serving import Json
from bridge.playground.slack_cast import APP_ID
from bridge.playground.slack_modals import Modals
from bridge.playground.slack_rules import SlackError, check_content, check_metadata
from bridge.playground.slack_streams import Streams
from bridge.playground.slack_workspace import Channel, Person, Workspace

_EMOJI = re.compile(r"[a-z0-9_+'-]+(::skin-tone-[2-6])?")


@dataclass(frozen=True)
class Method:
    """A method: what it needs, and `run`, which gives the fields of its answer beside `ok`.

    `scope_of` names the scope where that depends on the arguments. `as_app` runs in place of `run` for the app token,
    where the method takes both kinds; one that `takes_app_token` takes no other.
    """

    run: Callable[[Json], Json]
    required: tuple[str, ...] = ()
    scope: str = ""
    takes_app_token: bool = False
    scope_of: Callable[[Json], str] | None = None
    as_app: Callable[[Json], Json] | None = None


class Methods:
    """All methods over one workspace; `open_socket` gives the URL of a fresh Socket Mode connection."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        streams: Streams,
        modals: Modals,
        workspace_url: str,
        open_socket: Callable[[], str],
    ) -> None:
        self._workspace = workspace
        self._streams = streams
        self._modals = modals
        self._workspace_url = workspace_url
        self._open_socket = open_socket

    def table(self) -> dict[str, Method]:
        """Give the methods by name."""
        return {
            "api.test": Method(lambda args: {"args": args}),
            "auth.test": Method(
                self._auth_test, as_app=lambda _: {"app_id": APP_ID, "app_name": self._workspace.bot.real_name}
            ),
            "apps.connections.open": Method(lambda _: {"url": self._open_socket()}, takes_app_token=True),
            "chat.postMessage": Method(self._post, ("channel",), "chat:write"),
            "chat.update": Method(self._update, ("channel", "ts"), "chat:write"),
            "chat.delete": Method(self._delete, ("channel", "ts"), "chat:write"),
            "chat.postEphemeral": Method(self._post_ephemeral, ("channel", "user"), "chat:write"),
            "chat.startStream": Method(self._streams.start, ("channel", "thread_ts"), "chat:write"),
            "chat.appendStream": Method(self._streams.append, ("channel", "ts", "markdown_text"), "chat:write"),
            "chat.stopStream": Method(self._streams.stop, ("channel", "ts"), "chat:write"),
            "views.open": Method(self._modals.open, ("trigger_id", "view")),
            "assistant.threads.setStatus": Method(self._set_status, ("channel_id", "thread_ts"), "chat:write"),
            "conversations.replies": Method(self._replies, ("channel", "ts"), scope_of=self._history_scope),
            "conversations.history": Method(self._history, ("channel",), scope_of=self._history_scope),
            "conversations.info": Method(self._info, ("channel",), "channels:read"),
            "conversations.list": Method(self._list, scope="channels:read"),
            "users.info": Method(self._user, ("user",), "users:read"),
            "reactions.add": Method(self._add_reaction, ("channel", "timestamp", "name"), "reactions:write"),
            "reactions.remove": Method(self._remove_reaction, ("channel", "timestamp", "name"), "reactions:write"),
            "reactions.get": Method(self._reactions, ("channel", "timestamp"), "reactions:read"),
        }

    def _auth_test(self, _: Json) -> Json:
        bot = self._workspace.bot
        # A user's token has none.
        bot_id = {"bot_id": bot.bot_id} if bot.bot_id else {}
        return {
            "url": self._workspace_url,
            "team": "Playground",
            "user": bot.name,
            "team_id": self._workspace.team,
            "user_id": bot.id,
            **bot_id,
            "is_enterprise_install": False,
        }

    def _post(self, args: Json) -> Json:
        channel = self._workspace.joined(args["channel"])
        content = check_content(args)
        if args.get("metadata") is not None:
            check_metadata(args["metadata"])
            content["metadata"] = args["metadata"]
        thread = args.get("thread_ts") or None
        if _flag(args, "reply_broadcast") and thread:
            content["subtype"] = "thread_broadcast"
        message = self._workspace.post(self._workspace.bot.id, channel, content, thread)
        return {"channel": channel.id, "ts": message["ts"], "message": _visible(message, False)}

    def _update(self, args: Json) -> Json:
        self._streams.expire()
        channel = self._workspace.channel(args["channel"])
        content = check_content(args, is_update=True)
        if args.get("metadata") is not None:
            check_metadata(args["metadata"])
            content["metadata"] = args["metadata"]
        message = self._workspace.edit(self._workspace.bot.id, channel, args["ts"], content)
        body = {"channel": channel.id, "ts": message["ts"], "text": message["text"]}
        return {**body, "message": _visible(message, False)}

    def _delete(self, args: Json) -> Json:
        channel = self._workspace.channel(args["channel"])
        self._workspace.delete(self._workspace.bot.id, channel, args["ts"])
        return {"channel": channel.id, "ts": args["ts"]}

    def _post_ephemeral(self, args: Json) -> Json:
        channel = self._workspace.joined(args["channel"])
        content = check_content(args)
        if args.get("thread_ts"):
            content["thread_ts"] = args["thread_ts"]
        return {"message_ts": self._workspace.whisper(channel, args["user"], content)}

    def _set_status(self, args: Json) -> Json:
        channel = self._workspace.joined(args["channel_id"])
        loading = args.get("loading_messages") or []
        if not isinstance(loading, list) or len(loading) > 10:
            raise SlackError("invalid_arguments", "no more than 10 items allowed [json-pointer:/loading_messages]")
        if not isinstance(args.get("status"), str):
            raise SlackError("invalid_arguments", "missing required field: status")
        status = {"status": args["status"], "loading_messages": loading} if args["status"] else {}
        self._workspace.set_status(channel, args["thread_ts"], status)
        return {}

    def _history_scope(self, args: Json) -> str:
        found = self._workspace.channels.get(str(args.get("channel")))
        return {"group": "groups:history", "im": "im:history"}.get(found.type if found else "", "channels:history")

    def _replies(self, args: Json) -> Json:
        channel = self._workspace.joined(args["channel"])
        if args["ts"] not in channel.messages:
            raise SlackError("thread_not_found")
        root, *replies = channel.thread(args["ts"])
        return _page([root, *_between(replies, args)], args)

    def _history(self, args: Json) -> Json:
        channel = self._workspace.joined(args["channel"])
        shown = [message for message in reversed(channel.messages.values()) if _is_in_channel(message)]
        return _page(_between(shown, args), args)

    def _info(self, args: Json) -> Json:
        return {"channel": self._described(self._workspace.channel(args["channel"]))}

    def _list(self, args: Json) -> Json:
        kinds = {"public_channel": "channel", "private_channel": "group", "im": "im"}
        wanted = {kinds.get(kind.strip()) for kind in str(args.get("types") or "public_channel").split(",")}
        found = [channel for channel in self._workspace.channels.values() if channel.type in wanted]
        # A private conversation is not even mentioned to who is not in it.
        bot = self._workspace.bot.id
        seen = [self._described(one) for one in found if one.type == "channel" or bot in one.members]
        return {"channels": seen, "response_metadata": {"next_cursor": ""}}

    def _user(self, args: Json) -> Json:
        person = self._workspace.people.get(args["user"])
        if person is None:
            raise SlackError("user_not_found")
        return {"user": _profile(person, self._workspace.team_of(person.id))}

    def _add_reaction(self, args: Json) -> Json:
        channel = self._workspace.joined(args["channel"])
        self._workspace.react(self._workspace.bot.id, channel, args["timestamp"], _emoji_name(args["name"]))
        return {}

    def _remove_reaction(self, args: Json) -> Json:
        channel = self._workspace.joined(args["channel"])
        self._workspace.unreact(self._workspace.bot.id, channel, args["timestamp"], _emoji_name(args["name"]))
        return {}

    def _reactions(self, args: Json) -> Json:
        channel = self._workspace.joined(args["channel"])
        message = self._workspace.message(channel, args["timestamp"])
        return {"type": "message", "channel": channel.id, "message": _visible(message, False)}

    def _described(self, channel: Channel) -> Json:
        is_member = self._workspace.bot.id in channel.members
        kind = {"is_channel": channel.type != "im", "is_im": channel.type == "im"}
        if channel.type == "im":
            user = next(one for one in channel.members if one != self._workspace.bot.id)
            return {"id": channel.id, **kind, "user": user, "is_private": True}
        private = {"is_private": channel.type == "group", "is_ext_shared": channel.is_shared}
        return {"id": channel.id, "name": channel.name, **kind, **private, "is_member": is_member}


def is_emoji_name(name: str) -> bool:
    """Say whether `name`, without colons, can be an emoji's; it may end in a skin tone."""
    return _EMOJI.fullmatch(name) is not None


def _emoji_name(name: Any) -> str:
    if not isinstance(name, str) or not is_emoji_name(name.strip(":")):
        raise SlackError("invalid_name")
    return name.strip(":")


def _flag(args: Json, name: str) -> bool:
    return str(args.get(name, "")).lower() in ("true", "1")


def _visible(message: Json, with_metadata: bool) -> Json:
    hidden = () if with_metadata else ("metadata",)
    return deepcopy({key: value for key, value in message.items() if key not in hidden})


def _is_in_channel(message: Json) -> bool:
    is_root = message.get("thread_ts", message["ts"]) == message["ts"]
    return is_root or message.get("subtype") == "thread_broadcast"


def _between(messages: Sequence[Json], args: Json) -> list[Json]:
    oldest, latest = str(args.get("oldest") or "0"), str(args.get("latest") or "9999999999.999999")
    try:
        low, high = float(oldest), float(latest)
    except ValueError:
        raise SlackError("invalid_ts_oldest") from None
    if _flag(args, "inclusive"):
        return [one for one in messages if low <= float(one["ts"]) <= high]
    return [one for one in messages if low < float(one["ts"]) < high]


def _page(messages: Sequence[Json], args: Json) -> Json:
    """Cut one page out of `messages`; https://docs.slack.dev/apis/web-api/pagination/ ."""
    start, limit = _decode_cursor(args.get("cursor")), _limit(args.get("limit"))
    end = start + limit
    has_more = end < len(messages)
    shown = [_visible(message, _flag(args, "include_all_metadata")) for message in messages[start:end]]
    body: Json = {"messages": shown, "has_more": has_more}
    if has_more:
        body["response_metadata"] = {"next_cursor": base64.b64encode(f"next:{end}".encode()).decode()}
    return body


def _limit(value: Any) -> int:
    try:
        return min(max(int(value or 100), 1), 1_000)
    except (TypeError, ValueError):
        raise SlackError("invalid_limit") from None


def _decode_cursor(cursor: Any) -> int:
    if not cursor:
        return 0
    try:
        return max(0, int(base64.b64decode(str(cursor), validate=True).decode().removeprefix("next:")))
    except (ValueError, binascii.Error):
        raise SlackError("invalid_cursor") from None


def _profile(person: Person, team: str) -> Json:
    return {
        "id": person.id,
        "team_id": team,
        "name": person.name,
        "real_name": person.real_name,
        "deleted": False,
        "is_bot": person.bot_id is not None,
        "is_stranger": bool(person.team),
        "tz": "Europe/Berlin",
        "profile": {"real_name": person.real_name, "display_name": person.name},
    }
