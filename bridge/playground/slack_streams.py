"""The streaming methods of Slack's Web API: a message that grows, and ends in one of four ways.

https://docs.slack.dev/reference/methods/chat.startStream/ and its siblings. A stream ends when the app stops it
(`completed`), a person does (`stopped`), it grows too old (`expired`), or its message is deleted. The field
`streaming_state` of the stored message says how it is; its real name is not documented.
"""

from collections.abc import Callable
from typing import Any

from bridge.playground.serving import Json
from bridge.playground.slack_rules import MARKDOWN_MAX, SlackError, check_blocks, check_metadata
from bridge.playground.slack_workspace import Channel, Workspace

STREAM_SECONDS = 300
"""Seconds after its start when Slack ends a stream, whatever comes in."""


class Streams:
    """All streams of one workspace. With `refusal` set, every new one is refused with that error code."""

    def __init__(self, workspace: Workspace, clock: Callable[[], float]) -> None:
        self.refusal: str | None = None
        self._workspace = workspace
        self._clock = clock
        self._started: dict[tuple[str, str], float] = {}

    def start(self, args: Json) -> Json:
        """Run chat.startStream."""
        if self.refusal:
            raise SlackError(self.refusal)
        channel = self._workspace.joined(args["channel"])
        self._check_recipient(channel, args)
        if args["thread_ts"] not in channel.messages:
            raise SlackError("thread_not_found")
        text = _grown("", args.get("markdown_text"))
        content = {**_content(text, []), "streaming_state": "in_progress"}
        message = self._workspace.post(self._workspace.bot.id, channel, content, args["thread_ts"])
        self._started[channel.id, message["ts"]] = self._clock()
        return {"channel": channel.id, "ts": message["ts"]}

    def _check_recipient(self, channel: Channel, args: Json) -> None:
        team, user = args.get("recipient_team_id"), args.get("recipient_user_id")
        if channel.type != "im" and not team:
            raise SlackError("missing_recipient_team_id")
        if channel.type != "im" and not user:
            raise SlackError("missing_recipient_user_id")
        if user and (user not in channel.members or user not in self._workspace.people):
            raise SlackError("invalid_arguments", "must be a member [json-pointer:/recipient_user_id]")
        if user and team and self._workspace.team_of(user) != team:
            raise SlackError("invalid_arguments", "must be the recipient's team [json-pointer:/recipient_team_id]")

    def append(self, args: Json) -> Json:
        """Run chat.appendStream."""
        channel, message = self._growing(args)
        text = _grown(message["text"], args["markdown_text"])
        self._workspace.amend(channel, message, _content(text, []))
        return {"channel": channel.id, "ts": message["ts"]}

    def stop(self, args: Json) -> Json:
        """Run chat.stopStream; where anything is refused, nothing changes."""
        channel, message = self._growing(args)
        text = _grown(message["text"], args.get("markdown_text"))
        below = args.get("blocks") or []
        check_blocks(below)
        content = {**_content(text, below), "streaming_state": "completed"}
        check_blocks(content.get("blocks", []))
        if args.get("metadata") is not None:
            check_metadata(args["metadata"])
            content |= {"metadata": args["metadata"]} if args["metadata"] else {}
        del self._started[channel.id, message["ts"]]
        self._workspace.amend(channel, message, content)
        return {"channel": channel.id, "ts": message["ts"]}

    def _growing(self, args: Json) -> tuple[Channel, Json]:
        """Find the message that may grow; raises SlackError where it may not, and with the reason."""
        self.expire()
        channel = self._workspace.channel(args["channel"])
        message = self._workspace.message(channel, args["ts"])
        if message["user"] != self._workspace.bot.id:
            raise SlackError("message_not_owned_by_app")
        state = message.get("streaming_state")
        if state != "in_progress":
            raise SlackError("stopped_by_user" if state == "stopped" else "message_not_in_streaming_state")
        return channel, message

    def stop_as_person(self, channel: Channel, ts: str) -> None:
        """Press Stop; raises SlackError where there is no such message or it does not grow."""
        self._growing({"channel": channel.id, "ts": ts})
        self._end((channel.id, ts), "stopped")

    def expire(self, *, at_once: bool = False) -> None:
        """End the streams that are too old, or all of them."""
        now = self._clock()
        for key, started in list(self._started.items()):
            if at_once or now - started >= STREAM_SECONDS:
                self._end(key, "expired")

    def _end(self, key: tuple[str, str], state: str) -> None:
        del self._started[key]
        channel = self._workspace.channel(key[0])
        message = channel.messages.get(key[1])
        if message is not None:
            self._workspace.amend(channel, message, {"streaming_state": state})


def _grown(text: str, more: Any) -> str:
    grown = text + (more or "")
    if len(grown) > MARKDOWN_MAX:
        raise SlackError("msg_too_long")
    return grown


def _content(text: str, below: list[Json]) -> Json:
    blocks = ([{"type": "markdown", "text": text}] if text else []) + below
    return {"text": text} | ({"blocks": blocks} if blocks else {})
