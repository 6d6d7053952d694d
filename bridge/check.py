"""`bridge check`: does everything that the settings name work, one line each, with what to do where it does not."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp
from redis.exceptions import RedisError

from bridge import app, redis_client
from bridge.chat import ChatError, ChatRefusedError
from bridge.embedded_redis import EmbeddedRedisError
from bridge.kapa.wire import KapaError, KapaMisconfigured
from bridge.metrics import Metrics
from bridge.settings import Settings, Transport, should
from bridge.slack.chat import TIMEOUT, granted_scopes, web_client
from bridge.slack.manifest import SCOPES
from bridge.slack.socket import address


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked. `problem` says what is wrong and what to do; None: nothing is."""

    name: str
    detail: str = ""
    problem: str | None = None


async def run(settings: Settings) -> AsyncIterator[Finding]:
    """Check everything; the settings must be complete."""
    yield Finding("settings", "complete")
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=TIMEOUT))
        client = web_client(app.secret(settings.slack_bot_token), settings.slack_api_url, session)
        try:
            granted = await granted_scopes(client)
        except ChatError as error:
            yield _not_accepted("Slack bot token", "slack_bot_token", error)
        else:
            yield Finding("Slack bot token", "accepted")
            yield scopes(granted)
        if settings.transport is Transport.SOCKET:
            try:
                await address(client, app.secret(settings.slack_app_token))
                yield Finding("Slack app token", "accepted")
            except ChatError as error:
                yield _not_accepted("Slack app token", "slack_app_token", error)
    yield await _kapa(settings)
    for finding in await _redis(settings):
        yield finding


def _not_accepted(name: str, setting: str, error: ChatError) -> Finding:
    if isinstance(error, ChatRefusedError):
        return Finding(
            name, problem=f"{setting.upper()}: Slack refuses it ({error.reason}); it should be {should(setting)}"
        )
    return Finding(name, problem=f"SLACK_API_URL: Slack cannot be asked ({error.reason}); try again later")


def scopes(granted: Sequence[str]) -> Finding:
    """Compare the scopes that the bot token has with those that the bridge needs."""
    missing = sorted(set(SCOPES) - set(granted))
    if not missing:
        return Finding("Slack scopes", "all granted")
    wanted = ", ".join(f"{scope} (to {SCOPES[scope]})" for scope in missing)
    return Finding("Slack scopes", problem=f"add {wanted} under OAuth & Permissions and reinstall the app")


async def _kapa(settings: Settings) -> Finding:
    try:
        async with app.kapa_client(settings, Metrics()) as kapa:
            known = await kapa.integrations()
    except KapaMisconfigured as error:
        return Finding("Kapa", problem=f"KAPA_API_KEY, KAPA_PROJECT_ID: Kapa says {error.reason}")
    except KapaError as error:
        return Finding("Kapa", problem=f"KAPA_API_URL: Kapa cannot be asked ({error.reason}); try again later")
    if settings.kapa_integration_id in {integration.id for integration in known}:
        return Finding("Kapa", "key, project and integration belong together")
    names = ", ".join(f"{integration.id} ({integration.name})" for integration in known) or "none"
    return Finding("Kapa", problem=f"KAPA_INTEGRATION_ID: the project has no such integration; it has: {names}")


async def _redis(settings: Settings) -> list[Finding]:
    try:
        async with app.open_redis(settings, attach=True) as redis:
            fatal, risky = await redis_client.shortcomings(redis)
    except RedisError as error:
        return [Finding("Redis", problem=f"REDIS_URL: Redis cannot be used: {app.brief(error)}")]
    except (app.StartError, EmbeddedRedisError) as error:
        return [Finding("Redis", problem=str(error))]
    if not fatal and not risky:
        return [Finding("Redis", "new enough, and keeps every write")]
    return [Finding("Redis", problem=problem) for problem in (*fatal, *risky)]
