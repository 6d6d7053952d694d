"""A vote's journey: what a person's emoji on an answer say, told to Kapa as a feedback upsert.

Which emoji mean what is a setting; how they are counted lives in `policy`.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from bridge import policy
from bridge.circuit_breaker import CircuitBreaker, CircuitOpenError
from bridge.inbox import Write
from bridge.journal import VoteEntry
from bridge.kapa.client import KapaClient
from bridge.kapa.wire import KapaError, KapaRefused, KapaUnavailable
from bridge.models import Emoji, Reaction, Reason, Vote
from bridge.policy import EmojiSet
from bridge.store import NO_ANSWER, Ballot, Store
from bridge.work import Again, Done, GaveUp, Lease, Outcome

# A message may be there before its id is remembered; one that stays unknown for some minutes is no answer.
LOOKS_FOR_ANSWER: Final = 8
# An answer may take a day to be finished while Slack is away.
LOOKS_FOR_END: Final = 1500

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Standing:
    """One person's emoji on one answer, and the vote that Kapa was told last."""

    emoji: EmojiSet = field(default_factory=lambda: EmojiSet({}))
    told: Vote | None = None

    def to_json(self) -> str:
        """Give the form in which the standing is remembered."""
        told = [self.told.reaction, sorted(self.told.reasons), self.told.words] if self.told else None
        return json.dumps([{name: list(shown) for name, shown in self.emoji.emoji.items()}, told])

    @classmethod
    def from_json(cls, text: str | None) -> "Standing":
        """Read `to_json`'s form back; None is an empty standing."""
        if text is None:
            return cls()
        emoji, told = json.loads(text)
        return cls(EmojiSet({name: (at, is_on) for name, (at, is_on) in emoji.items()}), _vote(told))


def _vote(told: list[Any] | None) -> Vote | None:
    if told is None:
        return None
    reaction, reasons, words = told
    return Vote(Reaction(reaction), frozenset(map(Reason, reasons)), words)


@dataclass(slots=True)
class Voting:
    """The journey, with all it needs. `reactions` says which emoji is which vote."""

    kapa: KapaClient
    breaker: CircuitBreaker
    store: Store
    reactions: Mapping[str, Vote]
    jitter: random.Random = field(default_factory=random.SystemRandom)

    async def run(self, lease: Lease) -> Outcome:
        """Count the ticket's emoji, as `work.Journey` wants it."""
        emoji = Emoji.from_json(lease.ticket.item.payload)
        structlog.contextvars.bind_contextvars(channel=emoji.channel, message=emoji.message)
        ballot = await self.store.ballot(emoji.line, emoji.user)
        match ballot.question_answer_id:
            case None:
                wait = policy.look_wait(lease.ticket.failures + 1, LOOKS_FOR_ANSWER)
                return Done("elsewhere") if wait is None else Again("answer not known yet", wait)
            case "":
                wait = policy.look_wait(lease.ticket.failures + 1, LOOKS_FOR_END)
                return Done("unfinished") if wait is None else Again("answer not finished", wait)
            case str(answer) if answer == NO_ANSWER:
                return Done("no_answer")
        return await self._count(emoji, ballot, lease)

    async def surrender(self, lease: Lease, reason: str) -> Outcome:
        """Give the vote up after a fault of ours."""
        return GaveUp(reason)

    async def _count(self, emoji: Emoji, ballot: Ballot, lease: Lease) -> Outcome:
        answer = str(ballot.question_answer_id)
        before = Standing.from_json(ballot.state)
        shown = before.emoji.fold(emoji)
        # Kapa knows no withdrawal: with no emoji left, the last vote stays.
        vote = shown.vote(self.reactions) or before.told
        if vote is None and emoji.is_on:
            # That it was taken away again arrived first: in order, it would have been the last vote.
            vote = policy.meaning(emoji.name, self.reactions)
        if vote is None or vote == before.told:
            return Done("unchanged", self._writes(emoji, answer, Standing(shown, before.told)))
        try:
            await self._tell(lease, answer, emoji.person, vote, before.told)
        except KapaError as error:
            return self._failed(error, lease)
        log.info("vote_told", reaction=str(vote.reaction), reasons=sorted(map(str, vote.reasons)))
        entry = VoteEntry(emoji.line, emoji.person, vote.reaction, tuple(sorted(vote.reasons))).to_json()
        return Done(vote.reaction, self._writes(emoji, answer, Standing(shown, vote)), entry)

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

    def _writes(self, emoji: Emoji, answer: str, standing: Standing) -> list[Write]:
        writes = [self.store.vote(emoji.line, emoji.user, standing.to_json()), self.store.answer(emoji.line, answer)]
        if emoji.answer:
            part = f"{emoji.team}:{emoji.channel}:{emoji.message}"
            writes.append(self.store.answer(part, answer, emoji.answer))
        return writes
