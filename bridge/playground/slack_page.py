"""The playground's page over HTTP, on a port of its own: a chat client for the simulated Slack, and more.

Serves the files of `page/`, the workspace's state, its changes as Server-Sent Events, the weather, and what happened
under the bonnet; what people do goes to `page_actions`. Slack's Web API is not reachable from here, and other web sites
cannot act here.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path

import structlog
from aiohttp import web

from bridge.playground.page_actions import PageActions, typed
from bridge.playground.serving import Json, served
from bridge.playground.slack import SimulatedSlack
from bridge.playground.slack_rules import SlackError
from bridge.playground.slack_workspace import Channel, Workspace
from bridge.playground.weather import UnknownWeatherError, Weather

__all__ = ["Page", "typed"]

log = structlog.get_logger()

_FILES = Path(__file__).parent / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_MESSAGES_SHOWN = 500
_EPHEMERALS_SHOWN = 100

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Look = Callable[[str, str], Awaitable[Json]]


class Page:
    """A web page for one simulated Slack.

    `weather` is what can be made to go wrong there, `look(channel, thread)` gives what happened about a thread.
    """

    def __init__(
        self,
        slack: SimulatedSlack,
        *,
        weather: Weather | None = None,
        look: Look | None = None,
        is_kapa_real: bool = False,
    ) -> None:
        self.url = ""
        self.look = look
        self._slack = slack
        self._weather = weather or Weather(slack)
        self._actions = PageActions(slack)
        self._kapa = "real" if is_kapa_real else "simulated"

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator["Page"]:
        """Serve the page until the block ends; raises OSError where the port is taken."""
        app = web.Application(middlewares=[self._guard])
        for path in _FILES.iterdir():
            if path.suffix in _TYPES:
                app.router.add_get("/" if path.name == "index.html" else f"/{path.name}", _static(path))
        app.router.add_get("/state", self._state)
        app.router.add_get("/changes", self._changes)
        app.router.add_get("/bonnet", _refusing(self._bonnet))
        app.router.add_post("/weather", _refusing(self._turn))
        for name in self._actions.names:
            app.router.add_post(f"/{name}", _refusing(self._act))
        async with served(app, host, port) as self.url:
            yield self

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if (problem := self._cross_site(request)) is not None:
            return web.json_response({"error": problem}, status=403, headers=_HEADERS)
        response = await handler(request)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    def _cross_site(self, request: web.Request) -> str | None:
        """Say what makes a request one that another web site has caused, if anything does."""
        address = self.url.removeprefix("http://")
        own = {address, f"localhost:{address.rpartition(':')[2]}"}
        if request.host not in own:
            return "unknown host"
        origin = request.headers.get("Origin")
        if origin is not None and origin not in {f"http://{host}" for host in own}:
            return "another origin"
        # Another site's form can POST, but not JSON.
        if request.method == "POST" and request.content_type != "application/json":
            return "not JSON"
        return None

    async def _state(self, _: web.Request) -> web.StreamResponse:
        workspace = self._slack.workspace
        people = [
            {"id": person.id, "name": person.name, "real_name": person.real_name, "is_bot": bool(person.bot_id)}
            for person in workspace.people.values()
        ]
        views = {person.id: found for person in workspace.people.values() if (found := self._slack.views(person.id))}
        state = {
            "people": people,
            "bot": workspace.bot.id,
            "channels": [_described(channel, workspace) for channel in workspace.channels.values()],
            "views": views,
            "feedback_selected": self._slack.feedback_selected(),
            "weather": self._weather.report(),
            "kapa": self._kapa,
        }
        return web.json_response(state)

    async def _changes(self, request: web.Request) -> web.StreamResponse:
        """Send changes as they happen, https://html.spec.whatwg.org/multipage/server-sent-events.html ."""
        changes = self._slack.subscribe_changes()
        response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": hello\n\n")
        try:
            async for change in changes:
                await response.write(f"data: {json.dumps(change)}\n\n".encode())
        except ConnectionError:
            log.debug("page_gone")
        return response

    async def _act(self, request: web.Request) -> Json:
        return await self._actions.act(request.path[1:], await _body(request))

    async def _turn(self, request: web.Request) -> Json:
        body = await _body(request)
        if not isinstance(body.get("on"), bool):
            raise SlackError("invalid_arguments")
        try:
            self._weather.turn(str(body.get("name")), on=body["on"])
        except UnknownWeatherError:
            raise SlackError("unknown weather") from None
        return {"weather": self._weather.report()}

    async def _bonnet(self, request: web.Request) -> Json:
        channel, thread = request.query.get("channel", ""), request.query.get("thread", "")
        if self.look is None or not channel or not thread:
            raise SlackError("invalid_arguments")
        return await self.look(channel, thread)


def _static(path: Path) -> Handler:
    def read() -> web.Response:
        return web.Response(text=path.read_text("utf-8"), content_type=_TYPES[path.suffix])

    async def handler(_: web.Request) -> web.StreamResponse:
        return read()

    return handler


def _refusing(answer: Callable[[web.Request], Awaitable[Json]]) -> Handler:
    """Answer in JSON, and say in it what is wrong with a request."""

    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            return web.json_response(await answer(request))
        except ValueError:
            return web.json_response({"error": "not JSON"}, status=400)
        except SlackError as refusal:
            return web.json_response({"error": refusal.code}, status=400)

    return handler


async def _body(request: web.Request) -> Json:
    body = await request.json()
    if not isinstance(body, dict):
        raise SlackError("invalid_arguments")
    return body


def _described(channel: Channel, workspace: Workspace) -> Json:
    messages = list(channel.messages.values())[-_MESSAGES_SHOWN:]
    statuses = {thread: workspace.status(channel, thread) for thread in channel.statuses}
    return {
        "id": channel.id,
        "name": channel.name,
        "type": channel.type,
        "members": sorted(channel.members),
        "has_bot": workspace.bot.id in channel.members,
        "is_shared": channel.is_shared,
        "messages": deepcopy(messages),
        "ephemerals": deepcopy(list(channel.ephemerals)[-_EPHEMERALS_SHOWN:]),
        "statuses": statuses,
    }
