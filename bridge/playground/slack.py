"""The simulated Slack: one workspace, its Web API, its events, and the people in it as methods.

This is the handle that tests and the playground hold. The parts are `slack_people` (who acts), `slack_workspace` (what
happens), `slack_api` and `slack_methods` (the Web API), `slack_clicks` and `slack_modals` (interactivity),
`slack_delivery` and `slack_socket` (events to the app). `slack_cast` names who and what is there.
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
from bridge.playground.slack_cast import (
    APP_ID,
    BOT,
    ELSEWHERE,
    GENERAL,
    HELP,
    OTHER_BOT,
    PEOPLE,
    PRIVATE,
    SHARED,
    STRANGER,
    channels,
)
from bridge.playground.slack_clicks import Clicks
from bridge.playground.slack_delivery import Attempt, Courier, Delivery, Way
from bridge.playground.slack_interactions import Interactions
from bridge.playground.slack_limits import RateLimiter, SlackLimits
from bridge.playground.slack_methods import Methods
from bridge.playground.slack_modals import Modals
from bridge.playground.slack_people import People
from bridge.playground.slack_socket import Sockets
from bridge.playground.slack_streams import Streams
from bridge.playground.slack_workspace import Workspace

__all__ = [
    "APP_ID",
    "BOT",
    "ELSEWHERE",
    "GENERAL",
    "HELP",
    "OTHER_BOT",
    "PEOPLE",
    "PRIVATE",
    "SHARED",
    "STRANGER",
    "Call",
    "Delivery",
    "SimulatedSlack",
    "SlackLimits",
]

T = TypeVar("T")
_ENVELOPES_KEPT = 1_000


class SimulatedSlack(People):
    """A Slack workspace with the bridge installed. Serve it, `subscribe` the bridge to it, and act as its people.

    `limits=None` switches rate limits off. `clock` gives Unix seconds; `sleep` waits between redeliveries.
    Events travel over sockets until a request URL is subscribed, or as `delivery` is set: `http` or `socket`.
    While it `is_doubling`, each event is delivered twice.
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
        self.is_doubling = False
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
            people=(*PEOPLE, OTHER_BOT, STRANGER),
            channels=channels(),
            clock=clock,
            emit=self.deliver,
            publish=self._changes.publish,
        )
        self._streams = Streams(self.workspace, clock)
        interactions = Interactions(self.workspace, app=APP_ID, domain=team_domain, clock=clock, send=self.interact)
        self._clicks = Clicks(self.workspace, interactions, lambda: self.base_url, self._changes.publish)
        self._modals = Modals(self.workspace, interactions, self._changes.publish)
        methods = Methods(
            self.workspace,
            streams=self._streams,
            modals=self._modals,
            workspace_url=f"https://{team_domain}.slack.com/",
            open_socket=self._socket_url,
        )
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

    def always(self, method: str, fault: Fault | None, *, apart: float = 0.0) -> None:
        """Let every call of `method` go wrong until this is called with None.

        With `apart`, so many seconds lie between two such calls about one message, or of posts about one thread.
        """
        self._api.faults.always(method, fault, apart=apart)

    def clear_faults(self) -> None:
        """Forget all faults that were not shown yet."""
        self._api.faults.clear()

    @property
    def latency(self) -> float:
        """How many seconds every call of the Web API takes."""
        return self._api.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._api.latency = seconds

    @property
    def stream_refusal(self) -> str | None:
        """The error code with which every chat.startStream is refused; None lets streams start."""
        return self._streams.refusal

    @stream_refusal.setter
    def stream_refusal(self, code: str | None) -> None:
        self._streams.refusal = code

    def expire_streams(self) -> None:
        """End all open streams as their age would."""
        self._streams.expire(at_once=True)

    @property
    def scopes(self) -> set[str]:
        """The bot token's scopes; change them at will."""
        return self._api.scopes

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
        for _ in range(2 if self.is_doubling else 1):
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
        self._streams.expire()
        return deepcopy(list(self.workspace.channel(channel).messages.values()))

    def thread(self, channel: str, ts: str) -> list[Json]:
        """Give a message and its replies, oldest first."""
        self._streams.expire()
        return deepcopy(self.workspace.channel(channel).thread(ts))

    def ephemerals(self, channel: str) -> list[Json]:
        """Give the messages that only one person (`to`) could see, oldest first."""
        return deepcopy(list(self.workspace.channel(channel).ephemerals))

    def views(self, user: str) -> list[Json]:
        """Give a person's open modals, oldest first; `errors` are what the app said about the fields of one."""
        return self._modals.views(user)

    def feedback_selected(self) -> dict[str, dict[str, str]]:
        """Give which feedback button each person has selected: by person, then by `<channel>:<ts>`."""
        return self._clicks.selected()

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

    @property
    def attempts(self) -> deque[Attempt]:
        """The latest attempts to deliver something with what was to be delivered, from their beginning on."""
        return self._courier.attempts

    async def wait_for(self, predicate: Callable[[], T], timeout: float = 5.0) -> T:  # noqa: ASYNC109 a deadline is what callers think in
        """Wait until `predicate()` is true and give its value; looks whenever something happens here."""
        return await self._changes.wait_for(predicate, timeout)

    def subscribe_changes(self) -> AsyncIterator[Json]:
        """Give what happens from now on.

        Each change is `posted`, `changed`, `deleted`, `status`, `ephemeral`, `view`, `view_closed` or `feedback`.
        """
        return self._changes.subscribe()

    def publish(self, change: Json) -> None:
        """Tell those who look on of a change that is not the workspace's own."""
        self._changes.publish(change)
