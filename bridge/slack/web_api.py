"""One call of Slack's Web API, and what a failed one means. Which methods are called, and for what, lives elsewhere."""

from collections.abc import Awaitable, Mapping
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
    if reason in _ENDED:
        return StreamEndedError(reason)
    return MessageGoneError(reason) if reason in _GONE else ChatRefusedError(reason)


def _seconds(headers: Mapping[str, str]) -> float | None:
    value = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    return min(float(value), 3600.0) if value.isascii() and value.strip().isdigit() else None
