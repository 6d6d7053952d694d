"""How the simulated Kapa says an answer: whole or streamed, at its pace, held midway or broken off on demand.

What is asked, and whether it is accepted, is `kapa`'s business; the records' form is `kapa_rules`'.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from bridge.playground.kapa_rules import KapaRefusalError, pieces, record
from bridge.playground.knowledge import Reply, sources
from bridge.playground.serving import Changes, Fault, Json, drop

_BREAKS = ("truncate", "error_record", "drop_midway")
_FAILURE = "The answer could not be generated."


@dataclass(frozen=True, slots=True)
class Pace:
    """How long Kapa takes, in seconds: to the first text, and between two pieces of it."""

    first_text: float = 0.0
    between_pieces: float = 0.0


@dataclass(slots=True)
class Asked:
    """One chat request that was accepted; `thread_id` is the thread it belongs to or began.

    `at`, `first_text` and `ended` are Unix seconds; `ended` is None while it is being answered.
    """

    query: str
    thread_id: str
    is_follow_up: bool
    integration_id: str | None
    user: Json
    metadata: Json
    question_answer_id: str
    at: float
    is_streamed: bool
    first_text: float | None = None
    ended: float | None = None


@dataclass(slots=True)
class Turn:
    """A question and its answer in a thread."""

    question_answer_id: str
    question: str
    reply: Reply


@dataclass(slots=True)
class Thread:
    """A conversation: its turns, oldest first."""

    id: str
    turns: list[Turn] = field(default_factory=list)


class Speaker:
    """Says answers at a `pace`, and can be told to stop midway: `held` answers stand still."""

    def __init__(
        self,
        pace: Pace,
        changes: Changes,
        sleep: Callable[[float], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self.pace = pace
        self.held = 0
        self._changes = changes
        self._sleep = sleep
        self._clock = clock
        self._go = asyncio.Event()
        self._go.set()
        self._hold_after = 0

    def hold(self, after_pieces: int) -> None:
        """Stop before the piece with this number, or before the end of a shorter answer, until `release`."""
        self._hold_after = after_pieces
        self._go.clear()

    def release(self) -> None:
        """Let all answers go on."""
        self._go.set()

    async def _pass_gate(self, number: int) -> None:
        if number < self._hold_after or self._go.is_set():
            return
        self.held += 1
        self._changes.publish()
        try:
            await self._go.wait()
        finally:
            self.held -= 1

    async def say_whole(self, asked: Asked, reply: Reply, fault: Fault) -> web.StreamResponse:
        """Answer in one piece, after all the time that it takes."""
        await self._sleep(self.pace.first_text + len(list(pieces(reply.text))) * self.pace.between_pieces)
        await self._pass_gate(self._hold_after)
        if fault.action == "error_record":
            raise KapaRefusalError(500, {"detail": _FAILURE})
        body = {
            "answer": reply.text,
            "thread_id": asked.thread_id,
            "question_answer_id": asked.question_answer_id,
            "is_uncertain": reply.is_uncertain,
            "relevant_sources": sources(reply),
        }
        response = web.json_response(body)
        if fault.action == "truncate" and isinstance(response.body, bytes):
            return web.Response(body=response.body[: len(response.body) // 2], content_type="application/json")
        return response

    async def stream(self, request: web.Request, asked: Asked, reply: Reply, fault: Fault) -> web.StreamResponse:
        """Answer piece by piece, then with sources, certainty and ids; a fault ends it after half of the text."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        deltas = list(pieces(reply.text))
        shown = deltas[: (len(deltas) + 1) // 2] if fault.action in _BREAKS else deltas
        for number, delta in enumerate(shown):
            await self._pass_gate(number)
            await self._sleep(self.pace.between_pieces if number else self.pace.first_text)
            asked.first_text = asked.first_text or self._clock()
            await response.write(record("partial_answer", {"text": delta}))
        if fault.action == "drop_midway":
            drop(request)
            return response
        if fault.action == "error_record":
            await response.write(record("error", {"reason": _FAILURE}, is_last=True))
        elif fault.action != "truncate":
            await self._pass_gate(max(len(deltas), self._hold_after))
            await response.write(_closing_records(asked, reply))
        await response.write_eof()
        return response


def _closing_records(asked: Asked, reply: Reply) -> bytes:
    ids = {"thread_id": asked.thread_id, "question_answer_id": asked.question_answer_id}
    return (
        record("relevant_sources", {"relevant_sources": sources(reply)})
        + record("metadata", {"is_uncertain": reply.is_uncertain})
        + record("identifiers", ids, is_last=True)
    )
