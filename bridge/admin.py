"""The admin server: is the bridge alive, is it ready, what did it count, on a port of its own.

What the bridge looks after in Redis, so that it can be told here, is in `Watch`.

GET /healthz    200 while the process serves
GET /readyz     200 when every check passes, else 503; JSON, one entry a check
GET /metrics    Prometheus
GET /           the same for a person
"""

import asyncio
import html
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge import __version__
from bridge.dead_letters import DeadLetters
from bridge.inbox import Inbox, Kind
from bridge.metrics import Metrics
from bridge.redis_client import reason, refusal, shortcomings
from bridge.work import end

LOOK_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 2.0
_AWAY: Final = "away"

Check = Callable[[], Awaitable[bool]]
Sleep = Callable[[float], Awaitable[None]]
log = structlog.get_logger()

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="refresh" content="5">
<meta name="viewport" content="width=device-width">
<title>bridge: {state}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 44rem; padding: 0 1rem }}
:root {{ color-scheme: light dark }}
td, th {{ padding: .2rem 1rem .2rem 0; text-align: left }}
td + td {{ font-variant-numeric: tabular-nums; text-align: right }}
</style>
<h1>bridge {version}: {state}</h1>
<table>{checks}</table>
<h2>Counted since the start</h2>
<table>{counts}</table>
<p><a href="metrics">All metrics</a></p>
</html>
"""


def routes(checks: Mapping[str, Check], metrics: Metrics) -> web.Application:
    """Build the admin server; `checks` say by name what being ready takes."""

    async def results() -> dict[str, bool]:
        return {name: await check() for name, check in checks.items()}

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        found = await results()
        return web.json_response(found, status=200 if all(found.values()) else 503)

    async def numbers(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=_page(await results(), metrics), content_type="text/html")

    server = web.Application(middlewares=[_without_body])
    server.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", numbers),
            web.get("/", page),
        ]
    )
    return server


@web.middleware
async def _without_body(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a body: nothing here reads one."""
    if not request.can_read_body:
        return await handler(request)
    refusal = web.Response(status=413, text="no page here takes a body\n")
    refusal.force_close()
    return refusal


class Watch:
    """Looks from time to time whether Redis takes writes and how much waits in it; logs when the former changes."""

    def __init__(
        self, redis: Redis, metrics: Metrics, *, known: Iterable[str] = (), sleep: Sleep = asyncio.sleep
    ) -> None:
        """`known` are the shortcomings that were told already."""
        self._redis = redis
        self._inboxes = [Inbox(redis, kind) for kind in Kind]
        self._metrics = metrics
        self._sleep = sleep
        self._trouble = ""
        self._shortcomings = set(known)
        self._is_fit = True

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look every LOOK_SECONDS until the end of the block; nobody needs to ask."""
        task = asyncio.create_task(self._look_on())
        try:
            yield
        finally:
            await end(task)

    async def is_fit(self) -> bool:
        """Say whether Redis takes writes now, and was found fit to keep questions when it was last looked at."""
        return await self.takes_writes() and self._is_fit

    async def takes_writes(self) -> bool:
        """Write once, and say whether Redis took it within PATIENCE_SECONDS."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                trouble = await refusal(self._redis)
        except (RedisError, TimeoutError, OSError):
            trouble = _AWAY
        if trouble != self._trouble:
            self._trouble = trouble
            _tell(trouble)
        self._metrics.redis(takes_writes=not trouble)
        return not trouble

    async def _look_on(self) -> None:
        while True:
            if await self.takes_writes():
                await self.examine()
                await self._measure()
            await self._sleep(LOOK_SECONDS)

    async def examine(self) -> None:
        """Tell what became of Redis' configuration, which may change under a running bridge, or by a failover."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                fatal, risky = await shortcomings(self._redis)
        except (RedisError, TimeoutError, OSError) as error:
            log.debug("redis_not_examined", reason=reason(error))
            return
        for problem in fatal + risky:
            if problem not in self._shortcomings:
                (log.error if problem in fatal else log.warning)("redis_at_risk", problem=problem)
        self._shortcomings, self._is_fit = {*fatal, *risky}, not fatal

    async def _measure(self) -> None:
        """Note how much waits, and drop the dead letters that are too old.

        Whoever asks for the metrics gets what was noted last, and never waits for Redis.
        """
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                for inbox in self._inboxes:
                    self._metrics.backlog(inbox.kind, await inbox.backlog())
                self._metrics.dead_letters(await DeadLetters(self._redis).trim())
        except (RedisError, TimeoutError, OSError) as error:
            log.warning("backlog_not_measured", error=type(error).__name__)


def _tell(trouble: str) -> None:
    if not trouble:
        log.info("redis_takes_writes_again")
    elif trouble == _AWAY:
        log.error("redis_not_reached")
    else:
        log.error("redis_refuses_writes", reason=trouble)


def _page(checks: Mapping[str, bool], metrics: Metrics) -> str:
    counted = [
        (f"{family.name} {' '.join(sample.labels.values())}", sample.value)
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name.endswith(("_total", "_count")) and sample.value
    ]
    return _PAGE.format(
        version=__version__,
        state="ready" if all(checks.values()) else "not ready",
        checks=_rows((name, "yes" if passes else "no") for name, passes in checks.items()),
        counts=_rows((name, f"{value:g}") for name, value in counted) or "<tr><td>Nothing yet.</td></tr>",
    )


def _rows(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in pairs)


@asynccontextmanager
async def serving(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve an application until the end of the block; yields the port, which is another than 0.

    Raises OSError when the address cannot be listened on.
    """
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
