"""The admin server: is the bridge alive, is it ready, what did it count, on a port of its own.

GET /healthz    200 while the process serves
GET /readyz     200 when every check passes, else 503; JSON, one entry a check
GET /metrics    Prometheus
GET /           the same for a person
"""

import html
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.asyncio import Redis

from bridge import __version__
from bridge.dead_letters import DeadLetters
from bridge.inbox import TAG, Kind
from bridge.metrics import Metrics

Check = Callable[[], Awaitable[bool]]

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


async def measure(redis: Redis, metrics: Metrics) -> None:
    """Note how much waits in Redis, and drop the dead letters that are too old; raises redis.RedisError.

    Whoever asks for the metrics gets what was noted last, and never waits for Redis.
    """
    async with redis.pipeline(transaction=False) as pipe:
        for kind in Kind:
            pipe.xlen(f"{TAG}:{kind}:ready")
            pipe.zcard(f"{TAG}:{kind}:later")
        counts = await pipe.execute()
    waiting, later = dict(zip(Kind, counts[::2], strict=True)), dict(zip(Kind, counts[1::2], strict=True))
    metrics.backlog(waiting, later, await DeadLetters(redis).trim())


def _page(checks: Mapping[str, bool], metrics: Metrics) -> str:
    counted = [
        (f"{family.name} {' '.join(sample.labels.values())}", sample.value)
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name.endswith(("_total", "_count"))
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
