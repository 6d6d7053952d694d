"""A question's journey: asked at Kapa, shown in its thread as it comes, remembered, and never left without a word.

What the messages look like and how they get there lives in `display` and `slack/`; how long to wait, in `policy`.
"""

import asyncio
import random
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog

from bridge import policy
from bridge.chat import Chat, ChatBusyError, ChatError, ChatRefusedError
from bridge.display import Display, Painter, Sleep, Status
from bridge.inbox import Write
from bridge.kapa.client import KapaClient
from bridge.kapa.wire import KapaError, KapaRefused, KapaThreadUnknown, KapaUnavailable
from bridge.messages import Messages
from bridge.models import Answer, Query, Question, Reply
from bridge.rate_limit import RateLimit
from bridge.store import NO_ANSWER, Store
from bridge.work import Again, Done, GaveUp, Lease, Outcome

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why there is no answer, and what the person is told."""

    reason: str
    reply: Reply
    is_final: bool


@dataclass(slots=True)
class Answering:
    """The journey, with all it needs. `budget` is None when chat requests to Kapa are not limited."""

    kapa: KapaClient
    chat: Chat
    store: Store
    budget: RateLimit | None
    edits: RateLimit
    messages: Messages
    is_streaming: bool = True
    sleep: Sleep = asyncio.sleep
    jitter: random.Random = field(default_factory=random.SystemRandom)

    async def run(self, lease: Lease) -> Outcome:
        """Answer the ticket's question, as `work.Journey` wants it."""
        question = Question.from_json(lease.ticket.item.payload)
        structlog.contextvars.bind_contextvars(
            channel=question.place.channel, thread=question.place.thread, question=question.id
        )
        if lease.ticket.deaths > policy.MOST_DEATHS:
            return await self.surrender(lease, "workers died over it")
        display = self._display(question, lease)
        if not question.text:
            return await self._tell(display, question, lease, Reply(self.messages.help), Done("helped"))
        async with Status(self.chat, question, self.messages.thinking, self.sleep):
            return await self._answer(question, lease, display)

    async def surrender(self, lease: Lease, reason: str) -> Outcome:
        """Give the question up after a fault of ours."""
        question = Question.from_json(lease.ticket.item.payload)
        display = self._display(question, lease)
        return await self._tell(display, question, lease, Reply(self.messages.failed), GaveUp(reason))

    def _display(self, question: Question, lease: Lease) -> Display:
        return Display(self.chat, self.store, self.edits, question, lease)

    async def _answer(self, question: Question, lease: Lease, display: Display) -> Outcome:
        try:
            answer = await self._obtain(question, lease, display)
        except KapaError as error:
            return await self._without_answer(error, question, lease, display)
        note = self.messages.uncertain if answer.is_uncertain else ""
        reply = Reply(answer.text.strip() or self.messages.nothing_found, answer.sources, note=note)
        writes = [self.store.thread(question.line, answer.thread_id)]
        return await self._tell(
            display, question, lease, reply, Done("answered", writes), question_answer_id=answer.question_answer_id
        )

    async def _obtain(self, question: Question, lease: Lease, display: Display) -> Answer:
        """Give the answer that an earlier attempt got, else Kapa's, remembered before it is shown whole."""
        if "answer" in lease.ticket.notes:
            return Answer.from_json(lease.ticket.notes["answer"])
        thread = await self.store.kapa_thread(question.line)
        try:
            answer = await self._ask(question, lease, display, thread)
        except KapaThreadUnknown:
            log.info("kapa_thread_replaced")
            answer = await self._ask(question, lease, display, None)
        await lease.remember({"answer": answer.to_json()})
        return answer

    async def _ask(self, question: Question, lease: Lease, display: Display, thread: str | None) -> Answer:
        if self.budget is not None:
            await self.budget.acquire(question.id, lambda wait: log.info("budget_wait", place=wait.place))
        await lease.confirm()
        query = Query(question.text, question.person, question.origin_url, thread)
        if not self.is_streaming:
            return await self.kapa.ask(query)
        async with Painter(display, self.sleep) as painter, aclosing(self.kapa.stream(query)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Answer):
                    return piece
                painter.add(piece)
        raise KapaUnavailable("the stream ended without an answer")

    async def _without_answer(self, error: KapaError, question: Question, lease: Lease, display: Display) -> Outcome:
        failures = lease.ticket.failures + 1
        log.warning("kapa_failed", reason=error.reason, status=error.status, failures=failures)
        if isinstance(error, KapaUnavailable):
            if error.is_rate_limit and self.budget is not None:
                await self.budget.pause(min(error.retry_after or 1, policy.LONGEST_WAIT_SECONDS))
            wait = policy.question_wait(failures, error.retry_after, self.jitter.random())
            if wait is not None:
                return Again(error.reason, wait)
        failure = self._explain(error)
        outcome = Done("refused") if failure.is_final else GaveUp(f"kapa: {failure.reason}")
        return await self._tell(display, question, lease, failure.reply, outcome)

    def _explain(self, error: KapaError) -> _Failure:
        if isinstance(error, KapaRefused):
            sentence = self.messages.too_long if error.status == 413 else self.messages.refused
            return _Failure(error.reason, Reply(sentence), is_final=True)
        if not isinstance(error, KapaUnavailable):
            return _Failure(error.reason, Reply(self.messages.misconfigured), is_final=False)
        if error.partial.strip():
            return _Failure(error.reason, Reply(error.partial, note=self.messages.cut_off), is_final=False)
        if error.is_rate_limit:
            minutes = max(1, round((error.retry_after or 60) / 60 + 0.5))
            return _Failure(error.reason, Reply(self.messages.busy.format(minutes=minutes)), is_final=False)
        return _Failure(error.reason, Reply(self.messages.unavailable), is_final=False)

    async def _tell(
        self,
        display: Display,
        question: Question,
        lease: Lease,
        reply: Reply,
        outcome: Done | GaveUp,
        *,
        question_answer_id: str = NO_ANSWER,
    ) -> Outcome:
        """Show the final reply, and settle for `outcome` if that worked."""
        try:
            await display.finish(reply)
        except ChatBusyError as error:
            return Again(error.reason, error.retry_after or 1, is_failure=False)
        except ChatRefusedError as error:
            return GaveUp(f"slack: {error.reason}", outcome.writes)
        except ChatError as error:
            wait = policy.patient_wait(lease.ticket.failures + 1, None, self.jitter.random())
            return GaveUp(f"slack: {error.reason}", outcome.writes) if wait is None else Again(error.reason, wait)
        place = question.place
        shown = [
            self.store.answer(f"{place.team}:{place.channel}:{id_}", question_answer_id) for id_ in display.messages
        ]
        return _with_writes(outcome, [*outcome.writes, *shown])


def _with_writes(outcome: Done | GaveUp, writes: list[Write]) -> Outcome:
    return Done(outcome.result, writes) if isinstance(outcome, Done) else GaveUp(outcome.reason, writes)
