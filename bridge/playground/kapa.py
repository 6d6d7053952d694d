"""The simulated Kapa: the endpoints of its Query API, answered from a `Knowledge`.

This is the handle that tests and the playground hold: what was asked and voted, and what shall go wrong. The
formats are `kapa_rules`', saying answers `kapa_speech`'s, finding them `knowledge`'s.
"""

import asyncio
import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import ceil
from typing import Any, TypeVar

import structlog
from aiohttp import web

from bridge.playground.kapa_calls import CALL, KapaCall, KapaCalls
from bridge.playground.kapa_rules import (
    KapaRefusalError,
    check_chat,
    check_feedback,
    not_found,
    unknown,
)
from bridge.playground.kapa_speech import Asked, Pace, Speaker, Thread, Turn
from bridge.playground.knowledge import Knowledge, Reply
from bridge.playground.serving import Changes, Fault, Faults, Json, drop, hang, served

__all__ = ["Asked", "Pace", "SimulatedKapa", "Thread", "Turn"]

log = structlog.get_logger()

T = TypeVar("T")
_KEPT = 100_000
_HTML_502 = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


Answering = str | Reply | Callable[[Asked], str | Reply] | None


class SimulatedKapa:
    """A Kapa instance with one project, and one integration that answers; `integrations` are those that it lists.

    `requests_per_minute` chat requests are taken in any 60 s, None for any number. `clock` gives Unix seconds,
    `sleep` waits at the given pace.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        *,
        api_key: str = "playground-key",
        project_id: str = "00000000-0000-4000-8000-000000000001",
        integration_id: str = "00000000-0000-4000-8000-000000000002",
        pace: Pace = Pace(),  # noqa: B008 immutable
        requests_per_minute: int | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.api_key, self.project_id, self.integration_id = api_key, project_id, integration_id
        self.requests_per_minute = requests_per_minute
        # More can be put in: each has an `id`, a `name` and a `type`.
        self.integrations: list[Json] = [{"id": integration_id, "name": "Slack bridge", "type": "API"}]
        self.api_url = ""
        self.asked: deque[Asked] = deque(maxlen=_KEPT)
        self.feedback: dict[tuple[str, str], Json] = {}
        self.feedback_log: deque[Json] = deque(maxlen=_KEPT)
        self.threads: dict[str, Thread] = {}
        self.refused: Counter[int] = Counter()
        self.max_in_flight = 0
        self.max_in_flight_per_thread = 0
        self._knowledge = knowledge
        self._clock = clock
        self._changes = Changes()
        self._calls = KapaCalls(clock)
        self._faults = Faults(clock)
        self._answering: Answering = None
        self._answers: set[str] = set()
        self._window: deque[float] = deque()
        self._in_flight: Counter[str] = Counter()
        self._speaker = Speaker(pace, self._changes, sleep, clock)

    # Serving

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator["SimulatedKapa"]:
        """Serve the Query API until the block ends; raises OSError where the port is taken."""
        app = web.Application(middlewares=[self._calls.watch, self._errors])
        project, thread = "/query/v1/projects/{project}", "/query/v1/threads/{thread}"
        app.router.add_get(f"{project}/integrations/", self._list_integrations)
        app.router.add_post(f"{project}/retrieval/", self._retrieve)
        for base in (project, thread):
            app.router.add_post(f"{base}/chat/", self._chat)
            app.router.add_post(f"{base}/chat/stream/", self._chat)
        app.router.add_get(f"{thread}/", self._read_thread)
        app.router.add_post("/query/v1/feedback/upsert/", self._upsert_feedback)
        async with served(app, host, port) as self.api_url:
            yield self

    @web.middleware
    async def _errors(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            self._authenticate(request)
            return await handler(request)
        except KapaRefusalError as refusal:
            self.refused[refusal.status] += 1
            self._changes.publish()
            return web.json_response(refusal.body, status=refusal.status, headers=refusal.headers)
        except web.HTTPNotFound:
            if not request.path.endswith("/"):
                raise web.HTTPMovedPermanently(location=f"{request.path}/") from None
            return web.json_response(not_found().body, status=404)

    def _authenticate(self, request: web.Request) -> None:
        key = request.headers.get("X-API-KEY")
        if not key:
            raise KapaRefusalError(401, {"detail": "Authentication credentials were not provided."})
        if key != self.api_key:
            raise KapaRefusalError(403, {"detail": "You do not have permission to perform this action."})

    # Chat

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        is_streamed = request.path.endswith("/stream/")
        if is_streamed and "text/event-stream" in request.headers.get("Accept", ""):
            raise KapaRefusalError(406, {"detail": "Could not satisfy the request Accept header."})
        fault = self._take_fault("chat", request)
        if (early := await self._misbehave(request, fault)) is not None:
            return early
        body = await _json_object(request)
        thread = self._thread_of(request)
        check_chat(body)
        if body.get("integration_id") not in (None, self.integration_id):
            raise unknown("integration_id", body["integration_id"])
        self._throttle()
        request[CALL].asked = asked = self._accept(thread, body, is_streamed)
        with self._in_flight_of(asked):
            reply = self._reply_to(asked, thread, fault)
            if fault.action == "drop_after":
                return drop(request)
            if is_streamed:
                return await self._speaker.stream(request, asked, reply, fault)
            return await self._speaker.say_whole(asked, reply, fault)

    def _thread_of(self, request: web.Request) -> Thread | None:
        if "project" in request.match_info:
            self._check_project(request)
            return None
        thread = self.threads.get(request.match_info["thread"])
        if thread is None:
            raise not_found()
        return thread

    def _check_project(self, request: web.Request) -> None:
        if request.match_info["project"] != self.project_id:
            raise not_found()

    def _take_fault(self, endpoint: str, request: web.Request) -> Fault:
        fault = self._faults.take(endpoint) or Fault("")
        if CALL in request:
            request[CALL].fault = fault.action
        return fault

    async def _misbehave(self, request: web.Request, fault: Fault) -> web.StreamResponse | None:
        if fault.action == "drop_before":
            return drop(request)
        if fault.action == "hang":
            return await hang()
        if fault.action == "429":
            headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            raise KapaRefusalError(429, {"detail": "Request was throttled."}, headers)
        if fault.action == "500":
            raise KapaRefusalError(500, {"detail": "Internal server error."})
        if fault.action == "502html":
            return web.Response(status=502, content_type="text/html", text=_HTML_502)
        if fault.action == "garbage":
            return web.Response(body=b'{"chunk": {"type": "partial_ans\xff\xe2\x90\x9e{{{\xe2\x90\x9e')
        if fault.action == "forget_thread":
            self.threads.pop(request.match_info.get("thread", ""), None)
            raise not_found()
        return None

    def _throttle(self) -> None:
        now = self._clock()
        while self._window and self._window[0] <= now - 60:
            self._window.popleft()
        if self.requests_per_minute is not None and len(self._window) >= self.requests_per_minute:
            seconds = max(1, ceil(self._window[0] + 60 - now))
            detail = f"Request was throttled. Expected available in {seconds} seconds."
            raise KapaRefusalError(429, {"detail": detail}, {"Retry-After": str(seconds)})
        self._window.append(now)

    def _accept(self, thread: Thread | None, body: Json, is_streamed: bool) -> Asked:
        asked = Asked(
            query=body["query"],
            thread_id=thread.id if thread else str(uuid.uuid4()),
            is_follow_up=thread is not None,
            integration_id=body.get("integration_id"),
            user=body.get("user") or {},
            metadata=body.get("metadata") or {},
            question_answer_id=str(uuid.uuid4()),
            at=self._clock(),
            is_streamed=is_streamed,
        )
        self.asked.append(asked)
        log.debug("kapa_asked", thread=asked.thread_id, is_follow_up=asked.is_follow_up)
        return asked

    @contextmanager
    def _in_flight_of(self, asked: Asked) -> Iterator[None]:
        self._in_flight[asked.thread_id] += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        self.max_in_flight_per_thread = max(self.max_in_flight_per_thread, self._in_flight[asked.thread_id])
        self._changes.publish()
        try:
            yield
        finally:
            self._in_flight[asked.thread_id] -= 1
            self._in_flight += Counter()
            asked.ended = self._clock()
            self._changes.publish()

    def _reply_to(self, asked: Asked, thread: Thread | None, fault: Fault) -> Reply:
        """Find the answer and remember the turn: from here on feedback on it is possible."""
        thread = thread or Thread(asked.thread_id)
        given = self._answering(asked) if callable(self._answering) else self._answering
        if given is None:
            given = self._knowledge.answer(asked.query, " ".join(turn.question for turn in thread.turns[-2:]))
        reply = Reply(given) if isinstance(given, str) else given
        if fault.action == "uncertain":
            reply = Reply(reply.text, reply.sections, is_uncertain=True)
        self.threads[thread.id] = thread
        self._answers.add(asked.question_answer_id)
        thread.turns.append(Turn(asked.question_answer_id, asked.query, reply))
        return reply

    # The other endpoints

    async def _list_integrations(self, request: web.Request) -> web.StreamResponse:
        if (early := await self._misbehave(request, self._take_fault("integrations", request))) is not None:
            return early
        self._check_project(request)
        return web.json_response(self.integrations)

    async def _retrieve(self, request: web.Request) -> web.StreamResponse:
        self._check_project(request)
        body = await _json_object(request)
        check_chat(body)
        found = self._knowledge.search(body["query"])
        return web.json_response(
            [{"title": f"{s.page}|{s.title}", "source_url": s.url, "content": s.text} for s in found]
        )

    async def _read_thread(self, request: web.Request) -> web.StreamResponse:
        thread = self._thread_of(request)
        turns = thread.turns if thread else []
        answers = [{"id": t.question_answer_id, "question": t.question, "answer": t.reply.text} for t in turns]
        return web.json_response({"id": request.match_info["thread"], "question_answers": answers})

    async def _upsert_feedback(self, request: web.Request) -> web.StreamResponse:
        fault = self._take_fault("feedback", request)
        if (early := await self._misbehave(request, fault)) is not None:
            return early
        body = await _json_object(request)
        check_feedback(body)
        answer, person = body["question_answer"], body["user_identifier"]
        if answer not in self._answers:
            raise unknown("question_answer", answer)
        is_new = (answer, person) not in self.feedback
        self.feedback[answer, person] = body
        self.feedback_log.append(body)
        self._changes.publish()
        log.debug("kapa_feedback", question_answer=answer, reaction=body["reaction"])
        return drop(request) if fault.action == "drop_after" else web.json_response(body, status=201 if is_new else 200)

    # Handles

    @property
    def calls(self) -> deque[KapaCall]:
        """The latest requests for answers and votes, refused ones included, oldest first."""
        return self._calls.latest

    @property
    def in_flight(self) -> int:
        """How many chat requests are being answered."""
        return self._in_flight.total()

    def in_flight_of(self, thread_id: str) -> int:
        """How many chat requests of one thread are being answered."""
        return self._in_flight[thread_id]

    def answer_with(self, answering: Answering) -> None:
        """Answer with this text or reply, or what this function makes of the question; None: from the knowledge."""
        self._answering = answering

    @property
    def pace(self) -> Pace:
        """How long answers take; change it at will."""
        return self._speaker.pace

    @pace.setter
    def pace(self, pace: Pace) -> None:
        self._speaker.pace = pace

    @property
    def held(self) -> int:
        """How many answers stand still because of `hold`."""
        return self._speaker.held

    def hold(self, after_pieces: int = 0) -> None:
        """Let answers stop before the piece of text with this number (0 is the first) until `release`.

        An answer with fewer pieces stops before its sources; one that is not streamed, before it is sent.
        """
        self._speaker.hold(after_pieces)

    def release(self) -> None:
        """Let all answers go on."""
        self._speaker.release()

    def fault(self, kind: str, times: int = 1, *, endpoint: str = "chat", retry_after: str | None = "1") -> None:
        """Let the next `times` requests go wrong. `endpoint`: `chat`, `feedback` or `integrations`.

        `kind`: `429` (with `retry_after` as its header, None for none), `500`, `502html`, `garbage`, `hang`,
        `drop_before` (nothing was asked) or `drop_after` (it was, the connection closes without an answer); for
        chat also `truncate`, `drop_midway` and `error_record` after half of the text, `uncertain`, `forget_thread`.
        """
        self._faults.add(endpoint, Fault(kind, retry_after), times)

    def always(self, endpoint: str, fault: Fault | None) -> None:
        """Let every request of an endpoint go wrong, in one of the ways of `fault`, until this is called with None."""
        self._faults.always(endpoint, fault)

    def clear_faults(self) -> None:
        """Forget all faults that were not shown yet."""
        self._faults.clear()

    async def wait_for(self, predicate: Callable[[], T], timeout: float = 5.0) -> T:  # noqa: ASYNC109 a deadline is what callers think in
        """Wait until `predicate()` is true and give its value; looks whenever something happens here."""
        return await self._changes.wait_for(predicate, timeout)


async def _json_object(request: web.Request) -> Json:
    try:
        body: Any = await request.json()
    except ValueError:
        raise KapaRefusalError(400, {"detail": "JSON parse error."}) from None
    if not isinstance(body, dict):
        raise KapaRefusalError(400, {"non_field_errors": ["Invalid data. Expected a dictionary."]})
    return body
