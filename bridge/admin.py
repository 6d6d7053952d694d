"""The admin server: is the bridge alive, is it ready, what did it count, on a port of its own.

GET /healthz        200 while the process serves
GET /readyz         200 when every check passes, else 503; JSON, one entry a check; `?without=slack` leaves checks out
GET /metrics        Prometheus
GET /               the status page, for a person; its parts are below /page/
GET /status.json    what the page shows; `?minutes=10` in steps of ten seconds, `?minutes=60` in steps of a minute
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from bridge.history import History
from bridge.metrics import Metrics
from bridge.status_page import status

_FILES: Final = Path(__file__).parent / "admin_page"
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Check = Callable[[], Awaitable[bool]]


def routes(
    checks: Mapping[str, Check],
    metrics: Metrics,
    *,
    history: History | None = None,
    clock: Callable[[], float] = time,
) -> web.Application:
    """Build the admin server; `checks` say by name what being ready takes, `clock` the seconds since the epoch.

    It samples `history`, by default one of its own of `metrics`, for as long as it is served.
    """
    kept = history or History(metrics.registry)

    async def results(without: Collection[str] = ()) -> dict[str, bool]:
        return {name: await check() for name, check in checks.items() if name not in without}

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        found = await results(request.query.getall("without", []))
        return web.json_response(found, status=200 if all(found.values()) else 503)

    async def numbers(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def shown(request: web.Request) -> web.Response:
        steps = {"10": kept.recent, "60": kept.hour}.get(request.query.get("minutes", "60"))
        if steps is None:
            raise web.HTTPBadRequest(text="minutes: it should be 10 or 60\n", headers=_HEADERS)
        return web.json_response(status(kept, await results(), list(steps), at=clock()), headers=_HEADERS)

    async def sampling(_: web.Application) -> AsyncIterator[None]:
        async with kept.sampling():
            yield

    server = web.Application(middlewares=[_without_body])
    server.cleanup_ctx.append(sampling)
    server.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", numbers),
            web.get("/status.json", shown),
            *_page(),
        ]
    )
    return server


def _page() -> list[web.RouteDef]:
    """Give a route for each of the page's files, which are read here, once."""
    return [
        web.get("/" if path.name == "index.html" else f"/page/{path.name}", _static(path.read_bytes(), path.suffix))
        for path in _FILES.iterdir()
        if path.suffix in _TYPES
    ]


def _static(body: bytes, suffix: str) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type=_TYPES[suffix], charset="utf-8", headers=_HEADERS)

    return handler


@web.middleware
async def _without_body(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a body: nothing here reads one."""
    if not request.can_read_body:
        return await handler(request)
    refusal = web.Response(status=413, text="no page here takes a body\n")
    refusal.force_close()
    return refusal


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
