"""The simulated Slack: one workspace, its Web API, its events, and the people in it as methods.

This is the handle that tests and the playground hold. The parts are `slack_workspace` (what happens),
`slack_api` and `slack_methods` (the Web API), `slack_delivery` and `slack_socket` (events to the app).
"""

import asyncio
import time
import uuid
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any, TypeVar

from aiohttp import web

from bridge.playground import slack_events
from bridge.playground.serving import Changes, Fault, Json, served
from bridge.playground.slack_api import Call, Tokens, WebApi
from bridge.playground.slack_delivery import Courier, Delivery, Way
from bridge.playground.slack_limits import RateLimiter, SlackLimits
from bridge.playground.slack_methods import Methods
from bridge.playground.slack_socket import Sockets
from bridge.playground.slack_workspace import Channel, Person, Workspace

__all__ = ["Call", "Delivery", "SimulatedSlack", "SlackLimits"]

T = TypeVar("T")
BOT = Person("U0BRIDGE", "bridge", "Bridge", bot_id="B0BRIDGE")
PEOPLE = (
    Person("U0ADA", "ada", "Ada Lovelace"),
    Person("U0GRACE", "grace", "Grace Hopper"),
    Person("U0ALAN", "alan", "Alan Turing"),
)
OTHER_BOT = Person("U0BUILDS", "builds", "Build Bot", bot_id="B0BUILDS")
GENERAL, HELP, PRIVATE, ELSEWHERE = "C0GENERAL", "C0HELP", "C0PRIVATE", "C0ELSEWHERE"
"""Channel ids: two public channels, a private one, and a public one that the bridge is not in."""
APP_ID = "A0BRIDGE"
_ENVELOPES_KEPT = 1_000


def _channels() -> list[Channel]:
    everyone = {person.id for person in (*PEOPLE, OTHER_BOT)}
    rooms = [
        Channel(GENERAL, "general", "channel", everyone | {BOT.id}),
        Channel(HELP, "help", "channel", everyone | {BOT.id}),
        Channel(PRIVATE, "secret-plans", "group", everyone | {BOT.id}),
        Channel(ELSEWHERE, "elsewhere", "channel", set(everyone)),
    ]
    return rooms + [Channel(f"D{p.id[1:]}", p.name, "im", {p.id, BOT.id}) for p in PEOPLE]


class SimulatedSlack:
    """A Slack workspace with the bridge installed. Serve it, `subscribe` the bridge to it, and act as its people.

    `limits=None` switches rate limits off. `clock` gives Unix seconds; `sleep` waits between redeliveries.
    Events travel over sockets until a request URL is subscribed, or as `delivery` is set: `http` or `socket`.
    """

    def __init__(
        self,
        *,
        team_id: str = "T0PLAY",
        team_domain: str = "playground",
        bot_token: str = "xoxb-playground",  # noqa: S107 a simulated token
        app_token: str = "xapp-playground",  # noqa: S107 a simulated token
        signing_secret: str = "playground-signing-secret",  # noqa: S107 a simulated secret
        limits: SlackLimits | None = SlackLimits(),  # noqa: B008 immutable
        ack_seconds: float = 3.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.team_id, self.bot_token, self.app_token = team_id, bot_token, app_token
        self.signing_secret = signing_secret
        self.base_url = ""
        self._clock = clock
        self._changes = Changes()
        self._sockets = Sockets(app_id=APP_ID, changes=self._changes, clock=clock)
        self._courier = Courier(
            signing_secret=signing_secret,
            sockets=self._sockets,
            changes=self._changes,
            clock=clock,
            sleep=sleep,
            ack_seconds=ack_seconds,
        )
        self.workspace = Workspace(
            team=team_id,
            bot=BOT,
            people=(*PEOPLE, OTHER_BOT),
            channels=_channels(),
            clock=clock,
            emit=self.deliver,
            publish=self._changes.publish,
        )
        url = f"https://{team_domain}.slack.com/"
        methods = Methods(self.workspace, workspace_url=url, open_socket=self._socket_url)
        self._api = WebApi(
            methods=methods.table(),
            tokens=Tokens(bot=bot_token, app=app_token),
            limiter=RateLimiter(limits, clock),
            changes=self._changes,
            clock=clock,
        )
        self._envelopes: OrderedDict[str, Json] = OrderedDict()

    # Serving

    @property
    def api_url(self) -> str:
        """The base of the Web API, as `SLACK_API_URL` wants it."""
        return f"{self.base_url}/api/"

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator["SimulatedSlack"]:
        """Serve the Web API and Socket Mode until the block ends; raises OSError where the port is taken."""
        app = web.Application(client_max_size=4 * 1024 * 1024)
        app.router.add_route("*", "/api/{method}", self._api.handle)
        app.router.add_get("/link", self._sockets.handle)
        await self._courier.open()
        try:
            async with served(app, host, port) as self.base_url:
                try:
                    yield self
                finally:
                    await self._sockets.close()
        finally:
            await self._courier.close()

    def _socket_url(self) -> str:
        return f"ws{self.base_url.removeprefix('http')}/link?ticket={self._sockets.issue_ticket()}"

    # The app's side

    def subscribe(self, *urls: str) -> None:
        """Name the app's request URL for events and interactivity; several take turns, none unsubscribes."""
        self._courier.send_to(*urls)

    @property
    def delivery(self) -> Way:
        """How events travel."""
        return self._courier.way

    @delivery.setter
    def delivery(self, way: Way) -> None:
        self._courier.chosen_way = way

    @property
    def sockets(self) -> int:
        """How many Socket Mode connections are open."""
        return self._sockets.count

    async def send_disconnect(self, reason: str = "refresh_requested") -> None:
        """Ask every socket to reconnect."""
        await self._sockets.disconnect(reason)

    def drop_sockets(self) -> None:
        """Break every socket without a word."""
        self._sockets.drop()

    def refuse_upgrades(self, times: int) -> None:
        """Answer the next WebSocket upgrades with 503; their tickets are used up."""
        self._sockets.refuse(times)

    def silence(self) -> None:
        """Let every open socket go dead without closing it."""
        self._sockets.silence()

    def fault(self, method: str, action: str, times: int = 1, *, retry_after: str | None = "1") -> None:
        """Let the next `times` calls of `method` go wrong.

        `action`: `429` (with `retry_after` as its header, None for none), `500`, `502`, `garbage`, `hang` or
        `hang_after` (no answer ever comes, before or after acting), `drop_before` or `drop_after` (the connection is
        closed without an answer, before or after acting), or one of Slack's error codes.
        """
        self._api.faults.add(method, Fault(action, retry_after), times)

    def clear_faults(self) -> None:
        """Forget all faults that were not shown yet."""
        self._api.faults.clear()

    @property
    def scopes(self) -> set[str]:
        """The bot token's scopes; change them at will."""
        return self._api.scopes

    # People

    async def say(
        self,
        user: str,
        channel: str,
        text: str,
        *,
        thread: str | None = None,
        mention: bool = False,
        subtype: str | None = None,
        client_msg_id: str | None = None,
    ) -> str:
        """Post a message as a person; gives its ts at once, its events are on their way.

        `text` is Slack's own form (escaped, `<@U…>`); `mention` puts the bridge's mention before it.
        """
        text = f"<@{BOT.id}> {text}".rstrip() if mention else text
        content: Json = {"text": text, "blocks": slack_events.rich_text(text)}
        if client_msg_id:
            content["client_msg_id"] = client_msg_id
        if subtype:
            content["subtype"] = subtype
        if subtype == "file_share":
            content |= {"files": [{"id": "F0FILE", "name": "notes.txt", "mimetype": "text/plain"}], "upload": True}
        return str(self.workspace.post(user, self.workspace.channel(channel), content, thread)["ts"])

    async def react(self, user: str, channel: str, ts: str, emoji: str) -> None:
        """Put an emoji on a message as a person."""
        self.workspace.react(user, self.workspace.channel(channel), ts, emoji)

    async def unreact(self, user: str, channel: str, ts: str, emoji: str) -> None:
        """Take an emoji away again as a person."""
        self.workspace.unreact(user, self.workspace.channel(channel), ts, emoji)

    async def edit(self, user: str, channel: str, ts: str, text: str) -> None:
        """Edit one's own message."""
        content: Json = {"text": text, "blocks": slack_events.rich_text(text)}
        self.workspace.edit(user, self.workspace.channel(channel), ts, content)

    async def delete(self, user: str, channel: str, ts: str) -> None:
        """Delete one's own message."""
        self.workspace.delete(user, self.workspace.channel(channel), ts)

    def join(self, channel: str) -> None:
        """Invite the bridge to a channel."""
        self.workspace.channel(channel).members.add(BOT.id)

    def leave(self, channel: str) -> None:
        """Remove the bridge from a channel."""
        self.workspace.channel(channel).members.discard(BOT.id)

    def dm(self, user: str) -> str:
        """Give the id of a person's direct messages with the bridge."""
        return self.workspace.channel(user).id

    # Deliveries

    def deliver(self, event: Json, **envelope_overrides: Any) -> str:
        """Send any inner event; gives its event_id. `envelope_overrides` replace fields of the envelope."""
        event_id = str(envelope_overrides.pop("event_id", "") or f"Ev{uuid.uuid4().hex[:10].upper()}")
        body = slack_events.envelope(
            event,
            team=self.team_id,
            app=APP_ID,
            bot_user=BOT.id,
            event_id=event_id,
            time=int(self._clock()),
            **envelope_overrides,
        )
        self._envelopes[event_id] = body
        if len(self._envelopes) > _ENVELOPES_KEPT:
            self._envelopes.popitem(last=False)
        self._courier.deliver(body)
        return event_id

    def redeliver(self, event_id: str) -> None:
        """Send an event again as it was: Slack delivers at least once. Raises KeyError for an unknown one."""
        self._courier.deliver(self._envelopes[event_id])

    async def interact(self, payload: Json) -> Delivery:
        """Send an interactive payload (a click, a submitted modal) and give what became of it."""
        return await self._courier.deliver(payload, "interactive")

    async def deliver_raw(self, body: bytes, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """POST anything to the request URL, correctly signed unless `headers` are given; gives status and body."""
        signed = self._courier.sign(body) if headers is None else headers
        status, _, text, _ = await self._courier.request(body, signed)
        return status, text

    def sign(self, body: bytes) -> dict[str, str]:
        """Give the headers with which Slack would send this body."""
        return self._courier.sign(body)

    async def delivered(self, timeout: float = 30.0) -> None:  # noqa: ASYNC109 a deadline is what callers think in
        """Wait until every event is acknowledged or given up; raises TimeoutError."""
        await self._courier.idle(timeout)

    # Views

    def messages(self, channel: str) -> list[Json]:
        """Give all messages of a channel, replies included, oldest first."""
        return deepcopy(list(self.workspace.channel(channel).messages.values()))

    def thread(self, channel: str, ts: str) -> list[Json]:
        """Give a message and its replies, oldest first."""
        return deepcopy(self.workspace.channel(channel).thread(ts))

    def ephemerals(self, channel: str) -> list[Json]:
        """Give the messages that only one person (`to`) could see, oldest first."""
        return deepcopy(self.workspace.channel(channel).ephemerals)

    def status(self, channel: str, thread: str) -> Json:
        """Give the bridge's status in a thread, `{}` for none."""
        return self.workspace.status(self.workspace.channel(channel), thread)

    @property
    def calls(self) -> deque[Call]:
        """The latest calls of the Web API, oldest first."""
        return self._api.calls

    @property
    def rate_limited(self) -> Counter[str]:
        """How many calls of each method were answered 429."""
        return self._api.rate_limited

    @property
    def deliveries(self) -> deque[Delivery]:
        """The latest attempts to deliver something to the app, oldest first."""
        return self._courier.deliveries

    async def wait_for(self, predicate: Callable[[], T], timeout: float = 5.0) -> T:  # noqa: ASYNC109 a deadline is what callers think in
        """Wait until `predicate()` is true and give its value; looks whenever something happens here."""
        return await self._changes.wait_for(predicate, timeout)

    def subscribe_changes(self) -> AsyncIterator[Json]:
        """Give what happens from now on: `posted`, `changed`, `deleted`, `status`, `ephemeral`."""
        return self._changes.subscribe()
