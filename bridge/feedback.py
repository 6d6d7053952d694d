"""A vote's journey: what a person's emoji and buttons on an answer say, told to Kapa as a feedback upsert.

Which emoji mean what is a setting; how opinions are counted lives in `policy`.
"""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import time
from typing import Any, Final

import structlog

from bridge import policy
from bridge.chat import Chat
from bridge.circuit_breaker import CircuitBreaker, CircuitOpenError
from bridge.inbox import Write
from bridge.journal import VoteEntry
from bridge.kapa.client import KapaClient
from bridge.kapa.wire import KapaError, KapaRefused, KapaUnavailable
from bridge.messages import Messages
from bridge.models import Emoji, Feedback, Place, Reaction, Reason, Vote, Whisper, opinion_from_json
from bridge.policy import Opinion
from bridge.rate_limit import RateLimit
from bridge.store import NO_ANSWER, Ballot, Store
from bridge.work import Again, Beside, Done, GaveUp, Lease, Outcome

# A message may be there before its id is remembered; one that stays unknown for some minutes is no answer.
LOOKS_FOR_ANSWER: Final = 8
# An answer may take a day to be finished while Slack is away.
LOOKS_FOR_END: Final = 1500

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Standing:
    """One person's opinion of one answer, and the vote that Kapa was told last, about the answer `about`."""

    opinion: Opinion = field(default_factory=Opinion)
    told: Vote | None = None
    about: str = ""

    def to_json(self) -> str:
        """Give the form in which the standing is remembered."""
        said = self.opinion.said
        return json.dumps(
            [
                {name: list(shown) for name, shown in self.opinion.emoji.items()},
                _as_list(self.told),
                self.about,
                [said[0], _as_list(said[1])] if said else None,
            ],
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str | None, answer: str) -> "Standing":
        """Read `to_json`'s form back, for a vote on `answer`; None is an empty standing."""
        if text is None:
            return cls(about=answer)
        parts: list[Any] = json.loads(text)
        # An older bridge did not write down what it was about: told again, the vote is the same.
        emoji, told, about, said = parts if len(parts) == 4 else (parts[0], None, answer, None)
        if about != answer:
            # What was thought of an answer that was replaced since says nothing of this one.
            return cls(about=answer)
        opinion = Opinion(
            {name: (at, is_on) for name, (at, is_on) in emoji.items()}, (said[0], _from_list(said[1])) if said else None
        )
        return cls(opinion, _from_list(told) if told else None, answer)


def _as_list(vote: Vote | None) -> list[Any] | None:
    return [vote.reaction, sorted(vote.reasons), vote.words] if vote else None


def _from_list(parts: list[Any]) -> Vote:
    reaction, reasons, words = parts
    return Vote(Reaction(reaction), frozenset(map(Reason, reasons)), words)


@dataclass(slots=True)
class Voting:
    """The journey, with all it needs. `reactions` says which emoji is which vote; `thanks` is the budget of thanks."""

    kapa: KapaClient
    breaker: CircuitBreaker
    store: Store
    chat: Chat
    messages: Messages
    thanks: RateLimit
    reactions: Mapping[str, Vote]
    clock: Callable[[], float] = time
    jitter: random.Random = field(default_factory=random.SystemRandom)
    beside: Beside = field(default_factory=Beside)

    async def run(self, lease: Lease) -> Outcome:
        """Count the ticket's emoji or feedback, as `work.Journey` wants it."""
        event = opinion_from_json(lease.ticket.item.payload)
        structlog.contextvars.bind_contextvars(channel=event.channel, message=event.message)
        ballot = await self.store.ballot(event.line, event.user)
        if event.about:
            return await self._count(event, ballot, lease)
        match ballot.question_answer_id:
            case None:
                wait = policy.look_wait(lease.ticket.failures + 1, LOOKS_FOR_ANSWER)
                return Done("elsewhere") if wait is None else Again("answer not known yet", wait)
            case "":
                wait = policy.look_wait(lease.ticket.failures + 1, LOOKS_FOR_END)
                return Done("unfinished") if wait is None else Again("answer not finished", wait)
            case str(answer) if answer == NO_ANSWER:
                return Done("no_answer")
        return await self._count(event, ballot, lease)

    async def close(self) -> None:
        """End what is still being done beside the journeys."""
        await self.beside.close()

    async def surrender(self, lease: Lease, reason: str) -> Outcome:
        """Give the vote up after a fault of ours."""
        return GaveUp(reason)

    async def _count(self, event: Emoji | Feedback, ballot: Ballot, lease: Lease) -> Outcome:
        answer = event.about or str(ballot.question_answer_id)
        before = Standing.from_json(ballot.state, answer)
        now = before.opinion.fold(event)
        # Kapa knows no withdrawal: with no emoji left, the last vote stays.
        vote = now.vote(self.reactions) or before.told
        if vote is None and isinstance(event, Emoji) and event.is_on:
            # That it was taken away again arrived first: in order, it would have been the last vote.
            vote = policy.meaning(event.name, self.reactions)
        if vote is None or vote == before.told:
            return Done("unchanged", self._writes(event, ballot, Standing(now, before.told, answer)))
        try:
            await self._tell(lease, answer, event.person, vote, before.told)
        except KapaError as error:
            return self._failed(error, lease)
        log.info("vote_told", reaction=str(vote.reaction), reasons=sorted(map(str, vote.reasons)))
        if policy.is_worth_thanks(event, vote, before.told, self.clock()):
            self.beside.start(self._thank(replace(event, about=answer), vote))
        entry = VoteEntry(event.line, event.person, vote.reaction, tuple(sorted(vote.reasons))).to_json()
        return Done(vote.reaction, self._writes(event, ballot, Standing(now, vote, answer)), entry)

    async def _thank(self, event: Emoji | Feedback, vote: Vote) -> None:
        """Let the person know that Kapa has the vote; who voted down by an emoji may say why."""
        place = Place(event.team, event.channel, event.thread if isinstance(event, Feedback) else "")
        if not await self.thanks.try_acquire(event.line):
            return
        if not place.thread:
            place = replace(place, thread=await self.chat.thread_of(place, event.message))
        is_down = vote.reaction is Reaction.DOWNVOTE
        explains = (event.answer or event.message) if is_down and isinstance(event, Emoji) else ""
        says = self.messages.sorry if is_down and not vote.words else self.messages.thanks
        await self.chat.whisper(place, event.user, Whisper(says, explains, event.about))

    async def _tell(self, lease: Lease, answer: str, person: str, vote: Vote, told: Vote | None) -> None:
        who = lease.ticket.item.id
        had_comment = told is not None and bool(told.reasons or told.words)
        await self.breaker.admit(who)
        # Who was frozen past its lease would put an old vote over a newer one.
        await lease.confirm()
        async with self.breaker.watch(who):
            try:
                await self.kapa.upsert_feedback(answer, person, vote, clear_comment=had_comment)
            except KapaRefused as refused:
                if not (vote.reasons or vote.words or had_comment):
                    raise
                # Whether Kapa takes every comment is not documented: the vote itself must not be lost over one.
                log.warning("comment_refused", status=refused.status)
                await self.kapa.upsert_feedback(answer, person, Vote(vote.reaction))

    def _failed(self, error: KapaError, lease: Lease) -> Outcome:
        failures = lease.ticket.failures + 1
        if isinstance(error, CircuitOpenError):
            log.info("kapa_spared", failures=failures)
        else:
            log.warning("vote_failed", error=type(error).__name__, status=error.status, failures=failures)
        if isinstance(error, KapaRefused):
            return GaveUp(f"kapa: {error.reason}")
        asked_for = error.retry_after if isinstance(error, KapaUnavailable) else None
        wait = policy.patient_wait(failures, asked_for, self.jitter.random())
        return GaveUp(f"kapa: {error.reason}") if wait is None else Again("kapa unavailable", wait)

    def _writes(self, event: Emoji | Feedback, ballot: Ballot, standing: Standing) -> list[Write]:
        if standing.about != ballot.question_answer_id:
            # The message shows another answer by now, and what is remembered is about that.
            return []
        writes = self.store.vote(event.line, event.user, standing.to_json())
        # While Kapa was told, the message may have come to show another answer.
        writes.append(self.store.kept(event.line))
        if event.answer:
            writes.append(self.store.kept(f"{event.team}:{event.channel}:{event.message}"))
        return writes
