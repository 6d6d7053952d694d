"""The playground's page: a small chat client for the simulated Slack, on a port of its own.

Serves static files from `page/`, the workspace's state, its changes as Server-Sent Events, and what a person
does. Slack's Web API is not reachable from here, and other web sites cannot act here.
"""

import html
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path

import structlog
from aiohttp import web

from bridge.playground.serving import Json, served
from bridge.playground.slack import SimulatedSlack
from bridge.playground.slack_methods import is_emoji_name
from bridge.playground.slack_rules import SlackError
from bridge.playground.slack_workspace import Channel, Workspace

log = structlog.get_logger()

_FILES = Path(__file__).parent / "page"
_STATIC = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/text.js": ("text.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_MESSAGES_SHOWN = 500
_TYPED = re.compile(r"(?P<url>https?://[^\s<>|]*[^\s<>|.,;:!?)])|(?<!\w)@(?P<name>[\w-]+)|[&<>]")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def typed(text: str, ids: Mapping[str, str]) -> str:
    """Give what Slack makes of a text as it was typed: escaped, links marked, `@name` turned into a mention."""

    def mark(match: re.Match[str]) -> str:
        if match["url"]:
            return f"<{html.escape(match['url'], quote=False)}>"
        user = ids.get((match["name"] or "").lower())
        return f"<@{user}>" if user else html.escape(match[0], quote=False)

    return _TYPED.sub(mark, text)


class Page:
    """A web page for one simulated Slack."""

    def __init__(self, slack: SimulatedSlack) -> None:
        self.url = ""
        self._slack = slack
        self._actions: dict[str, Callable[[str, Channel, Json], Awaitable[Json]]] = {
            "say": self._say,
            "react": self._react,
            "unreact": self._unreact,
            "edit": self._edit,
            "delete": self._delete,
        }

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator["Page"]:
        """Serve the page until the block ends; raises OSError where the port is taken."""
        app = web.Application(middlewares=[self._guard])
        for path in _STATIC:
            app.router.add_get(path, self._static)
        app.router.add_get("/state", self._state)
        app.router.add_get("/changes", self._changes)
        for name in self._actions:
            app.router.add_post(f"/{name}", self._act)
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

    async def _static(self, request: web.Request) -> web.StreamResponse:
        name, content_type = _STATIC[request.path]
        return web.Response(text=(_FILES / name).read_text("utf-8"), content_type=content_type)

    async def _state(self, _: web.Request) -> web.StreamResponse:
        workspace = self._slack.workspace
        people = [
            {"id": person.id, "name": person.name, "real_name": person.real_name, "is_bot": bool(person.bot_id)}
            for person in workspace.people.values()
        ]
        channels = [_described(channel, workspace) for channel in workspace.channels.values()]
        return web.json_response({"people": people, "bot": workspace.bot.id, "channels": channels})

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

    async def _act(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
            if not isinstance(body, dict):
                raise SlackError("invalid_arguments")
            user, channel = self._actor(body)
            return web.json_response(await self._actions[request.path[1:]](user, channel, body))
        except ValueError:
            return web.json_response({"error": "not JSON"}, status=400)
        except SlackError as refusal:
            return web.json_response({"error": refusal.code}, status=400)

    def _actor(self, body: Json) -> tuple[str, Channel]:
        workspace = self._slack.workspace
        person = workspace.people.get(str(body.get("user")))
        if person is None or person.bot_id:
            raise SlackError("user_not_found")
        channel = workspace.channel(body.get("channel"))
        if person.id not in channel.members:
            raise SlackError("channel_not_found")
        return person.id, channel

    async def _say(self, user: str, channel: Channel, body: Json) -> Json:
        thread = body.get("thread") or None
        if thread is not None:
            self._slack.workspace.message(channel, thread)
        return {"ts": await self._slack.say(user, channel.id, self._typed(body), thread=thread)}

    async def _react(self, user: str, channel: Channel, body: Json) -> Json:
        await self._slack.react(user, channel.id, _text(body, "ts"), _emoji(body))
        return {}

    async def _unreact(self, user: str, channel: Channel, body: Json) -> Json:
        await self._slack.unreact(user, channel.id, _text(body, "ts"), _emoji(body))
        return {}

    async def _edit(self, user: str, channel: Channel, body: Json) -> Json:
        await self._slack.edit(user, channel.id, _text(body, "ts"), self._typed(body))
        return {}

    async def _delete(self, user: str, channel: Channel, body: Json) -> Json:
        await self._slack.delete(user, channel.id, _text(body, "ts"))
        return {}

    def _typed(self, body: Json) -> str:
        ids = {person.name: person.id for person in self._slack.workspace.people.values()}
        return typed(_text(body, "text"), ids)


def _described(channel: Channel, workspace: Workspace) -> Json:
    messages = list(channel.messages.values())[-_MESSAGES_SHOWN:]
    statuses = {thread: workspace.status(channel, thread) for thread in channel.statuses}
    return {
        "id": channel.id,
        "name": channel.name,
        "type": channel.type,
        "members": sorted(channel.members),
        "has_bot": workspace.bot.id in channel.members,
        "messages": deepcopy(messages),
        "statuses": statuses,
    }


def _text(body: Json, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise SlackError("no_text" if name == "text" else "invalid_arguments")
    return value


def _emoji(body: Json) -> str:
    name = _text(body, "emoji")
    if not is_emoji_name(name):
        raise SlackError("invalid_name")
    return name
