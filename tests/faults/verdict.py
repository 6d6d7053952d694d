"""What was promised, held against what a cell left behind. Pure: `lane` gathers the evidence."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bridge.inbox import TAG
from bridge.playground.kapa import Asked
from bridge.playground.serving import Json
from bridge.store import NO_ANSWER
from tests.faults.gate import KAPA, Passage

# What may be left in Redis once all work is done: memories and marks, and windows of rate limits.
_KEPT = re.compile(
    re.escape(TAG) + r":(thread|answer|voted?|seen|rate|journal|dead|circuit|paused|probe|streams|unstreamable)\b.*"
)


@dataclass(frozen=True, slots=True)
class Expected:
    """How one question must end: as `parts` messages with Kapa's answer, or with one of the sentences."""

    text: str
    line: str
    parts: int = 1
    sentences: tuple[str, ...] = ()
    is_dead: bool = False


@dataclass(frozen=True, slots=True)
class ExpectedVote:
    """How a person's vote must stand at Kapa: the upsert's `reaction` and `comment`, on the `number`-th answer."""

    number: int
    person: str
    reaction: str
    comment: Json | None


@dataclass(slots=True)
class Evidence:
    """What a cell left behind.

    `replies` are the visible messages of the bridge as (ts, Markdown), oldest first; `redis` has every key with its
    value, `work` what is still to be done; `answers` the text that Kapa gave for each question_answer_id. `woken` says
    when frozen workers were woken, and how many.
    """

    questions: Sequence[Expected]
    votes: Sequence[ExpectedVote]
    replies: Sequence[tuple[str, str]]
    redis: Mapping[str, str]
    work: Sequence[str]
    dead: Sequence[str]
    asked: Sequence[Asked]
    answers: Mapping[str, str]
    feedback: Mapping[tuple[str, str], Json]
    upserts: int
    passages: Sequence[Passage]
    deaths: Sequence[int]
    woken: tuple[int, int] = (0, 0)
    unfinished: str = ""


def verdict(evidence: Evidence) -> list[str]:
    """Say which promises were broken, a sentence each; empty: none."""
    broken = [evidence.unfinished] if evidence.unfinished else []
    broken += [f"work is left: {what}" for what in evidence.work]
    broken += [f"left in Redis: {key}" for key in evidence.redis if not _KEPT.fullmatch(key)]
    dead = sum(question.is_dead for question in evidence.questions)
    if len(evidence.dead) != dead:
        broken.append(f"{dead} dead letters were expected: {list(evidence.dead)}")
    shown = list(_shown(evidence))
    wanted = sum(question.parts for question in evidence.questions)
    if len(evidence.replies) != wanted:
        broken.append(f"{wanted} visible messages were expected, there are {[text for _, text in evidence.replies]}")
        return broken
    for question, messages in shown:
        broken += _question(evidence, question, messages)
    broken += _votes(evidence, [messages for _, messages in shown])
    return broken


def _shown(evidence: Evidence) -> Iterator[tuple[Expected, Sequence[tuple[str, str]]]]:
    at = 0
    for question in evidence.questions:
        yield question, evidence.replies[at : at + question.parts]
        at += question.parts


def _question(evidence: Evidence, question: Expected, messages: Sequence[tuple[str, str]]) -> Iterator[str]:
    text = "\n\n".join(markdown for _, markdown in messages)
    asked = [one for one in evidence.asked if one.query == question.text]
    if question.sentences:
        if text not in question.sentences:
            yield f"the sentence was expected: {text!r}"
        yield from _mapping(evidence, question, messages, NO_ANSWER, None)
        return
    found = next((one for one in asked if _same(evidence.answers.get(one.question_answer_id, ""), text)), None)
    if found is None:
        yield f"this is not Kapa's answer to {question.text!r}: {text[-200:]!r}"
        return
    yield from _mapping(evidence, question, messages, found.question_answer_id, found.thread_id)
    yield from _asked_enough(evidence, question, asked)


def _same(answer: str, shown: str) -> bool:
    """Compare without the white space that is lost where an answer is divided into messages."""
    return answer.split() == shown.split()


def _mapping(
    evidence: Evidence, question: Expected, messages: Sequence[tuple[str, str]], answer: str, thread: str | None
) -> Iterator[str]:
    if thread is not None and (found := evidence.redis.get(f"{TAG}:thread:{question.line}")) != thread:
        yield f"the thread is mapped to {found!r} instead of {thread!r}"
    place = question.line.rpartition(":")[0]
    for number, (ts, _) in enumerate(messages):
        wanted = f"{answer} {messages[0][0]}" if number else answer
        if (found := evidence.redis.get(f"{TAG}:answer:{place}:{ts}")) != wanted:
            yield f"message {number} of {question.text!r} is mapped to {found!r} instead of {wanted!r}"


def _asked_enough(evidence: Evidence, question: Expected, asked: Sequence[Asked]) -> Iterator[str]:
    """Kapa is asked once more for each death or failed call, and never once its answer was stored or shown."""
    chats = [one for one in evidence.passages if one.call.seam == KAPA and "chat" in one.call.label]
    mine = [one for one in chats if json.dumps(question.text).encode() in one.request]
    # Who was frozen between its last look at its lease and the sending sends when it wakes: that cannot be helped.
    woken_at, woken = evidence.woken
    pardoned = [one for one in mine if one.asked_at > woken_at][:woken]
    mine = [one for one in mine if one not in pardoned]
    known = _known_at(evidence, asked)
    if known is not None and (late := [one for one in mine if one.asked_at > known]):
        yield f"Kapa was asked again once its answer was known: {', '.join(str(one.call) for one in late)}"
    last = known if known is not None else 1 << 62
    deaths = sum(_taken_at(evidence, mine) < at < last for at in evidence.deaths)
    # A call that a death cut off is that death's, not one failed besides.
    failed = sum(not one.is_whole and not _died_in(one, evidence.deaths) for one in mine)
    if len(mine) > 1 + deaths + failed:
        yield f"Kapa was asked {len(mine)} times for {deaths} deaths and {failed} failed calls"


def _taken_at(evidence: Evidence, chats: Sequence[Passage]) -> int:
    """Say when the ticket was taken that the first of `chats` was for; 0: it did not pass the gate.

    A chat that was on its way when its worker died comes to the gate after that death.
    """
    first = chats[0].asked_at if chats else 0
    takes = [one.asked_at for one in evidence.passages if one.call.label in {"XREADGROUP", "XAUTOCLAIM"}]
    return max((at for at in takes if at < first), default=0)


def _died_in(chat: Passage, deaths: Sequence[int]) -> bool:
    return any(at > chat.asked_at for at in deaths)


def _known_at(evidence: Evidence, asked: Sequence[Asked]) -> int | None:
    """Say when an answer was first stored in Redis, or shown whole in Slack."""
    ids = [one.question_answer_id.encode() for one in asked]
    times = [
        one.acted_at
        for one in evidence.passages
        if one.call.seam != KAPA and one.acted_at is not None and any(id_ in one.request for id_ in ids)
    ]
    return min(times, default=None)


def _votes(evidence: Evidence, shown: Sequence[Sequence[tuple[str, str]]]) -> Iterator[str]:
    wanted = {}
    for vote in evidence.votes:
        ts = shown[vote.number][0][0]
        place = evidence.questions[vote.number].line.rpartition(":")[0]
        answer = evidence.redis.get(f"{TAG}:answer:{place}:{ts}", "")
        body: Json = {"question_answer": answer, "reaction": vote.reaction, "user_identifier": vote.person}
        wanted[answer, vote.person] = body if vote.comment is None else body | {"comment": vote.comment}
        state = evidence.redis.get(f"{TAG}:vote:{place}:{ts}:{vote.person.rpartition(':')[2]}")
        if state is None or (json.loads(state)[1] or [None])[0] != vote.reaction:
            yield f"the vote is remembered as {state!r}"
    if dict(evidence.feedback) != wanted:
        yield f"Kapa has the feedback {dict(evidence.feedback)} instead of {wanted}"
