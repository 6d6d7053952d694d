"""`bridge check`: does everything that the settings name work, one line each, with what to do where it does not.

Everything is asked at once and nothing is waited for without end. What the settings should be lives in `settings`,
which scopes are needed in `slack/manifest`, and what makes a Redis fit in `redis_client`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import time
from typing import Any, Final, cast

import aiohttp
from redis.asyncio import Redis
from redis.exceptions import RedisError
from slack_sdk.web.async_client import AsyncWebClient

from bridge import app, redis_client
from bridge.chat import ChatError, ChatRefusedError
from bridge.embedded_redis import EmbeddedRedisError
from bridge.kapa.wire import Integration, KapaError, KapaMisconfigured, KapaUnavailable
from bridge.metrics import Metrics
from bridge.settings import SECRETS, Role, Settings, Transport, should
from bridge.slack.manifest import SCOPES
from bridge.slack.socket import address
from bridge.slack.web_api import RATE_LIMITED, Account, account, newest_subtype, server_time, web_client

PATIENCE_SECONDS: Final = 20.0
# The embedded Redis may have a long file to read before it answers.
EMBEDDED_PATIENCE_SECONDS: Final = 60.0
# Slack's signatures are good for 300 s (https://docs.slack.dev/authentication/verifying-requests-from-slack); a clock
# that NTP sets is never off by so much as this.
SKEW_SECONDS: Final = 5.0
CHANNELS_AT_ONCE: Final = 4
MOST_SHOWN: Final = 10
MOST_CHARACTERS: Final = 60
# Kapa names its kinds of integrations in the filter of https://docs.kapa.ai/api/reference/integrations: API,
# SLACK_CHANNEL, SLACK_WORKSPACE, DISCORD_CHANNEL, DISCORD_SERVER, WIDGET, SUPPORT_FORM_DEFLECTOR, DASHBOARD_CHAT.
KIND: Final = "API"
BOT_LINE: Final = "Slack bot token"
REDIS_ADVICE: Final = "check REDIS_URL, and that Redis runs"

# https://docs.slack.dev/reference/methods/auth.test, Errors.
_WHY_REFUSED: Final = {
    "account_inactive": "the app is no longer installed, or its workspace is gone",
    "token_expired": "the app rotates its tokens, which the bridge does not follow",
    "token_revoked": "the app is no longer installed, or the token was revoked",
}
# https://docs.slack.dev/reference/methods/conversations.history, Errors. Slack takes bots out of what is archived.
_WHY_NO_CHANNEL: Final = {
    "not_in_channel": "the bot is not in {channel}; type /invite {bot} there (if it is archived, unarchive it first)",
    "channel_not_found": "this workspace has no channel {channel}, or it is private and the bot is not in it; correct "
    "the id, which stands at the end of the channel's details in Slack, or type /invite {bot} there",
    "is_archived": "{channel} is archived; unarchive it and type /invite {bot} there, or take its id out",
    "missing_scope": "{channel} cannot be looked into; add the scopes that are missing first",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked. `problem` says what is wrong and what to do; None: nothing is.

    `detail` says what was found or, where it `is_skipped`, why it could not be checked.
    """

    name: str
    detail: str = ""
    problem: str | None = None
    is_skipped: bool = False

    @property
    def ok(self) -> bool | None:
        """Whether all is well; None: nobody knows."""
        return None if self.is_skipped else self.problem is None

    @property
    def text(self) -> str:
        """What there is to say about it."""
        return self.problem or self.detail


async def run(
    settings: Settings,
    role: Role = Role.ALL,
    unknown: Mapping[str, str | None] | None = None,
    *,
    clock: Callable[[], float] = time,
    patience: float = PATIENCE_SECONDS,
) -> AsyncIterator[Finding]:
    """Check everything that a role needs; findings come in an order that never changes.

    The settings must be complete for the role, and `unknown` are names that are none (`settings.unknown`). `clock`
    gives Unix seconds; each thing that is asked gets `patience` seconds.
    """
    for finding in configured(settings, unknown or {}):
        yield finding
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=patience)) as session:
        parts = [_bot(settings, role, session)]
        if role is not Role.WORKER:
            parts.append(_way_in(settings, session))
        parts.append(_clock(settings, session, clock))
        if role is not Role.INGRESS:
            parts.append(_kapa(settings, patience))
        parts.append(_redis(settings, patience))
        found = await _at_once(parts)
    for finding in found:
        yield finding


async def _at_once(parts: Sequence[Coroutine[Any, Any, list[Finding]]]) -> list[Finding]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part) for part in parts]
    return [finding for task in tasks for finding in task.result()]


# Settings


def configured(settings: Settings, unknown: Mapping[str, str | None]) -> list[Finding]:
    """Say of every setting whether it is set, and to what unless it is a secret; name those that do not exist."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    given = {name for name, value in values.items() if name in settings.model_fields_set and value is not None}
    groups = {
        "": [_told(name, value) for name, value in values.items() if name in given],
        "default: ": [name.upper() for name, value in values.items() if name not in given and value is not None],
        "not set: ": [name.upper() for name, value in values.items() if value is None],
    }
    state = "; ".join(f"{title}{', '.join(told)}" for title, told in groups.items() if told)
    return [Finding("settings", state)] + [
        Finding("settings", problem=f"{name}: there is no such setting; {_rather(nearest)}")
        for name, nearest in unknown.items()
    ]


def _told(name: str, value: object) -> str:
    if name in SECRETS:
        return f"{name.upper()} set"
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return f"{name.upper()}={_short(text)}"


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"


def _rather(nearest: str | None) -> str:
    return f"write {nearest} if that is meant, or remove it" if nearest else "remove it"


# Slack


def _client(settings: Settings, session: aiohttp.ClientSession) -> AsyncWebClient:
    return web_client(app.secret(settings.slack_bot_token), settings.slack_api_url, session)


async def _bot(settings: Settings, role: Role, session: aiohttp.ClientSession) -> list[Finding]:
    """Check the bot token, then what only an accepted one can tell."""
    client = _client(settings, session)
    bot: Account | None = None
    try:
        bot = await account(client)
        found = [token(bot), scopes(bot.scopes)]
    except ChatError as error:
        found = [_not_accepted(BOT_LINE, "slack_bot_token", error), _skipped("Slack scopes", BOT_LINE)]
    # Which channels are answered is decided where events come in.
    return found if role is Role.WORKER else [*found, *await _channels(settings, client, bot)]


async def _channels(settings: Settings, client: AsyncWebClient, bot: Account | None) -> list[Finding]:
    if not settings.bridge_channels:
        return [Finding("Slack channels", "BRIDGE_CHANNELS is not set: the bot answers in every channel it is in")]
    wanted = dict.fromkeys(settings.bridge_channels)
    if bot is None:
        return [_skipped(f"Slack channel {channel}", BOT_LINE) for channel in wanted]
    name, turns = f"@{bot.user or 'the bot'}", asyncio.Semaphore(CHANNELS_AT_ONCE)
    return await _at_once([_channel(client, channel, name, turns) for channel in wanted])


def token(bot: Account) -> Finding:
    """Tell a bot's token from a user's, which has no bot id."""
    if not bot.bot_id:
        whose = f"@{_short(bot.user)}" if bot.user else "somebody"
        problem = f"SLACK_BOT_TOKEN: it is the token of a user ({whose}); it should be {should('slack_bot_token')}"
        return Finding(BOT_LINE, problem=problem)
    return Finding(BOT_LINE, f"@{_short(bot.user)} in {_short(bot.team)} ({bot.team_id})")


def _not_accepted(name: str, setting: str, error: ChatError) -> Finding:
    if isinstance(error, ChatRefusedError):
        why = f": {_WHY_REFUSED[error.reason]}" if error.reason in _WHY_REFUSED else ""
        problem = f"{setting.upper()}: Slack refuses it ({error.reason}{why}); it should be {should(setting)}"
        return Finding(name, problem=problem)
    return Finding(name, problem=_slack_not_asked(error))


def _slack_not_asked(error: ChatError) -> str:
    if error.reason == RATE_LIMITED:
        return "Slack limits how often it can be asked (ratelimited); try again in a minute"
    return (
        f"SLACK_API_URL: Slack cannot be asked ({_in_words(error.reason)}); check SLACK_API_URL and the network, or "
        "try again later"
    )


def _in_words(reason: str) -> str:
    """Say what went wrong without the names of methods and of the HTTP library's errors."""
    what = reason.rpartition(": ")[2]
    if "Timeout" in what:
        return "no answer in time"
    return "the connection broke" if what.endswith("Error") else what


def _skipped(name: str, needs: str) -> Finding:
    return Finding(name, f"not checked: this needs the {needs} first", is_skipped=True)


def scopes(granted: Collection[str] | None) -> Finding:
    """Compare the scopes that the bot token has with those that the bridge needs; None: Slack does not name them."""
    if granted is None:
        return Finding("Slack scopes", "not checked: Slack's reply names none", is_skipped=True)
    missing, more = sorted(set(SCOPES) - set(granted)), sorted(set(granted) - set(SCOPES))
    if missing:
        wanted = ", ".join(f"{scope} (to {SCOPES[scope]})" for scope in missing)
        return Finding("Slack scopes", problem=f"add {wanted} under OAuth & Permissions and reinstall the app")
    if more:
        hint = f"the bridge does without {', '.join(map(_short, more[:MOST_SHOWN]))}, which can be removed"
        return Finding("Slack scopes", f"all granted; {hint}")
    return Finding("Slack scopes", "all granted, and no others")


async def _channel(client: AsyncWebClient, channel: str, bot: str, turns: asyncio.Semaphore) -> list[Finding]:
    """Look into a channel as `channels:history` allows: telling names and members would take further scopes."""
    name = f"Slack channel {channel}"
    try:
        async with turns:
            subtype = await newest_subtype(client, channel)
    except ChatRefusedError as refused:
        reason = refused.reason
    except ChatError as error:
        return [Finding(name, problem=_slack_not_asked(error))]
    else:
        # It stands last in a channel that was archived (https://docs.slack.dev/reference/events/message/channel_archive).
        reason = "is_archived" if subtype == "channel_archive" else ""
    if not reason:
        return [Finding(name, "the bot is in it")]
    why = _WHY_NO_CHANNEL.get(reason, "{channel} cannot be looked into ({reason}); see that it is the id of a channel")
    return [Finding(name, problem=f"BRIDGE_CHANNELS: {why.format(channel=channel, bot=bot, reason=reason)}")]


async def _way_in(settings: Settings, session: aiohttp.ClientSession) -> list[Finding]:
    """Check what events come in with: the app token over Socket Mode, the signing secret over HTTP."""
    if settings.transport is Transport.HTTP:
        return [Finding("Slack signing secret", "set; only an event of Slack's shows whether it is this app's")]
    app_token = app.secret(settings.slack_app_token)
    try:
        await address(_client(settings, session), app_token)
    except ChatError as error:
        return [_not_accepted("Slack app token", "slack_app_token", error)]
    whose = ""
    # That it opens connections is what counts.
    with suppress(ChatError):
        known = await account(web_client(app_token, settings.slack_api_url, session))
        whose = f", of the app {_short(known.app)} ({known.app_id})" if known.app_id else ""
    return [Finding("Slack app token", f"opens connections{whose}")]


async def _clock(settings: Settings, session: aiohttp.ClientSession, clock: Callable[[], float]) -> list[Finding]:
    client = _client(settings, session)
    before = clock()
    try:
        date = await server_time(client)
    except ChatError as error:
        return [
            Finding("Slack clock", f"not checked: Slack cannot be asked ({_in_words(error.reason)})", is_skipped=True)
        ]
    if date is None:
        return [Finding("Slack clock", "not checked: Slack's reply has no date", is_skipped=True)]
    return [skew(date, before, clock())]


def skew(date: float, before: float, after: float) -> Finding:
    """Compare this machine's clock, before and after a request, with Slack's in the reply, cut to a whole second."""
    least, most = before - (date + 1), after - date
    if most >= -SKEW_SECONDS and least <= SKEW_SECONDS:
        return Finding("Slack clock", f"this machine's is within {max(abs(least), abs(most)):.1f} s of Slack's")
    off = (least + most) / 2
    return Finding(
        "Slack clock",
        problem=f"this machine's clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} Slack's: let NTP set "
        "it, as with timedatectl set-ntp true; from 300 s on, what Slack signs counts as forged",
    )


# Kapa


async def _kapa(settings: Settings, patience: float) -> list[Finding]:
    try:
        async with asyncio.timeout(patience), app.kapa_client(settings, Metrics()) as kapa:
            known = await kapa.integrations()
    except (KapaError, TimeoutError) as error:
        problem = _kapa_problem(error) if isinstance(error, KapaError) else _kapa_not_asked("no answer in time")
        return [Finding("Kapa", problem=problem), _skipped("Kapa integration", "Kapa project")]
    return [Finding("Kapa", f"the key opens project {settings.kapa_project_id}"), integration(settings, known)]


def _kapa_problem(error: KapaError) -> str:
    """Say who is at fault, as far as the status tells: https://docs.kapa.ai/api."""
    match error:
        case KapaMisconfigured(status=401):
            said = f"KAPA_API_KEY: Kapa does not accept it ({error.reason})"
            return f"{said}; copy a key of the project anew from the Kapa platform, under API Keys"
        case KapaMisconfigured(status=403):
            said = f"KAPA_API_KEY, KAPA_PROJECT_ID: the key does not open this project ({error.reason})"
            return f"{said}; a key belongs to one project: copy both anew from the Kapa platform"
        case KapaMisconfigured(status=404):
            said = f"KAPA_PROJECT_ID: Kapa knows no such project ({error.reason})"
            return f"{said}; copy the project's id anew from the Kapa platform"
        case KapaUnavailable(status=int()):
            return _kapa_not_asked(str(error), "try again later")
        case _:
            # What an HTTP library says after the colon is for programmers.
            return _kapa_not_asked(error.reason.partition(":")[0] if error.status is None else str(error))


def _kapa_not_asked(reason: str, advice: str = "check KAPA_API_URL and the network") -> str:
    return f"KAPA_API_URL: Kapa cannot be asked ({reason}); {advice}"


def integration(settings: Settings, known: Sequence[Integration]) -> Finding:
    """Look whether the integration is one of the project's, and of the kind that an API's usage counts under."""
    name, wanted = "Kapa integration", str(settings.kapa_integration_id).casefold()
    found = next((one for one in known if one.id.casefold() == wanted), None)
    if found is not None and _is_usable(found):
        return Finding(
            name, f"{_short(found.name) or found.id} ({_short(found.type) or 'of a kind that Kapa does not tell'})"
        )
    if found is not None:
        wrong = f"{_short(found.name) or 'it'} is of the kind {_short(found.type)}"
    elif wanted == str(settings.kapa_project_id).casefold():
        wrong = "this is the project's id"
    else:
        wrong = "the project has no such integration"
    return Finding(name, problem=f"KAPA_INTEGRATION_ID: {wrong}; {_instead(known)}")


def _is_usable(one: Integration) -> bool:
    return not one.type or KIND in one.type.upper().split("_")


def _instead(known: Sequence[Integration]) -> str:
    if usable := [one for one in known if _is_usable(one)]:
        return f"set it to one of the kind {KIND}: {_named(usable)}"
    there = f"; it has only {_named(known)}" if known else ""
    return f"create one of the kind {KIND} in the Kapa platform, under Integrations{there}"


def _named(known: Sequence[Integration]) -> str:
    told = [f"{one.id} ({', '.join(filter(None, (_short(one.name), _short(one.type))))})" for one in known]
    more = f" and {len(told) - MOST_SHOWN} more" if len(told) > MOST_SHOWN else ""
    return ", ".join(told[:MOST_SHOWN]).replace(" ()", "") + more


# Redis


async def _redis(settings: Settings, patience: float) -> list[Finding]:
    limit = patience if settings.redis_url else EMBEDDED_PATIENCE_SECONDS
    try:
        async with asyncio.timeout(limit), app.open_redis(settings, attach=True) as redis:
            fatal, risky = await redis_client.shortcomings(redis)
            facts = await _facts(redis)
            refused = await redis_client.refusal(redis)
    except RedisError as error:
        reason = app.brief(error).rstrip(".")
        return [Finding("Redis", problem=f"REDIS_URL: Redis cannot be used: {reason}; {REDIS_ADVICE}")]
    except TimeoutError:
        return [Finding("Redis", problem=f"REDIS_URL: Redis does not answer within {limit:g} s; {REDIS_ADVICE}")]
    except (app.StartError, EmbeddedRedisError) as error:
        return [Finding("Redis", problem=str(error))]
    if refused and not fatal:
        fatal.append(f"REDIS_URL: Redis refuses writes ({refused}); see docs/operations.md, When Redis refuses writes")
    if not fatal and not risky:
        return [Finding("Redis", f"{facts}{'' if settings.redis_url else ' (the embedded one)'}")]
    return [Finding("Redis", problem=problem) for problem in (*fatal, *risky)]


async def _facts(redis: Redis) -> str:
    """Tell its version, what it keeps and what it evicts; raises redis.RedisError."""
    info = cast("dict[str, object]", await redis.info())
    facts = {
        "appendonly": {"1": "yes", "0": "no"}.get(str(info.get("aof_enabled")), ""),
        "maxmemory-policy": str(info.get("maxmemory_policy", "")),
    }
    # Hosted Redis often forbids CONFIG; INFO says nearly as much.
    with suppress(RedisError):
        for name in ("appendonly", "appendfsync", "maxmemory-policy"):
            facts |= cast("dict[str, str]", await redis.config_get(name))
    told = [f"{name} {facts[name]}" for name in ("appendonly", "appendfsync", "maxmemory-policy") if facts.get(name)]
    keeps = (await redis_client.durability(redis)).partition(" (")[0]
    return f"{', '.join([str(info.get('redis_version')), *told])}: {keeps}"
