"""Judges what came of a storm: what was promised to whoever got an acknowledgement, and whether it was kept.

Pure: all evidence is gathered by `conductor`. Times are Unix seconds.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

MINUTE = 60.0
# A request that is cut off is gone for Kapa a moment after it is for the bridge.
CUT_OFF_SECONDS = 1.0
# Who is woken may send what stood right behind its last look at the lease.
WAKING_SECONDS = 1.0
MEANING = {"+1": "upvote", "-1": "downvote"}


@dataclass(frozen=True, slots=True)
class Said:
    """A person's message. `acknowledged` is when Slack first had its 200 for it; None: never."""

    ts: str
    thread: str
    query: str
    at: float
    acknowledged: float | None


@dataclass(frozen=True, slots=True)
class Shown:
    """A message of the bridge that stands in Slack at the end.

    `question` is the ts of the message that its metadata names. For an answer of Kapa's, `answer` is the id and
    `query` the question that its text names; both are empty for a sentence of the bridge's own.
    """

    ts: str
    thread: str
    question: str
    part: int
    answer: str
    query: str
    is_finished: bool
    finished: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat request that Kapa accepted; `ended` is None while it is being answered."""

    query: str
    kapa_thread: str
    is_follow_up: bool
    answer: str
    at: float
    ended: float | None


@dataclass(frozen=True, slots=True)
class Emoji:
    """An emoji that came or went; `at` is Slack's time of the event, which sorts as text."""

    message: str
    user: str
    name: str
    is_on: bool
    at: str
    is_acknowledged: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known at the end of a storm.

    `taken_over` are the questions (by ts) that a worker took over from another, and when; `stopped` when a process was
    killed or told to stop, `woken` when a frozen one was woken. `feedback` is what Kapa was told, by answer and person;
    `remembered` which answer the bridge's memory gives to a message of its own. `faults` are other things that must
    not be, in words. `asked_in_vain` counts Kapa's own faults on requests that it accepted.
    """

    said: Sequence[Said]
    shown: Sequence[Shown]
    asked: Sequence[Asked]
    emoji: Sequence[Emoji] = ()
    feedback: Mapping[tuple[str, str], str] = field(default_factory=dict)
    remembered: Mapping[str, str | None] = field(default_factory=dict)
    taken_over: Sequence[tuple[str, float]] = ()
    stopped: Sequence[float] = ()
    woken: Sequence[float] = ()
    kills: int = 0
    asked_in_vain: int = 0
    per_minute: int = 0
    faults: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The figures of a storm, and every promise that was broken, in words."""

    accepted: int
    answered_once: int
    told_why_not: int
    twice: int
    lost: int
    longest_wait: float
    kills: int
    asked_again: int
    pairs_in_order: int
    votes: int
    busiest_minute: int
    broken: Sequence[str]

    def line(self) -> str:
        """Give the figures on one line."""
        return (
            f"questions accepted {self.accepted}, answered once {self.answered_once}, told why not "
            f"{self.told_why_not}, answered twice {self.twice}, lost {self.lost}, longest wait "
            f"{self.longest_wait:.1f} s, kills {self.kills}, Kapa asked more often than needed {self.asked_again}, "
            f"pairs in order {self.pairs_in_order}, votes {self.votes}, Kapa's busiest minute {self.busiest_minute}, "
            f"promises broken {len(self.broken)}"
        )


def judge(evidence: Evidence) -> Verdict:
    """Compare what came with what was promised."""
    replies = _replies(evidence)
    promised = _promised(evidence.said)
    lost = [one for one in promised if not any(shown.is_finished for shown in replies[one.ts])]
    twice = [one for one in evidence.said if len(replies[one.ts]) > 1]
    first = {one.ts: replies[one.ts][0] for one in evidence.said if replies[one.ts]}
    waits = [first[one.ts].finished - one.at for one in promised if one.ts in first]
    queries = {ask.query for ask in evidence.asked}
    pairs, out_of_order = _order(evidence.said, first)
    broken = [
        *(f"lost: {one.query}" for one in lost),
        *(f"answered {len(replies[one.ts])} times: {one.query}" for one in twice),
        *out_of_order,
        *_mapping(evidence, first),
        *_conversations(evidence, first),
        *_side_by_side(evidence),
        *_asked_after_the_answer(evidence, first),
        *_votes(evidence, first),
        *_budget(evidence),
        *evidence.faults,
    ]
    return Verdict(
        accepted=len(promised),
        answered_once=sum(1 for one in promised if len(replies[one.ts]) == 1 and replies[one.ts][0].answer),
        told_why_not=sum(1 for one in promised if len(replies[one.ts]) == 1 and not replies[one.ts][0].answer),
        twice=len(twice),
        lost=len(lost),
        longest_wait=max(waits, default=0.0),
        kills=evidence.kills,
        asked_again=len(evidence.asked) - len(queries) - evidence.asked_in_vain,
        pairs_in_order=pairs,
        votes=len(evidence.feedback),
        busiest_minute=_busiest(evidence.asked),
        broken=broken,
    )


def _replies(evidence: Evidence) -> dict[str, list[Shown]]:
    """Give the first messages of all replies to each question."""
    replies: defaultdict[str, list[Shown]] = defaultdict(list)
    for shown in sorted(evidence.shown, key=lambda shown: shown.ts):
        if shown.part == 0:
            replies[shown.question].append(shown)
    return replies


def _promised(said: Sequence[Said]) -> list[Said]:
    """Give the messages that Slack was told are in good hands; a reply's thread must be the bridge's own as well."""
    acknowledged = [one for one in said if one.acknowledged is not None]
    begun = {one.ts for one in acknowledged}
    return [one for one in acknowledged if one.thread in begun]


def _order(said: Sequence[Said], first: Mapping[str, Shown]) -> tuple[int, list[str]]:
    """Compare each message with those of its thread that were written when it was acknowledged already."""
    threads: defaultdict[str, list[Said]] = defaultdict(list)
    for one in sorted(said, key=lambda one: one.ts):
        threads[one.thread].append(one)
    pairs = [
        (before, after)
        for thread in threads.values()
        for before, after in combinations([one for one in thread if one.ts in first], 2)
        if before.acknowledged is not None and before.acknowledged < after.at
    ]
    return len(pairs), [
        f"out of order: {after.query} before {before.query}"
        for before, after in pairs
        if first[after.ts].ts < first[before.ts].ts
    ]


def _mapping(evidence: Evidence, first: Mapping[str, Shown]) -> Iterator[str]:
    said = {one.ts: one for one in evidence.said}
    for shown in evidence.shown:
        question = said.get(shown.question)
        if question is None or shown.thread != question.thread:
            yield f"a message that belongs to nothing: {shown}"
        elif not shown.is_finished:
            yield f"never finished: {question.query}"
        elif shown.answer and shown.query != question.query:
            yield f"{question.query} got the answer to {shown.query}"
    for ts, shown in first.items():
        expected = shown.answer or "-"
        if shown.ts in evidence.remembered and evidence.remembered[shown.ts] != expected:
            yield f"{ts}: shown is {expected}, remembered {evidence.remembered[shown.ts]}"


def _conversations(evidence: Evidence, first: Mapping[str, Shown]) -> Iterator[str]:
    """From the first answer of a thread on, everything is asked in the Kapa thread of that answer."""
    by_answer = {ask.answer: ask for ask in evidence.asked}
    by_query: defaultdict[str, list[Asked]] = defaultdict(list)
    for ask in evidence.asked:
        by_query[ask.query].append(ask)
    kapa_threads: dict[str, str] = {}
    for one in sorted(evidence.said, key=lambda one: first[one.ts].ts if one.ts in first else "9"):
        own = kapa_threads.get(one.thread)
        if own is not None and (strange := [ask for ask in by_query[one.query] if ask.kapa_thread != own]):
            yield f"{one.query} was asked in another Kapa thread: {strange[0]}"
        shown = first.get(one.ts)
        if shown is not None and shown.answer:
            if shown.answer not in by_answer:
                yield f"{one.query} shows an answer that Kapa never gave"
            else:
                kapa_threads.setdefault(one.thread, by_answer[shown.answer].kapa_thread)


def _side_by_side(evidence: Evidence) -> Iterator[str]:
    """Two requests of one conversation run at once only where the earlier one's worker was dead or frozen."""
    said = {one.query: one for one in evidence.said}
    threads: defaultdict[str, list[Asked]] = defaultdict(list)
    for ask in sorted(evidence.asked, key=lambda ask: ask.at):
        threads[said[ask.query].thread].append(ask)
    for earlier, later in (pair for asks in threads.values() for pair in pairwise(asks)):
        ended = earlier.ended if earlier.ended is not None else float("inf")
        was_taken_over = any(
            question == said[earlier.query].ts and earlier.at <= at <= later.at for question, at in evidence.taken_over
        )
        was_cut_off = ended - later.at < CUT_OFF_SECONDS and _any_within(evidence.stopped, earlier.at, later.at)
        if later.at < ended and not was_taken_over and not was_cut_off:
            yield f"asked while {earlier.query} was being answered: {later.query}"


def _asked_after_the_answer(evidence: Evidence, first: Mapping[str, Shown]) -> Iterator[str]:
    said = {one.query: one for one in evidence.said}
    for ask in evidence.asked:
        shown = first.get(said[ask.query].ts)
        is_late = shown is not None and shown.is_finished and shown.answer and ask.at > shown.finished
        if is_late and not _any_within(evidence.woken, ask.at - WAKING_SECONDS, ask.at):
            yield f"asked again though it was answered: {ask.query}"


def _any_within(times: Iterable[float], start: float, end: float) -> bool:
    return any(start <= time <= end for time in times)


def _votes(evidence: Evidence, first: Mapping[str, Shown]) -> Iterator[str]:
    """Kapa has each person's newest emoji that is there; where none is left, any vote that there was, or none."""
    events: defaultdict[tuple[str, str], list[Emoji]] = defaultdict(list)
    for emoji in evidence.emoji:
        events[emoji.message, emoji.user].append(emoji)
    answers = {shown.ts: shown.answer for shown in first.values()}
    expected = {(answers[message], user): fold(shown) for (message, user), shown in events.items()}
    for key, told in evidence.feedback.items():
        if told not in expected.get(key, set()):
            yield f"Kapa was told {told} by {key[1]}, not {expected.get(key)}"
    for key, possible in expected.items():
        if key not in evidence.feedback and None not in possible:
            yield f"Kapa was not told {possible} by {key[1]}"


def fold(events: Sequence[Emoji]) -> set[str | None]:
    """Give what Kapa may have of one person's emoji on one answer; None: nothing."""
    ever = {MEANING[event.name] for event in events if event.is_on}
    if not all(event.is_acknowledged for event in events):
        return {*ever, None}
    there: dict[str, str] = {}
    for event in sorted(events, key=lambda event: event.at):
        there.pop(event.name, None)
        if event.is_on:
            there[event.name] = event.at
    return {MEANING[list(there)[-1]]} if there else {*ever, None}


def _budget(evidence: Evidence) -> Iterator[str]:
    if evidence.per_minute and (busiest := _busiest(evidence.asked)) > evidence.per_minute:
        yield f"Kapa was asked {busiest} times in a minute"


def _busiest(asked: Sequence[Asked]) -> int:
    times = sorted(ask.at for ask in asked)
    return max((bisect_left(times, at + MINUTE) - number for number, at in enumerate(times)), default=0)
