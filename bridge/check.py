"""`bridge check`: does everything that the settings name work, one line each, with what to do where it does not."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import aiohttp
from redis.exceptions import RedisError

from bridge import app, redis_client
from bridge.chat import ChatError, ChatRefusedError
from bridge.embedded_redis import EmbeddedRedisError
from bridge.kapa.wire import KapaError, KapaMisconfigured
from bridge.metrics import Metrics
from bridge.settings import Settings, Transport, should
from bridge.slack.manifest import SCOPES
from bridge.slack.socket import address
from bridge.slack.web_api import TIMEOUT, granted_scopes, web_client

REDIS_ADVICE: Final = "check REDIS_URL, and that Redis runs"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked. `problem` says what is wrong and what to do; None: nothing is."""

    name: str
    detail: str = ""
    problem: str | None = None


async def run(settings: Settings, unknown: Mapping[str, str | None] | None = None) -> AsyncIterator[Finding]:
    """Check everything; the settings must be complete, and `unknown` are names that are none (`settings.unknown`)."""
    for finding in named(unknown or {}):
        yield finding
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


def named(unknown: Mapping[str, str | None]) -> list[Finding]:
    """Name each setting that does not exist, with the nearest that does."""
    if not unknown:
        return [Finding("settings", "complete")]
    return [
        Finding("settings", problem=f"{name}: there is no such setting; {_rather(nearest)}")
        for name, nearest in unknown.items()
    ]


def _rather(nearest: str | None) -> str:
    return f"write {nearest} if that is meant, or remove it" if nearest else "remove it"


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
        return Finding(
            "Kapa",
            problem=f"KAPA_API_KEY, KAPA_PROJECT_ID: Kapa says {error.reason}; copy the key and the project's id anew "
            "from the Kapa platform",
        )
    except KapaError as error:
        return Finding("Kapa", problem=_kapa_not_asked(error))
    if settings.kapa_integration_id in {integration.id for integration in known}:
        return Finding("Kapa", "key, project and integration belong together")
    names = ", ".join(f"{integration.id} ({integration.name})" for integration in known) or "none"
    return Finding("Kapa", problem=f"KAPA_INTEGRATION_ID: the project has no such integration; it has: {names}")


def _kapa_not_asked(error: KapaError) -> str:
    if error.status is not None:
        return f"KAPA_API_URL: Kapa cannot be asked ({error}); try again later"
    # After the colon comes what the HTTP library says, which is for programmers.
    reason = error.reason.partition(":")[0]
    return f"KAPA_API_URL: Kapa cannot be asked ({reason}); check KAPA_API_URL and the network"


async def _redis(settings: Settings) -> list[Finding]:
    try:
        async with app.open_redis(settings, attach=True) as redis:
            fatal, risky = await redis_client.shortcomings(redis)
            durability = await redis_client.durability(redis)
            refused = await redis_client.refusal(redis)
    except RedisError as error:
        reason = app.brief(error).rstrip(".")
        return [Finding("Redis", problem=f"REDIS_URL: Redis cannot be used: {reason}; {REDIS_ADVICE}")]
    except (app.StartError, EmbeddedRedisError) as error:
        return [Finding("Redis", problem=str(error))]
    if refused and not fatal:
        fatal.append(f"REDIS_URL: Redis refuses writes ({refused}); see docs/operations.md, When Redis refuses writes")
    if not fatal and not risky:
        return [Finding("Redis", f"new enough, and {durability}")]
    return [Finding("Redis", problem=problem) for problem in (*fatal, *risky)]
