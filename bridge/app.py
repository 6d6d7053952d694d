"""Puts the bridge together and runs it: the only place that knows all its parts.

What each part does lives in the part.
"""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, TypeVar

import aiohttp
import structlog
from aiohttp import web
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError
from slack_sdk.web.async_client import AsyncWebClient

from bridge import admin, messages, redis_client
from bridge.answer import Answering
from bridge.chat import ChatError, ChatRefusedError
from bridge.circuit_breaker import CircuitBreaker
from bridge.display import Means
from bridge.embedded_redis import EmbeddedRedis
from bridge.feedback import Voting
from bridge.inbox import TICKETS_OF_A_CHANNEL, Inbox, Kind
from bridge.kapa.client import KapaClient
from bridge.metrics import Metrics
from bridge.pauses import Pauses
from bridge.policy import Rules
from bridge.rate_limit import RateLimit
from bridge.settings import Role, Settings, Transport, should, trace_exporters
from bridge.slack import app as slack_app
from bridge.slack import http as slack_http
from bridge.slack.chat import SlackChat
from bridge.slack.read import Identity
from bridge.slack.socket import Socket, address
from bridge.slack.web_api import TIMEOUT as SLACK_TIMEOUT
from bridge.slack.web_api import identify, web_client
from bridge.store import Store
from bridge.streams import Streams
from bridge.watch import Watch
from bridge.work import Journey
from bridge.worker import Worker

# Requests reach Kapa a little after they were granted: the window is that much longer than Kapa's minute.
KAPA_WINDOW_SECONDS: Final = 61.0
# What Slack takes of a method in a minute (https://docs.slack.dev/apis/web-api/rate-limits), and a little less:
# chat.update is Tier 3, 50 and more; chat.startStream and chat.stopStream are Tier 2, 20 and more.
EDITS_PER_MINUTE: Final = 48
STREAMS_PER_MINUTE: Final = 18
# chat.appendStream is Tier 4, 100 and more; in short windows, so that all streams go on steadily.
APPENDS: Final = 8
APPENDS_SECONDS: Final = 5.0
# A thank-you for an emoji reads a thread, as looking for an answer does, which must not be limited for it.
THANKS_PER_MINUTE: Final = 25
# Changes of status lines leave Slack's room to the first status of each question.
STATUS_CHANGES_PER_MINUTE: Final = 40
VOTES_AT_ONCE: Final = 8
START_AGAIN_SECONDS: Final = 2.0
SLACK_CHECK_SECONDS: Final = 10.0
SLACK_PATIENCE_SECONDS: Final = 2.0

Sleep = Callable[[float], Awaitable[None]]
T = TypeVar("T")
log = structlog.get_logger()


class StartError(Exception):
    """The bridge cannot start; the text is a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What makes the parts that may tell traces; as it stands, none does."""

    metrics: Callable[[], Metrics] = Metrics
    inbox: Callable[..., Inbox] = Inbox
    journey: Callable[[Kind, Journey], Journey] = lambda kind, journey: journey


@dataclass(slots=True)
class Bridge:
    """A running bridge. `ports` has the port that each server (`admin`, `events`) listens on."""

    settings: Settings
    role: Role
    redis_url: str = field(repr=False)
    redis: Redis
    metrics: Metrics
    parts: Parts = field(default_factory=Parts)
    ports: dict[str, int] = field(default_factory=dict)
    is_started: bool = False
    is_draining: bool = False


def required(role: Role) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name the settings that a role requires, and those of which it requires one."""
    names = ["slack_bot_token"]
    if role is not Role.INGRESS:
        names += ["kapa_api_key", "kapa_project_id", "kapa_integration_id"]
    if role is not Role.ALL:
        names.append("redis_url")
    return tuple(names), () if role is Role.WORKER else ("slack_app_token", "slack_signing_secret")


async def run(
    settings: Settings, role: Role, stop: asyncio.Event, *, on_ready: Callable[[Bridge], None] = lambda bridge: None
) -> None:
    """Run the bridge until `stop` is set.

    Raises StartError, EmbeddedRedisError, SettingsError and messages.MessagesError when it cannot start.
    """
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(_parts(role))
        redis_url = await stack.enter_async_context(_redis_url(settings))
        redis = await stack.enter_async_context(_connected(redis_url))
        known = await _check_redis(redis)
        session = await stack.enter_async_context(_slack_session())
        client = web_client(secret(settings.slack_bot_token), settings.slack_api_url, session)
        bridge = Bridge(settings, role, redis_url, redis, parts.metrics(), parts)
        bridge.metrics.build(role)
        watch = Watch(redis, bridge.metrics, known=known)
        checks: dict[str, admin.Check] = {
            "redis": watch.is_fit,
            "slack": SlackCheck(client).passes,
            "started": lambda: _is(bridge.is_started),
            "not_draining": lambda: _is(not bridge.is_draining),
        }
        await _listen(stack, bridge, "admin", admin.routes(checks, bridge.metrics))
        await stack.enter_async_context(watch.watching())
        identity = await _until_slack_answers(lambda: identify(client), "SLACK_BOT_TOKEN", stop)
        if identity is None:
            return
        async with AsyncExitStack() as work:
            if role is not Role.INGRESS:
                await _start_workers(work, bridge, client, identity)
            if role is not Role.WORKER:
                await _start_ingress(work, bridge, client, identity, checks, stop)
            bridge.is_started = True
            log.info("bridge_ready", role=role, team=identity.team, **bridge.ports)
            on_ready(bridge)
            await stop.wait()
            bridge.is_draining = True
            log.info("bridge_stopping")
    log.info("bridge_stopped")


@asynccontextmanager
async def _parts(role: Role) -> AsyncIterator[Parts]:
    """Give what makes the parts that may tell traces; where traces are wanted, they are exported until the end."""
    exporters = trace_exporters()
    if not exporters:
        yield Parts()
        return
    let_opentelemetry_in()
    from bridge.traces import tracing  # noqa: PLC0415 - only who wants traces waits for it

    async with AsyncExitStack() as stack:
        try:
            traces = await stack.enter_async_context(tracing(exporters, role))
        except (ValueError, RuntimeError, ImportError) as error:
            raise StartError(f"OTEL_…: traces cannot be set up: {brief(error)}") from None
        yield Parts(traces.metrics, traces.inbox, traces.journey)


def let_opentelemetry_in() -> None:
    """Undo what `bridge` did when it was imported: from now on OpenTelemetry can be."""
    if sys.modules.get("opentelemetry", sys) is None:
        del sys.modules["opentelemetry"]


def secret(value: SecretStr | None) -> str:
    """Give a secret's text, empty when it is not set."""
    return value.get_secret_value() if value else ""


@asynccontextmanager
async def open_redis(settings: Settings, *, attach: bool = False) -> AsyncIterator[Redis]:
    """Give a client for `REDIS_URL`, or for the embedded Redis: its owner's, or with `attach` a guest's.

    Raises StartError for a `REDIS_URL` with options that mean nothing, EmbeddedRedisError.
    """
    async with _redis_url(settings, attach=attach) as url, _connected(url) as redis:
        yield redis


@asynccontextmanager
async def _redis_url(settings: Settings, *, attach: bool = False) -> AsyncIterator[str]:
    if settings.redis_url:
        yield secret(settings.redis_url)
        return
    embedded = EmbeddedRedis(settings.bridge_data_dir)
    async with embedded.attach() if attach else embedded.own() as url:
        yield url


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Redis]:
    try:
        redis = redis_client.connect(url)
    except ValueError as error:
        raise StartError(f"REDIS_URL: Redis cannot be used: {brief(error)}") from None
    try:
        yield redis
    finally:
        await redis.aclose()


async def _check_redis(redis: Redis) -> list[str]:
    """Refuse a Redis that will not do, and tell and give what is risky about one that will."""
    try:
        fatal, risky = await redis_client.shortcomings(redis)
    except RedisError as error:
        raise StartError(f"REDIS_URL: Redis cannot be used: {brief(error)}") from None
    if fatal:
        raise StartError("\n".join(fatal))
    for sentence in risky:
        log.warning("redis_at_risk", problem=sentence)
    return risky


def brief(error: Exception) -> str:
    """Give the first line of what an error says, which may be long, or its kind where it says nothing."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


@asynccontextmanager
async def _slack_session() -> AsyncIterator[aiohttp.ClientSession]:
    # How many calls run at once is the journeys' business.
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=SLACK_TIMEOUT, connector=connector) as session:
        yield session


async def _until_slack_answers(ask: Callable[[], Awaitable[T]], setting: str, stop: asyncio.Event) -> T | None:
    """Ask until Slack answers; None when `stop` came first. Raises StartError when Slack refuses."""
    asking = asyncio.create_task(_ask_slack(ask, setting))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([asking, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if asking.done():
        return asking.result()
    asking.cancel()
    return None


async def _ask_slack(ask: Callable[[], Awaitable[T]], setting: str, sleep: Sleep = asyncio.sleep) -> T:
    while True:
        try:
            return await ask()
        except ChatRefusedError as refused:
            expected = should(setting.lower())
            raise StartError(f"{setting}: Slack refuses it ({refused.reason}); it should be {expected}") from None
        except ChatError as error:
            log.warning("slack_not_reached", reason=error.reason, again_in=START_AGAIN_SECONDS)
            await sleep(START_AGAIN_SECONDS)


async def _listen(stack: AsyncExitStack, bridge: Bridge, name: str, server: web.Application) -> None:
    """Serve on the address that `BRIDGE_HOST` and `BRIDGE_PORT`, or their `ADMIN` fellows, give."""
    prefix = "bridge_admin_" if name == "admin" else "bridge_"
    host, port = getattr(bridge.settings, f"{prefix}host"), getattr(bridge.settings, f"{prefix}port")
    try:
        bridge.ports[name] = await stack.enter_async_context(admin.serving(server, host, port))
    except OSError as error:
        names = f"{prefix.upper()}HOST, {prefix.upper()}PORT"
        # What the loop says of an errno repeats the address; a host that is not known has none of the system's.
        why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise StartError(f"{names}: cannot listen on {host}:{port} ({why}); set another") from None
    log.info("listening", server=name, host=host, port=bridge.ports[name])


async def _start_workers(stack: AsyncExitStack, bridge: Bridge, client: AsyncWebClient, identity: Identity) -> None:
    settings, redis = bridge.settings, bridge.redis
    sentences = messages.load(settings.bridge_messages)
    store = Store(redis, ttl_seconds=settings.thread_ttl_seconds)
    kapa = await stack.enter_async_context(kapa_client(settings, bridge.metrics))
    limit = settings.kapa_requests_per_minute
    chat = SlackChat(
        client, identity, pauses=Pauses(redis, identity.team), says=sentences, observe=bridge.metrics.slack_call
    )
    answering = Answering(
        kapa=kapa,
        means=_means(settings, redis, chat, store, identity.team),
        breaker=CircuitBreaker(redis, "chat"),
        budget=RateLimit(redis, "kapa", limit=limit, window_seconds=KAPA_WINDOW_SECONDS) if limit else None,
        statuses=RateLimit(redis, f"statuses:{identity.team}", limit=STATUS_CHANGES_PER_MINUTE),
        messages=sentences,
        observer=bridge.metrics,
        is_streaming=settings.bridge_streaming != "off",
    )
    voting = Voting(
        kapa=kapa,
        breaker=CircuitBreaker(redis, "feedback"),
        store=store,
        chat=chat,
        messages=sentences,
        thanks=RateLimit(redis, f"thanks:{identity.team}", limit=THANKS_PER_MINUTE),
        reactions=settings.reactions,
    )
    stack.push_async_callback(answering.close)
    stack.push_async_callback(voting.close)
    journeys: list[tuple[Kind, Journey, int]] = [
        (Kind.QUESTION, answering, settings.bridge_worker_concurrency),
        (Kind.VOTE, voting, VOTES_AT_ONCE),
    ]
    await stack.enter_async_context(_working(await _workers(bridge, journeys)))


async def _workers(bridge: Bridge, journeys: Sequence[tuple[Kind, Journey, int]]) -> list[Worker]:
    """Make a worker for each journey, with so many slots, at an inbox that is open."""
    settings, workers = bridge.settings, []
    name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    for kind, journey, concurrency in journeys:
        inbox = Inbox(
            bridge.redis,
            kind,
            worker=name,
            lease_seconds=settings.bridge_lease_seconds,
            tickets_of_a_channel=tickets_of_a_channel(concurrency),
        )
        # Before this process hears a question: what was put before counts as tried, and is looked for in Slack.
        with suppress(RedisError):  # the worker tries again, and tells of it
            await inbox.open()
        worker = Worker(
            inbox,
            bridge.parts.journey(kind, journey),
            concurrency=concurrency,
            drain_seconds=settings.bridge_drain_seconds,
            on_settled=bridge.metrics.work,
        )
        bridge.metrics.running(kind, worker.running)
        workers.append(worker)
    return workers


def _means(settings: Settings, redis: Redis, chat: SlackChat, store: Store, team: str) -> Means:
    is_native = settings.bridge_streaming in {"auto", "native"}
    # Who asks for streams and nothing else wants to see that they are refused.
    streams = Streams(redis, limit=STREAMS_PER_MINUTE, remembers=settings.bridge_streaming == "auto")
    return Means(
        chat=chat,
        store=store,
        edits=RateLimit(redis, f"edits:{team}", limit=EDITS_PER_MINUTE),
        appends=RateLimit(redis, f"appends:{team}", limit=APPENDS, window_seconds=APPENDS_SECONDS),
        streams=streams if is_native else None,
    )


def tickets_of_a_channel(concurrency: int) -> int:
    """Say how many of a channel's conversations are handed out at once: at most half of a worker's slots."""
    return max(1, min(TICKETS_OF_A_CHANNEL, concurrency // 2))


@asynccontextmanager
async def _working(workers: Sequence[Worker]) -> AsyncIterator[None]:
    """Let the workers work until the end of the block, and drain together; one that fails ends the bridge."""
    stop = asyncio.Event()
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run(stop))
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised below: the group would cancel the workers and wrap it
            failure = error
        finally:
            stop.set()
    if failure is not None:
        raise failure


def kapa_client(settings: Settings, metrics: Metrics) -> KapaClient:
    """Make the client for the Kapa that the settings name; they must be complete."""
    return KapaClient(
        api_url=settings.kapa_api_url,
        api_key=secret(settings.kapa_api_key),
        project_id=settings.kapa_project_id or "",
        integration_id=settings.kapa_integration_id or "",
        observe=metrics.kapa_call,
    )


async def _start_ingress(
    stack: AsyncExitStack,
    bridge: Bridge,
    client: AsyncWebClient,
    identity: Identity,
    checks: dict[str, admin.Check],
    stop: asyncio.Event,
) -> None:
    settings = bridge.settings
    # Connections of its own: an acknowledgement must not wait behind answers for one.
    redis = await stack.enter_async_context(_connected(bridge.redis_url))
    ask_why = slack_app.AskWhy(client, messages.load(settings.bridge_messages), bridge.metrics.slack_call)
    stack.push_async_callback(ask_why.close)
    intake = slack_app.Intake(
        questions=bridge.parts.inbox(
            redis, Kind.QUESTION, tickets_of_a_channel=tickets_of_a_channel(settings.bridge_worker_concurrency)
        ),
        votes=bridge.parts.inbox(redis, Kind.VOTE, tickets_of_a_channel=tickets_of_a_channel(VOTES_AT_ONCE)),
        store=Store(redis, ttl_seconds=settings.thread_ttl_seconds),
        identity=identity,
        rules=Rules(settings.bridge_answer == "mention", frozenset(settings.bridge_channels)),
        reactions=settings.reactions,
        ask_why=ask_why,
        on_event=bridge.metrics.event,
        on_taken_in=bridge.metrics.intake,
    )
    bolt = slack_app.build(intake, AsyncWebClient(base_url=settings.slack_api_url), secret(settings.slack_bot_token))
    if settings.transport is Transport.HTTP:
        await _listen(stack, bridge, "events", slack_http.routes(bolt, secret(settings.slack_signing_secret)))
        return
    app_token = secret(settings.slack_app_token)
    await _until_slack_answers(lambda: address(client, app_token), "SLACK_APP_TOKEN", stop)
    connection = Socket(bolt, client, app_token)
    checks["slack"] = connection.is_connected
    await stack.enter_async_context(connection.listening())


class SlackCheck:
    """Says whether Slack's Web API can be reached; asks it at most every SLACK_CHECK_SECONDS."""

    def __init__(self, client: AsyncWebClient, clock: Callable[[], float] = monotonic) -> None:
        self._client = client
        self._clock = clock
        self._ask_at = clock()
        self._is_reachable = False

    async def passes(self) -> bool:
        """Give what Slack's last answer, or the lack of it, says."""
        if self._clock() >= self._ask_at:
            self._ask_at = self._clock() + SLACK_CHECK_SECONDS
            try:
                async with asyncio.timeout(SLACK_PATIENCE_SECONDS):
                    await identify(self._client)
                self._is_reachable = True
            except (ChatError, TimeoutError):
                self._is_reachable = False
        return self._is_reachable


async def _is(value: bool) -> bool:
    return value
