"""What the bridge does about what people write and how it goes on after a failure: every decision, and no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from bridge.models import Deletion, Edit, Emoji, Feedback, Message, Place, Question, Vote

# The waits after the first, second, … failure, in seconds, before jitter. After the last the bridge gives up.
QUESTION_WAITS: Final = (1.0, 3.0, 8.0, 20.0)
# A vote, and an answer that is only to be shown, have time: the last wait repeats, over more than two days.
PATIENT_WAITS: Final = (1.0, 5.0, 30.0, 120.0, 600.0)
PATIENT_FAILURES: Final = 300
# A vote that comes before its answer looks for it after so long; the last wait repeats.
LOOK_WAITS: Final = (2.0, 5.0, 15.0, 30.0, 60.0)
# A person waits this long for an answer at most; what asks for a longer pause is told to them instead.
LONGEST_WAIT_SECONDS: Final = 120.0
LONGEST_PAUSE_SECONDS: Final = 3600.0
# Those who wait for the same pause come back spread over as long again, and over so long at most.
SPREAD_SECONDS: Final = 5.0
# A question over which workers died so often would kill the next one too.
MOST_DEATHS: Final = 5
# A question that is edited later is left as it was answered.
EDITABLE_SECONDS: Final = 3600.0
# Thanks for a vote that Kapa was away for come no later.
THANKS_SECONDS: Final = 600.0
# Questions over which workers died are spread over so long for each death after the first.
APART_SECONDS: Final = 10.0


class Silence(StrEnum):
    """Why a message is not answered."""

    OTHER_CHANNEL = "other_channel"
    NOT_MENTIONED = "not_mentioned"
    SOMEONE_ELSE = "someone_else"
    NO_TEXT = "no_text"
    TOO_LATE = "too_late"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator set about which messages are answered. No `channels`: all of them."""

    only_mentions: bool = False
    channels: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to put into the inbox; `must_know_thread`: only if the bridge takes part in its thread already."""

    question: Question
    must_know_thread: bool


def consider(message: Message, rules: Rules) -> Ask | Silence:
    """Decide whether a message is a question for the bridge."""
    if not message.is_direct and rules.channels and message.channel not in rules.channels:
        return Silence.OTHER_CHANNEL
    if not message.text and not message.mentions_bridge:
        return Silence.NO_TEXT
    is_for_bridge = message.is_direct or message.mentions_bridge
    if message.addresses_someone_else and not is_for_bridge:
        return Silence.SOMEONE_ELSE
    if not is_for_bridge and message.thread is None and rules.only_mentions:
        return Silence.NOT_MENTIONED
    question = Question(
        place=Place(message.team, message.channel, message.thread or message.id),
        id=message.id,
        user=message.user,
        text=message.text,
        origin_url=message.origin_url,
        asked_at=message.written_at,
        user_team=message.user_team,
        is_shared=message.is_shared,
    )
    return Ask(question, must_know_thread=message.thread is not None and not is_for_bridge)


def reconsider(edit: Edit, rules: Rules) -> Question | Silence:
    """Decide whether an edited message is a question now; whether it was asked at all, the inbox knows."""
    decision = consider(edit.message, rules)
    if not isinstance(decision, Ask):
        return decision
    if edit.age > EDITABLE_SECONDS:
        return Silence.TOO_LATE
    return replace(decision.question, revision=edit.at)


def without(deletion: Deletion) -> Question:
    """Give the question that a deleted message was, so that its answer is taken along, or never given."""
    place = Place(deletion.team, deletion.channel, deletion.thread or deletion.id)
    return Question(
        place=place, id=deletion.id, user=deletion.user, text="", origin_url="", revision=deletion.at, is_deleted=True
    )


def no_longer(edit: Edit) -> Question:
    """Give the question that an edited message no longer is."""
    message = edit.message
    gone = Deletion(message.team, message.channel, message.id, message.thread, message.user, edit.at, edit.age)
    return replace(without(gone), is_there=True)


def place_mark(question: Question) -> str:
    """Name what all events about one message have in common."""
    return f"{question.place.team}:{question.place.channel}:{question.id}"


def marks(message: Message) -> list[str]:
    """Name what two events of one message have in common: its place and time, and its sender's own id for it."""
    found = [f"{message.team}:{message.channel}:{message.id}"]
    if message.client_id:
        found.append(f"{message.team}:{message.channel}:{message.user}:{message.client_id[:100]}")
    return found


def meaning(emoji: str, reactions: Mapping[str, Vote]) -> Vote | None:
    """Give the vote that an emoji stands for, whatever its skin tone and wherever it is; None: it is no vote."""
    return reactions.get(emoji.partition(" ")[0].partition("::")[0])


@dataclass(frozen=True, slots=True)
class Opinion:
    """One person's opinion of one answer: for each emoji its newest time (by the chat's clock) and whether it is there.

    `said` is the newest that was said by a button, which cannot be taken away, and its time. Folding events in is
    commutative and repeatable, so that neither their order nor a redelivery matters.
    """

    emoji: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    said: tuple[str, Vote] | None = None

    def fold(self, event: Emoji | Feedback) -> "Opinion":
        """Take an event in."""
        return self._fold_emoji(event) if isinstance(event, Emoji) else self._fold_feedback(event)

    def _fold_emoji(self, event: Emoji) -> "Opinion":
        # The same emoji on another message of the answer is another one.
        name = f"{event.name} {event.message}" if event.answer else event.name
        known = self.emoji.get(name)
        if known is not None and (_time(known[0]), known[1]) >= (_time(event.at), event.is_on):
            return self
        return replace(self, emoji={**self.emoji, name: (event.at, event.is_on)})

    def _fold_feedback(self, event: Feedback) -> "Opinion":
        said = (event.at, event.vote)
        return self if self.said is not None and _weight(self.said) >= _weight(said) else replace(self, said=said)

    def vote(self, reactions: Mapping[str, Vote]) -> Vote | None:
        """Give the vote of the newest emoji that is there, or of what was said later; None: there is none."""
        there = [
            (_time(at), name, vote)
            for name, (at, is_on) in self.emoji.items()
            if is_on and (vote := meaning(name, reactions)) is not None
        ]
        said = self.said[1] if self.said else None
        if self.said is not None:
            # A modal's reasons have the time of the click that opened it, and belong to that.
            there.append((_time(self.said[0]), "", self.said[1]))
        newest = max(there, key=lambda one: one[:2])[2] if there else None
        # A bare emoji that says the same again takes nothing back of what was said in words.
        is_repeated = newest is not None and said is not None and newest == Vote(said.reaction)
        return said if is_repeated else newest


def _weight(said: tuple[str, Vote]) -> tuple[tuple[int, str], bool, str, list[str], str]:
    """Order what was said by its time, and at the same time reasons after the bare vote."""
    at, vote = said
    return _time(at), bool(vote.reasons or vote.words), vote.reaction, sorted(vote.reasons), vote.words


def is_worth_thanks(event: Emoji | Feedback, vote: Vote, told: Vote | None, now: float) -> bool:
    """Say whether a vote is news to thank for at `now` (seconds since the epoch): late thanks puzzle, many annoy."""
    if isinstance(event, Feedback) and (event.words or event.reasons):
        # Its time is that of the click before the writing, which may take long.
        return True
    is_news = isinstance(event, Feedback) or told is None or told.reaction is not vote.reaction
    return is_news and now - _time(event.at)[0] <= THANKS_SECONDS


def _time(ts: str) -> tuple[int, str]:
    seconds, _, fraction = ts.partition(".")
    return int(seconds or 0), fraction


def question_wait(failures: int, asked_for: float | None, jitter: float) -> float | None:
    """Say how long to wait after so many failures before a question is tried again; None: give up.

    `asked_for` is the pause the other side asked for, in seconds; `jitter` is random, from 0 to 1.
    """
    if failures > len(QUESTION_WAITS) or (asked_for or 0) > LONGEST_WAIT_SECONDS:
        return None
    return max(_jittered(QUESTION_WAITS[failures - 1], jitter), asked_for or 0)


def circuit_wait(failures: int, pause: float, jitter: float) -> float | None:
    """Say how long a question waits that was not asked, since Kapa is out; None: give up.

    `pause` is in how many seconds Kapa will be tried next. That attempt is waited for after the schedule's end too.
    """
    if failures > len(QUESTION_WAITS) + 1:
        return None
    scheduled = _jittered(QUESTION_WAITS[min(failures, len(QUESTION_WAITS)) - 1], jitter)
    return max(scheduled, min(after_pause(pause, jitter), LONGEST_WAIT_SECONDS))


def after_pause(seconds: float, jitter: float) -> float:
    """Say how long to wait for the end of a pause that others wait for too; `jitter` is random, from 0 to 1."""
    return seconds + jitter * min(seconds, SPREAD_SECONDS)


def apart_wait(deaths: int, jitter: float) -> float:
    """Say how long a question waits over which workers died, so that others that died with it go on without it."""
    return jitter * APART_SECONDS * max(0, deaths - 1)


def patient_wait(failures: int, asked_for: float | None, jitter: float) -> float | None:
    """Say how long to wait before what nobody waits for, or what is only to be shown, is tried again.

    Parameters and result as for `question_wait`; the schedule outlasts an outage of two days.
    """
    if failures > PATIENT_FAILURES:
        return None
    scheduled = _jittered(PATIENT_WAITS[min(failures, len(PATIENT_WAITS)) - 1], jitter)
    return max(scheduled, min(asked_for or 0, LONGEST_PAUSE_SECONDS))


def look_wait(failures: int, most: int) -> float | None:
    """Say how long a vote waits before it looks for its answer once more; None: it has looked `most` times."""
    return None if failures > most else LOOK_WAITS[min(failures, len(LOOK_WAITS)) - 1]


def _jittered(seconds: float, jitter: float) -> float:
    return seconds * (0.75 + jitter / 2)
