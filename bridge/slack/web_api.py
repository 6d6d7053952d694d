"""One call of Slack's Web API, and what a failed one means. Which methods are called, and for what, lives elsewhere."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import Any, Final

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bridge.chat import (
    ChatBusyError,
    ChatError,
    ChatRefusedError,
    ChatUnclearError,
    MessageGoneError,
    StreamEndedError,
)
from bridge.slack.read import Identity

TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=10)
RATE_LIMITED: Final = "ratelimited"
_UNCLEAR: Final = {"internal_error", "fatal_error", "request_timeout", "service_unavailable", "accesslimited"}
_GONE: Final = {"message_not_found", "cant_update_message", "edit_window_closed"}
_ENDED: Final = {"message_not_in_streaming_state", "stopped_by_user"}
OUTCOMES: Final[Mapping[type[ChatError], str]] = {
    ChatBusyError: "busy",
    ChatUnclearError: "unclear",
    ChatRefusedError: "refused",
    MessageGoneError: "refused",
    StreamEndedError: "refused",
}

# Hears of a call: method, outcome (`ok`, `busy`, `unclear`, `refused` or `cancelled`), seconds.
Observe = Callable[[str, str, float], None]


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


@dataclass(frozen=True, slots=True)
class Account:
    """Whose a token is, as `auth.test` says: names and ids, each empty where it does not say.

    `bot_id` is a bot's alone, `app` and `app_id` an app-level token's. `scopes` is None where no header names them.
    """

    user: str
    team: str
    team_id: str
    bot_id: str
    app: str
    app_id: str
    scopes: frozenset[str] | None


async def account(client: AsyncWebClient) -> Account:
    """Ask whose the client's token is, and what it may do; raises ChatError.

    Sources: https://docs.slack.dev/reference/methods/auth.test, and for the `x-oauth-scopes` header
    https://docs.slack.dev/authentication/installing-with-oauth.
    """
    headers: dict[str, str] = {}
    reply = await call("auth.test", _noting(client.auth_test(), headers))
    scopes = headers.get("x-oauth-scopes")
    return Account(
        user=_text(reply, "user"),
        team=_text(reply, "team"),
        team_id=_text(reply, "team_id"),
        bot_id=_text(reply, "bot_id"),
        app=_text(reply, "app_name"),
        app_id=_text(reply, "app_id"),
        scopes=None if scopes is None else frozenset(filter(None, (scope.strip() for scope in scopes.split(",")))),
    )


async def newest_subtype(client: AsyncWebClient, channel: str) -> str:
    """Read the newest message of a channel that the bot is in, and give its subtype, empty for none; raises ChatError.

    Source: https://docs.slack.dev/reference/methods/conversations.history.
    """
    reply = await call("conversations.history", client.conversations_history(channel=channel, limit=1))
    messages = reply.get("messages")
    newest = messages[0] if isinstance(messages, list) and messages else None
    return _text(newest, "subtype") if isinstance(newest, dict) else ""


async def server_time(client: AsyncWebClient) -> float | None:
    """Ask Slack for the time: the `Date` of a reply, Unix time cut to a whole second; None: the reply has none.

    What else the reply says does not matter; raises ChatError where none comes.
    Sources: https://docs.slack.dev/reference/methods/api.test, https://www.rfc-editor.org/rfc/rfc9110#field.date.
    """
    headers: dict[str, str] = {}
    try:
        await call("api.test", _noting(client.api_test(), headers))
    except ChatError:
        if not headers:
            raise
    try:
        at = parsedate_to_datetime(headers.get("date", ""))
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


async def _noting(request: Awaitable[AsyncSlackResponse], headers: dict[str, str]) -> AsyncSlackResponse:
    """Await one call of the SDK and note the reply's headers, under lowercase names."""
    try:
        reply = await request
    except SlackApiError as error:
        if isinstance(error.response, AsyncSlackResponse):
            _note(error.response, headers)
        raise
    _note(reply, headers)
    return reply


def _note(reply: AsyncSlackResponse, headers: dict[str, str]) -> None:
    headers.update({str(name).lower(): str(value) for name, value in dict(reply.headers).items()})


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


async def observed(observe: Observe, method: str, request: Awaitable[Any]) -> Mapping[str, Any]:
    """Await one call as `call` does, and tell `observe` how it ended."""
    started, outcome = monotonic(), "cancelled"
    try:
        reply = await call(method, request)
        outcome = "ok"
        return reply
    except ChatError as error:
        outcome = OUTCOMES[type(error)]
        raise
    finally:
        observe(method, outcome, monotonic() - started)


def refusal(status: int, headers: Mapping[str, str], data: object) -> ChatError:
    """Tell what a failed reply means. Source: https://docs.slack.dev/apis/web-api, and each method's page."""
    reason = str(data.get("error") or "")[:100] if isinstance(data, dict) else ""
    if status == 429 or reason in {RATE_LIMITED, "rate_limited"}:
        return ChatBusyError(RATE_LIMITED, _seconds(headers))
    if status >= 500 or reason in _UNCLEAR or not reason:
        return ChatUnclearError(reason or f"status {status}")
    if reason in _ENDED:
        return StreamEndedError(reason)
    return MessageGoneError(reason) if reason in _GONE else ChatRefusedError(reason)


def _seconds(headers: Mapping[str, str]) -> float | None:
    value = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    return min(float(value), 3600.0) if value.isascii() and value.strip().isdigit() else None
