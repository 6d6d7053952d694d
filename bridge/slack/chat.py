"""Calls Slack's Web API: shows replies and finds them again. What they look like lives in `slack/write`.

No call is ever repeated here: who calls knows whether that is safe. What Slack limits is left alone by all workers
until Slack takes it again.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from time import monotonic
from typing import Any, Final

import aiohttp
import structlog
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bridge.chat import ChatBusyError, ChatError, ChatRefusedError, ChatUnclearError, MessageGoneError, Part
from bridge.models import Place, Question, Reply
from bridge.pauses import Pauses
from bridge.slack import write
from bridge.slack.read import Identity

TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=10)
PAGES_OF_REPLIES: Final = 10
# Slack says how long to wait. A 429 without a word on it is a gateway's: long enough to spare it, short for a person.
PAUSE_SECONDS: Final = 3.0
RATE_LIMITED: Final = "ratelimited"
# The only method with a limit for each channel, besides the one for the workspace that every method has.
POST: Final = "chat.postMessage"

_UNCLEAR: Final = {"internal_error", "fatal_error", "request_timeout", "service_unavailable", "accesslimited"}
_GONE: Final = {"message_not_found", "cant_update_message", "edit_window_closed"}
_TOO_MUCH: Final = {"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "msg_too_long"}

Observe = Callable[[str, str, float], None]
log = structlog.get_logger()


def web_client(token: str, api_url: str, session: aiohttp.ClientSession) -> AsyncWebClient:
    """Make the SDK's client: over a session of ours, and without its own retries, which post twice."""
    client = AsyncWebClient(token=token, base_url=api_url, session=session, retry_handlers=[])
    # The SDK takes a proxy out of the environment, whatever NO_PROXY says, and would send it the token.
    client.proxy = None
    return client


async def identify(client: AsyncWebClient) -> Identity:
    """Ask Slack who the bridge is; raises ChatError. Source: https://docs.slack.dev/reference/methods/auth.test."""
    reply = await call("auth.test", client.auth_test())
    for name in ("team_id", "user_id"):
        if not isinstance(reply.get(name), str):
            raise ChatUnclearError(f"auth.test: no {name}")
    return Identity(
        team=reply["team_id"],
        user=reply["user_id"],
        bot=str(reply.get("bot_id") or ""),
        url=str(reply.get("url") or ""),
    )


async def granted_scopes(client: AsyncWebClient) -> list[str]:
    """Ask which scopes the bot token has; raises ChatError.

    Source: https://docs.slack.dev/authentication/installing-with-oauth, the `x-oauth-scopes` header.
    """
    headers: dict[str, str] = {}

    async def ask() -> Any:
        reply = await client.auth_test()
        headers.update({name.lower(): value for name, value in dict(reply.headers).items()})
        return reply

    await call("auth.test", ask())
    return [scope.strip() for scope in headers.get("x-oauth-scopes", "").split(",") if scope.strip()]


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

    `observe(method, outcome, seconds)` is called once per call; outcome is `ok`, `busy`, `unclear` or `refused`.
    Besides ChatError the methods that call Slack raise redis.RedisError: nothing was asked of Slack then, or Slack
    had refused it.
    """

    def __init__(
        self,
        client: AsyncWebClient,
        identity: Identity,
        *,
        pauses: Pauses,
        sources_title: str,
        observe: Observe = lambda method, outcome, seconds: None,
    ) -> None:
        self._client = client
        self._identity = identity
        self._pauses = pauses
        self._sources_title = sources_title
        self._observe = observe

    def parts(self, reply: Reply) -> Sequence[Part]:
        """Divide a reply into messages."""
        return write.parts(reply, self._sources_title)

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
        ts = reply.get("ts")
        if not isinstance(ts, str):
            raise ChatUnclearError("no_ts")
        return ts

    async def edit(self, place: Place, message: str, part: Part) -> None:
        """Replace the message with ts `message`."""
        target: dict[str, Any] = {"channel": place.channel, "ts": message, "unfurl_links": False, "unfurl_media": False}
        await self._shown("chat.update", place.channel, lambda shown: self._client.chat_update(**target, **shown), part)

    async def delete(self, place: Place, message: str) -> None:
        """Delete the message with ts `message`; that there is none is fine."""
        try:
            await self._call(
                "chat.delete", place.channel, lambda: self._client.chat_delete(channel=place.channel, ts=message)
            )
        except MessageGoneError:
            return

    async def find(self, question: Question) -> Mapping[int, Sequence[str]]:
        """Look through the thread, from the question on, for what was posted in reply to it."""
        found: dict[int, list[str]] = {}
        cursor = ""
        for _ in range(PAGES_OF_REPLIES):
            page = await self._replies(question, cursor)
            messages = page.get("messages")
            for message in messages if isinstance(messages, list) else ():
                posted = write.read_metadata(message)
                if posted and posted[0] == question.id and self._is_ours(message):
                    found.setdefault(posted[1], []).append(message["ts"])
            cursor = _next_cursor(page)
            if not cursor:
                break
        return {number: sorted(posted) for number, posted in found.items()}

    async def show_status(self, place: Place, text: str) -> None:
        """Show or take back the line that says the bridge is at work.

        Source: https://docs.slack.dev/reference/methods/assistant.threads.setStatus.
        """
        await self._call(
            "assistant.threads.setStatus",
            place.channel,
            lambda: self._client.assistant_threads_setStatus(
                channel_id=place.channel, thread_ts=place.thread, status=text
            ),
        )

    def _is_ours(self, message: Mapping[str, Any]) -> bool:
        if not isinstance(message.get("ts"), str):
            return False
        return message.get("user") == self._identity.user or message.get("bot_id") == self._identity.bot != ""

    async def _replies(self, question: Question, cursor: str) -> Mapping[str, Any]:
        place = question.place
        return await self._call(
            "conversations.replies",
            place.channel,
            lambda: self._client.conversations_replies(
                channel=place.channel,
                ts=place.thread,
                oldest=question.id,
                include_all_metadata=True,
                limit=200,
                cursor=cursor or None,
            ),
        )

    async def _shown(
        self, method: str, channel: str, send: Callable[[Mapping[str, Any]], Awaitable[Any]], part: Part
    ) -> Mapping[str, Any]:
        try:
            return await self._call(method, channel, lambda: send(part))
        except ChatRefusedError as refusal:
            if refusal.reason not in _TOO_MUCH or "blocks" not in part:
                raise
        # Slack finds fault with the blocks: the plain text is better than silence.
        return await self._call(method, channel, lambda: send({"text": part["text"]}))

    async def _call(self, method: str, channel: str, send: Callable[[], Awaitable[Any]]) -> Mapping[str, Any]:
        left = await self._pauses.left(scopes(method, channel))
        if left > 0:
            raise ChatBusyError(RATE_LIMITED, left)
        try:
            return await self._observed(method, send())
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

    async def _observed(self, method: str, request: Awaitable[Any]) -> Mapping[str, Any]:
        started, outcome = monotonic(), "cancelled"
        try:
            reply = await call(method, request)
            outcome = "ok"
            return reply
        except ChatError as error:
            outcome = _OUTCOMES[type(error)]
            raise
        finally:
            self._observe(method, outcome, monotonic() - started)


def _next_cursor(page: Mapping[str, Any]) -> str:
    metadata = page.get("response_metadata")
    cursor = metadata.get("next_cursor") if isinstance(metadata, dict) else None
    return cursor if isinstance(cursor, str) else ""


_OUTCOMES: Final[Mapping[type[ChatError], str]] = {
    ChatBusyError: "busy",
    ChatUnclearError: "unclear",
    ChatRefusedError: "refused",
    MessageGoneError: "refused",
}


async def call(method: str, request: Awaitable[Any]) -> Mapping[str, Any]:
    """Await one call of the SDK and turn whatever goes wrong into a ChatError."""
    try:
        reply = (await request).data
    except SlackApiError as error:
        if isinstance(error.response, AsyncSlackResponse):
            raise refusal(error.response.status_code, dict(error.response.headers), error.response.data) from None
        raise ChatUnclearError(f"{method}: no JSON") from None
    except aiohttp.ClientConnectorError:
        raise ChatBusyError(f"{method}: no connection") from None
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise ChatUnclearError(f"{method}: {type(error).__name__}") from None
    except (ValueError, AttributeError):
        # So the SDK stumbles over a body that is no JSON object, or no text.
        raise ChatUnclearError(f"{method}: no JSON") from None
    if not isinstance(reply, dict):
        raise ChatUnclearError(f"{method}: no JSON")
    return reply


def refusal(status: int, headers: Mapping[str, str], data: object) -> ChatError:
    """Tell what a failed reply means. Source: https://docs.slack.dev/apis/web-api, and each method's page."""
    reason = str(data.get("error") or "")[:100] if isinstance(data, dict) else ""
    if status == 429 or reason in {RATE_LIMITED, "rate_limited"}:
        return ChatBusyError(RATE_LIMITED, _seconds(headers))
    if status >= 500 or reason in _UNCLEAR or not reason:
        return ChatUnclearError(reason or f"status {status}")
    return MessageGoneError(reason) if reason in _GONE else ChatRefusedError(reason)


def _seconds(headers: Mapping[str, str]) -> float | None:
    value = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    return min(float(value), 3600.0) if value.isascii() and value.strip().isdigit() else None
