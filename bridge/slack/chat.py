"""Calls Slack's Web API: shows replies and finds them again. What they look like lives in `slack/write`.

No call is ever repeated here: who calls knows whether that is safe. What Slack limits is left alone by all workers
until Slack takes it again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import structlog
from redis.exceptions import RedisError
from slack_sdk.web.async_client import AsyncWebClient

from bridge.chat import (
    ChatBusyError,
    ChatRefusedError,
    ChatUnclearError,
    Extent,
    Found,
    MessageGoneError,
    Part,
    StreamEndedError,
    StreamRefusedError,
)
from bridge.messages import Messages
from bridge.models import Place, Question, Reply, Whisper
from bridge.pauses import Pauses
from bridge.slack import write
from bridge.slack.read import Identity
from bridge.slack.web_api import RATE_LIMITED, Observe, observed

PAGES_OF_REPLIES: Final = 10
# Slack says how long to wait. A 429 without a word on it is a gateway's: long enough to spare it, short for a person.
PAUSE_SECONDS: Final = 3.0
# The only method with a limit for each channel, besides the one for the workspace that every method has.
POST: Final = "chat.postMessage"

_TOO_MUCH: Final = {"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "msg_too_long"}
_STILL_GROWING: Final = "streaming_state_conflict"
# They say nothing of streams: a plain post would be refused as well.
_NOT_ABOUT_STREAMS: Final = {
    "account_inactive",
    "channel_not_found",
    "invalid_auth",
    "is_archived",
    "not_authed",
    "not_in_channel",
    "restricted_action",
    "restricted_action_read_only_channel",
    "restricted_action_thread_locked",
    "thread_not_found",
    "token_expired",
    "token_revoked",
}
_EXTENTS: Final = {
    "access_denied": Extent.WORKSPACE,
    "feature_not_enabled": Extent.WORKSPACE,
    "missing_scope": Extent.WORKSPACE,
    "no_permission": Extent.WORKSPACE,
    "not_allowed_token_type": Extent.WORKSPACE,
    "team_access_not_granted": Extent.WORKSPACE,
    "unknown_method": Extent.WORKSPACE,
    "channel_type_not_supported": Extent.CHANNEL,
    "method_not_supported_for_channel_type": Extent.CHANNEL,
    "cannot_reply_to_message": Extent.ONCE,
    "ekm_access_denied": Extent.ONCE,
    "invalid_arguments": Extent.ONCE,
    "message_limit_exceeded": Extent.ONCE,
    "message_not_found": Extent.ONCE,
    "missing_recipient_team_id": Extent.ONCE,
    "missing_recipient_user_id": Extent.ONCE,
    "msg_too_long": Extent.ONCE,
    "no_text": Extent.ONCE,
    "team_not_found": Extent.ONCE,
    "user_not_found": Extent.ONCE,
    "user_not_in_channel": Extent.ONCE,
}

log = structlog.get_logger()


def scopes(method: str, channel: str) -> tuple[str, ...]:
    """Name what Slack may limit when a method is called for a channel; the narrowest comes last.

    Source: https://docs.slack.dev/apis/web-api/rate-limits: each method in each workspace, and posts in each channel.
    """
    return (method, f"{method} {channel}") if method == POST else (method,)


def is_everywhere(scope: str, paused: Collection[str]) -> bool:
    """Say whether a limit that was met in `scope` is probably the workspace's, by what else is `paused`.

    Slack does not say which of the two limits of chat.postMessage was met; two channels at once speak for the wider.
    """
    method, _, channel = scope.partition(" ")
    return channel != "" and any(other.startswith(f"{method} ") and other != scope for other in paused)


class SlackChat:
    """The chat, as `bridge.chat.Chat` wants it. A method that Slack limits is not called while `pauses` has it.

    `observe` is called once per call. Besides ChatError the methods that call Slack raise redis.RedisError: nothing was
    asked of Slack then, or Slack had refused it.
    """

    def __init__(
        self,
        client: AsyncWebClient,
        identity: Identity,
        *,
        pauses: Pauses,
        says: Messages,
        observe: Observe = lambda method, outcome, seconds: None,
    ) -> None:
        self._client = client
        self._identity = identity
        self._pauses = pauses
        self._says = says
        self._observe = observe

    def parts(self, reply: Reply) -> Sequence[Part]:
        """Divide a reply into messages."""
        return write.parts(reply, self._says)

    async def prepare(self) -> None:
        """Learn what is paused."""
        with suppress(RedisError):  # each call asks again, and says so where that fails
            await self._pauses.refresh()

    async def post(self, question: Question, number: int, part: Part) -> str:
        """Post a part into the question's thread; return its ts."""
        channel = question.place.channel
        body: dict[str, Any] = {
            "channel": channel,
            "thread_ts": question.place.thread,
            "metadata": write.metadata(question.id, number),
            "unfurl_links": False,
            "unfurl_media": False,
        }
        reply = await self._shown(POST, channel, lambda shown: self._client.chat_postMessage(**body, **shown), part)
        return _ts(reply)

    async def edit(self, question: Question, number: int, message: str, part: Part) -> None:
        """Replace the message with ts `message`."""
        try:
            await self._update(question, number, message, part)
        except ChatRefusedError as refused:
            if refused.reason != _STILL_GROWING:
                raise
            await self._end_stream(question.place, message)
            await self._update(question, number, message, part)

    async def _update(self, question: Question, number: int, message: str, part: Part) -> None:
        channel = question.place.channel
        target: dict[str, Any] = {
            "channel": channel,
            "ts": message,
            # What began as a stream has none yet.
            "metadata": write.metadata(question.id, number),
            "unfurl_links": False,
            "unfurl_media": False,
        }
        await self._shown("chat.update", channel, lambda shown: self._client.chat_update(**target, **shown), part)

    async def start(self, question: Question, part: Part) -> str:
        """Start a stream in the question's thread; return its message's ts.

        Source: https://docs.slack.dev/reference/methods/chat.startStream, which takes no metadata.
        """
        place = question.place
        try:
            reply = await self._call(
                "chat.startStream",
                place.channel,
                lambda: self._client.chat_startStream(
                    channel=place.channel,
                    thread_ts=place.thread,
                    markdown_text=write.growing(part),
                    recipient_team_id=question.user_team or place.team,
                    recipient_user_id=question.user,
                ),
            )
        except ChatRefusedError as refused:
            if refused.reason in _NOT_ABOUT_STREAMS:
                raise
            extent = _EXTENTS.get(refused.reason, Extent.UNKNOWN)
            raise StreamRefusedError(refused.reason, extent) from None
        return _ts(reply)

    async def grow(self, place: Place, message: str, shown: Part, part: Part) -> None:
        """Append to a stream. Source: https://docs.slack.dev/reference/methods/chat.appendStream."""
        more = write.rest(shown, part, is_draft=True)
        if more is None:
            raise StreamEndedError("not_a_continuation")
        if more:
            await self._call(
                "chat.appendStream",
                place.channel,
                lambda: self._client.chat_appendStream(channel=place.channel, ts=message, markdown_text=more),
            )

    async def complete(self, question: Question, number: int, message: str, shown: Part, part: Part) -> None:
        """Stop a stream, with what is still to be shown and what stands below it.

        Source: https://docs.slack.dev/reference/methods/chat.stopStream.
        """
        channel, more = question.place.channel, write.rest(shown, part, is_draft=False)
        if more is None:
            raise StreamEndedError("not_a_continuation")
        try:
            await self._call(
                "chat.stopStream",
                channel,
                lambda: self._client.chat_stopStream(
                    channel=channel,
                    ts=message,
                    markdown_text=more or None,
                    blocks=write.below(part) or None,
                    metadata=write.metadata(question.id, number),
                ),
            )
        except ChatRefusedError as refused:
            # What is wrong with the blocks is found, and left out, by an edit.
            raise StreamEndedError(refused.reason) if refused.reason in _TOO_MUCH else refused from None

    async def _end_stream(self, place: Place, message: str) -> None:
        try:
            await self._call(
                "chat.stopStream",
                place.channel,
                lambda: self._client.chat_stopStream(channel=place.channel, ts=message),
            )
        except StreamEndedError:
            return

    async def delete(self, place: Place, message: str) -> None:
        """Delete the message with ts `message`; that there is none is fine."""
        try:
            await self._call(
                "chat.delete", place.channel, lambda: self._client.chat_delete(channel=place.channel, ts=message)
            )
        except MessageGoneError:
            return

    async def find(self, question: Question) -> Found:
        """Look through the thread, from the question on."""
        named: dict[int, list[str]] = {}
        unnamed: list[str] = []
        is_replied = False
        async for message in self._later(question):
            posted = write.read_metadata(message)
            if not self._is_ours(message):
                is_replied = is_replied or write.is_from_person(message)
            elif posted is None:
                unnamed.append(message["ts"])
            elif posted[0] == question.id:
                named.setdefault(posted[1], []).append(message["ts"])
        return Found({number: sorted(posted) for number, posted in named.items()}, sorted(unnamed), is_replied)

    async def _later(self, question: Question) -> AsyncIterator[Mapping[str, Any]]:
        cursor = ""
        for _ in range(PAGES_OF_REPLIES):
            page = await self._replies(question.place, question.place.thread, oldest=question.id, cursor=cursor)
            messages = page.get("messages")
            for message in messages if isinstance(messages, list) else ():
                ts = message.get("ts") if isinstance(message, dict) else None
                # The thread's first message comes with every page.
                if isinstance(ts, str) and ts > question.id:
                    yield message
            cursor = _next_cursor(page)
            if not cursor:
                return

    async def show_status(self, place: Place, text: str, loading: Sequence[str] = ()) -> None:
        """Show or take back the line that says the bridge is at work.

        Source: https://docs.slack.dev/reference/methods/assistant.threads.setStatus.
        """
        await self._call(
            "assistant.threads.setStatus",
            place.channel,
            lambda: self._client.assistant_threads_setStatus(
                channel_id=place.channel, thread_ts=place.thread, status=text, loading_messages=list(loading) or None
            ),
        )

    async def whisper(self, place: Place, user: str, whisper: Whisper) -> None:
        """Post an ephemeral message. Source: https://docs.slack.dev/reference/methods/chat.postEphemeral."""
        target: dict[str, Any] = {"channel": place.channel, "user": user, "thread_ts": place.thread or None}
        await self._call(
            "chat.postEphemeral",
            place.channel,
            lambda: self._client.chat_postEphemeral(**target, **write.whisper(whisper, self._says)),
        )

    async def thread_of(self, place: Place, message: str) -> str:
        """Ask for the message itself: an event about a reaction does not say where its message stands."""
        page = await self._replies(place, message, limit=1)
        messages = page.get("messages")
        found = messages[0] if isinstance(messages, list) and messages else None
        thread = found.get("thread_ts") if isinstance(found, dict) and found.get("ts") == message else None
        return thread if isinstance(thread, str) else ""

    def _is_ours(self, message: Mapping[str, Any]) -> bool:
        return message.get("user") == self._identity.user or message.get("bot_id") == self._identity.bot != ""

    async def _replies(
        self, place: Place, ts: str, *, oldest: str = "", limit: int = 200, cursor: str = ""
    ) -> Mapping[str, Any]:
        return await self._call(
            "conversations.replies",
            place.channel,
            lambda: self._client.conversations_replies(
                channel=place.channel,
                ts=ts,
                oldest=oldest or None,
                include_all_metadata=True,
                limit=limit,
                cursor=cursor or None,
            ),
        )

    async def _shown(
        self, method: str, channel: str, send: Callable[[Mapping[str, Any]], Awaitable[Any]], part: Part
    ) -> Mapping[str, Any]:
        """Send a part; where Slack finds fault with its blocks, a simpler form is better than silence."""
        for form in (part, *write.plainer(part)):
            try:
                return await self._call(method, channel, partial(send, form))
            except ChatRefusedError as refusal:
                if refusal.reason not in _TOO_MUCH:
                    raise
                refused = refusal
        raise refused

    async def _call(self, method: str, channel: str, send: Callable[[], Awaitable[Any]]) -> Mapping[str, Any]:
        left = await self._pauses.left(scopes(method, channel))
        if left > 0:
            raise ChatBusyError(RATE_LIMITED, left)
        try:
            return await observed(self._observe, method, send())
        except ChatBusyError as busy:
            if busy.reason != RATE_LIMITED:
                raise
            seconds = busy.retry_after or PAUSE_SECONDS
        await self._pause(method, channel, seconds)
        raise ChatBusyError(RATE_LIMITED, seconds)

    async def _pause(self, method: str, channel: str, seconds: float) -> None:
        scope = scopes(method, channel)[-1]
        log.warning("slack_limited", scope=scope, seconds=seconds)
        if is_everywhere(scope, await self._pauses.pause(scope, seconds)):
            log.warning("slack_limited", scope=method, seconds=seconds)
            await self._pauses.pause(method, seconds)


def _ts(reply: Mapping[str, Any]) -> str:
    ts = reply.get("ts")
    if not isinstance(ts, str):
        raise ChatUnclearError("no_ts")
    return ts


def _next_cursor(page: Mapping[str, Any]) -> str:
    metadata = page.get("response_metadata")
    cursor = metadata.get("next_cursor") if isinstance(metadata, dict) else None
    return cursor if isinstance(cursor, str) else ""
