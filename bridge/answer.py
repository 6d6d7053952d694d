"""A question's journey: asked at Kapa, shown in its thread as it comes, remembered, and never left without a word.

What the messages look like and how they get there lives in `display` and `slack/`; how long to wait, in `policy`.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from math import ceil
from time import time

import structlog

from bridge import policy
from bridge.chat import ChatBusyError, ChatError, ChatRefusedError
from bridge.circuit_breaker import CircuitBreaker, CircuitOpenError, Verdict
from bridge.display import Display, Means, Painter, Sleep
from bridge.inbox import FINISHED
from bridge.journal import QuestionEntry
from bridge.kapa.client import KapaClient
from bridge.kapa.wire import KapaError, KapaRefused, KapaThreadUnknown, KapaUnavailable
from bridge.markdown_safety import harmless
from bridge.messages import Messages
from bridge.models import Answer, Query, Question, Reply
from bridge.rate_limit import RateLimit, Wait
from bridge.status import Status
from bridge.store import NO_ANSWER, message_key
from bridge.timing import Observer, Stopwatch
from bridge.work import Again, Beside, Done, GaveUp, Lease, Outcome, together

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Turn:
    """One attempt at one question."""

    question: Question
    lease: Lease
    display: Display
    stopwatch: Stopwatch

    @property
    def is_again(self) -> bool:
        """Whether the question was finished before, and changed since."""
        return FINISHED in self.lease.ticket.notes


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a question ends once its reply is shown: `answer` is None where the bridge speaks for itself.

    A `dead_reason` is for the operator, and makes the question a dead letter.
    """

    result: str
    reply: Reply
    answer: Answer | None = None
    dead_reason: str = ""


@dataclass(slots=True)
class Answering:
    """The journey, with all it needs. `budget` is None when chat requests to Kapa are not limited.

    `statuses` is the budget of the changes of status lines, and `observer` hears how long things took.
    """

    kapa: KapaClient
    means: Means
    breaker: CircuitBreaker
    budget: RateLimit | None
    statuses: RateLimit
    messages: Messages
    observer: Observer
    is_streaming: bool = True
    sleep: Sleep = asyncio.sleep
    clock: Callable[[], float] = time
    jitter: random.Random = field(default_factory=random.SystemRandom)
    beside: Beside = field(default_factory=Beside)

    async def run(self, lease: Lease) -> Outcome:
        """Answer the ticket's question, as `work.Journey` wants it."""
        turn = self._turn(lease)
        place = turn.question.place
        structlog.contextvars.bind_contextvars(channel=place.channel, thread=place.thread, question=turn.question.id)
        if lease.ticket.deaths > policy.MOST_DEATHS:
            return await self.surrender(lease, "workers died over it")
        if lease.ticket.is_taken_over and lease.ticket.deaths > 1:
            # What kills a worker kills what is beside it: once they are apart, only the one at fault dies again.
            wait = policy.apart_wait(lease.ticket.deaths, self.jitter.random())
            return Again("workers died over it", wait, is_failure=False)
        if turn.question.is_there and turn.is_again:
            # What was answered before stays: only what was being asked anew is dropped.
            return Done("not_asked_again")
        if turn.question.is_deleted:
            return await self._withdraw(turn)
        if turn.is_again and (outcome := await self._review(turn)) is not None:
            return outcome
        if not turn.question.text:
            return await self._tell(turn, _Ending("helped", Reply(self.messages.help)))
        async with Status(
            self.means.chat,
            turn.question,
            self.messages.thinking,
            loading=self.messages.loading,
            changes=self.statuses,
            has_posted=lambda: turn.display.has_posted,
            beside=self.beside,
            sleep=self.sleep,
        ) as status:
            return await self._answer(turn, status)

    async def close(self) -> None:
        """End what is still being done beside the journeys."""
        await self.beside.close()

    async def surrender(self, lease: Lease, reason: str) -> Outcome:
        """Give the question up after a fault of ours."""
        question = Question.from_json(lease.ticket.item.payload)
        if question.is_deleted or FINISHED in lease.ticket.notes:
            # Nobody waits for a word, or the answer from before is better than one.
            return GaveUp(reason)
        return await self._tell(self._turn(lease), _Ending("failed", Reply(self.messages.failed), dead_reason=reason))

    def _turn(self, lease: Lease) -> _Turn:
        question = Question.from_json(lease.ticket.item.payload)
        is_first_answer = FINISHED not in lease.ticket.notes
        stopwatch = Stopwatch(self.observer if is_first_answer else None, question.asked_at, clock=self.clock)
        return _Turn(question, lease, Display(self.means, question, lease, stopwatch), stopwatch)

    # What was asked, and answered, before

    async def _review(self, turn: _Turn) -> Outcome | None:
        """Find the answer to what the question was before it was edited; None: it is to be asked again.

        The only call of the chat that comes before a request to Kapa.
        """
        if "answer" in turn.lease.ticket.notes:
            # It was asked again already, and is only to be shown.
            return None
        try:
            is_replied = await turn.display.adopt()
        except ChatRefusedError as refused:
            log.info("answer_not_found", reason=refused.reason)
            return Done("not_asked_again")
        except ChatError as error:
            return self._later(turn, error) or Done("not_asked_again")
        # Who replied has read the answer, and speaks of it.
        return Done("not_asked_again") if is_replied else None

    async def _withdraw(self, turn: _Turn) -> Outcome:
        """Take the answer along with its question, unless someone has voted on it."""
        place, display, store = turn.question.place, turn.display, self.means.store
        self.beside.start(self.means.chat.show_status(place, ""))
        try:
            await self._find_what_is_left(display)
            if display.messages and await store.is_voted(message_key(place, display.messages[0])):
                return Done("answer_kept")
            writes = store.parts(place, display.messages, NO_ANSWER)
            await display.take_away()
        except ChatError as error:
            return self._later(turn, error) or GaveUp(f"slack: {error.reason}")
        return Done("withdrawn", writes)

    async def _find_what_is_left(self, display: Display) -> None:
        try:
            await display.adopt()
        except ChatRefusedError as refused:
            # The thread is gone; what is remembered of a running answer may be there still.
            log.info("thread_not_read", reason=refused.reason)

    def _later(self, turn: _Turn, error: ChatError) -> Again | None:
        """Say when to try again what the chat did not do now; None: it was tried long enough."""
        if isinstance(error, ChatBusyError) and error.retry_after is not None:
            return Again(error.reason, policy.after_pause(error.retry_after, self.jitter.random()), is_failure=False)
        patience = policy.patient_wait(turn.lease.ticket.failures + 1, None, self.jitter.random())
        return None if patience is None else Again(error.reason, patience)

    # The answer

    async def _answer(self, turn: _Turn, status: Status) -> Outcome:
        try:
            answer = await self._obtain(turn, status)
        except KapaError as error:
            return await self._without_answer(error, turn)
        reply = Reply(
            answer.text,
            answer.sources,
            note=self.messages.uncertain if answer.is_uncertain else "",
            is_votable=True,
            is_shared=turn.question.is_shared,
        )
        if not harmless(answer.text).strip():
            reply = replace(reply, text=self.messages.nothing_found)
        return await self._tell(turn, _Ending("answered", reply, answer))

    async def _obtain(self, turn: _Turn, status: Status) -> Answer:
        """Give the answer that an earlier attempt got, else Kapa's, remembered before it is shown whole."""
        notes = turn.lease.ticket.notes
        if "answer" in notes:
            await turn.lease.begin()
            return Answer.from_json(notes["answer"])
        # Together: each is a moment that the person waits.
        thread = await together(self._kapa_thread(turn), self._admit(turn, status))
        try:
            return await self._ask(turn, thread)
        except KapaThreadUnknown:
            log.info("kapa_thread_replaced")
            turn.stopwatch.resume()
            await self._admit(turn, status)
            return await self._ask(turn, None)

    async def _kapa_thread(self, turn: _Turn) -> str | None:
        question = turn.question
        if turn.is_again and question.id == question.place.thread:
            # What the conversation began with is another question now.
            return None
        return await self.means.store.kapa_thread(question.line)

    async def _ask(self, turn: _Turn, thread: str | None) -> Answer:
        question = turn.question
        query = Query(question.text, question.person, question.origin_url, thread)
        # An answer that is there already stays until the new one is whole.
        is_growing = self.is_streaming and not turn.is_again
        return await (self._stream(turn, query) if is_growing else self._ask_whole(turn, query))

    async def _admit(self, turn: _Turn, status: Status) -> None:
        """Wait until Kapa may be asked, and note that it is going to be."""
        who = turn.lease.ticket.item.id
        if self.budget is not None:
            await self.breaker.admit(who)
            with turn.lease.waiting():
                await turn.stopwatch.turn("kapa", self.budget, who, lambda wait: self._tell_place(wait, status))
            status.say()
        # Who waited asks again: Kapa may have gone out meanwhile. Where it has, this ticket ends, and with it the note.
        await together(turn.lease.begin(), self.breaker.admit(who))

    def _tell_place(self, wait: Wait, status: Status) -> None:
        log.info("budget_wait", place=wait.place)
        status.say(self.messages.waiting.format(place=wait.place))

    async def _ask_whole(self, turn: _Turn, query: Query) -> Answer:
        async with self.breaker.watch(turn.lease.ticket.item.id) as verdict:
            with turn.stopwatch.waiting():
                answer = await self.kapa.ask(query)
            return await self._remembered(turn, answer, verdict)

    async def _stream(self, turn: _Turn, query: Query) -> Answer:
        async with (
            Painter(turn.display, self.sleep) as painter,
            self.breaker.watch(turn.lease.ticket.item.id) as verdict,
            aclosing(self.kapa.stream(query)) as pieces,
        ):
            turn.stopwatch.pause()
            async for piece in pieces:
                turn.stopwatch.resume()
                if isinstance(piece, Answer):
                    # Here already: the end of the block waits for a draft that is being shown.
                    return await self._remembered(turn, piece, verdict)
                painter.add(piece)
            raise KapaUnavailable("the stream ended without an answer")

    async def _remembered(self, turn: _Turn, answer: Answer, verdict: Verdict) -> Answer:
        remember = turn.lease.remember({"answer": answer.to_json()})
        await together(remember, verdict.good(), self.means.chat.prepare())
        return answer

    async def _without_answer(self, error: KapaError, turn: _Turn) -> Outcome:
        turn.stopwatch.resume()
        failures = turn.lease.ticket.failures + 1
        if isinstance(error, CircuitOpenError):
            log.info("kapa_spared", failures=failures)
        else:
            # What Kapa says may quote what the person asked.
            log.warning("kapa_failed", error=type(error).__name__, status=error.status, failures=failures)
            log.debug("kapa_said", reason=error.reason)
        if isinstance(error, KapaUnavailable):
            if error.is_rate_limit and self.budget is not None:
                await self.budget.pause(min(error.retry_after or 1, policy.LONGEST_WAIT_SECONDS))
            wait = self._wait(error, failures)
            if wait is not None:
                return Again("kapa unavailable", wait)
        ending = self._explain(error)
        if turn.is_again and turn.display.messages:
            # The answer from before the edit is better than an apology in its place.
            return GaveUp(ending.dead_reason) if ending.dead_reason else Done("no_new_answer")
        return await self._tell(turn, ending)

    def _wait(self, error: KapaUnavailable, failures: int) -> float | None:
        if isinstance(error, CircuitOpenError):
            return policy.circuit_wait(failures, error.retry_after or 0, self.jitter.random())
        return policy.question_wait(failures, error.retry_after, self.jitter.random())

    def _explain(self, error: KapaError) -> _Ending:
        """Put into words, for the person who asked, why there is no answer; and for the operator, if one must act."""
        if isinstance(error, KapaRefused):
            return _Ending("refused", Reply(self.messages.too_long if error.status == 413 else self.messages.refused))
        if not isinstance(error, KapaUnavailable):
            reply = Reply(self.messages.misconfigured)
        elif error.partial.strip():
            reply = Reply(error.partial, note=self.messages.cut_off)
        elif error.is_rate_limit:
            minutes = ceil((error.retry_after or 60) / 60)
            reply = Reply(self.messages.busy.format(minutes=minutes))
        else:
            reply = Reply(self.messages.unavailable)
        return _Ending("failed", reply, dead_reason=f"kapa: {error.reason}")

    async def _tell(self, turn: _Turn, ending: _Ending) -> Outcome:
        """Show the final reply, and end the question if that worked."""
        try:
            await turn.display.finish(ending.reply)
        except ChatRefusedError as error:
            return self._settled(turn, replace(ending, result="failed", dead_reason=f"slack: {error.reason}"))
        except ChatError as error:
            given_up = replace(ending, result="failed", dead_reason=f"slack: {error.reason}")
            return self._later(turn, error) or self._settled(turn, given_up)
        return self._settled(turn, ending)

    def _settled(self, turn: _Turn, ending: _Ending) -> Outcome:
        turn.stopwatch.finished(ending.result)
        place, answer = turn.question.place, ending.answer
        messages = turn.display.messages
        writes = self.means.store.parts(place, messages, answer.question_answer_id if answer else NO_ANSWER)
        if answer is not None:
            writes.append(self.means.store.thread(turn.question.line, answer.thread_id))
        entry = QuestionEntry(
            result=ending.result,
            seconds=max(0.0, self.clock() - turn.question.asked_at),
            is_uncertain=answer is not None and answer.is_uncertain,
            link=turn.question.origin_url,
            messages=tuple(message_key(place, message) for message in messages),
        ).to_json()
        return GaveUp(ending.dead_reason, writes, entry) if ending.dead_reason else Done(ending.result, writes, entry)
