"""The words that all floors share: what comes in, what is asked, what is answered, what was thought of it.

Plain immutable values without behaviour beyond their own (de)serialisation. No chat platform's field names
and no Kapa field names live here: `slack/read` and `kapa/wire` translate at the edges.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from json import JSONEncoder, loads
from typing import Any, Self


class Reaction(StrEnum):
    """What a person thought of an answer; the values are Kapa's own (`reaction` of a feedback upsert)."""

    UPVOTE = "upvote"
    DOWNVOTE = "downvote"


class Reason(StrEnum):
    """Why an answer was voted down; the values are the names of Kapa's three boolean comment fields."""

    INCORRECT = "incorrect"
    IRRELEVANT = "irrelevant"
    UNADDRESSED = "unaddressed"


@dataclass(frozen=True, slots=True)
class Message:
    """One message a person wrote in the chat, as far as the bridge cares about it.

    `text` is readable text without the bridge's own mention. `thread` is the id of the thread the message
    stands in, or None for a top-level message. `client_id` is the sending client's own id for this message,
    the same over every copy of it. `written_at` is in seconds since the epoch. Ids of messages sort by time.
    `user_team` is the team of a person of another company; a channel that `is_shared` has such people.
    """

    team: str
    channel: str
    id: str
    thread: str | None
    user: str
    text: str
    origin_url: str
    client_id: str | None = None
    is_direct: bool = False
    mentions_bridge: bool = False
    addresses_someone_else: bool = False
    written_at: float = 0.0
    user_team: str = ""
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class Edit:
    """A message whose text its author changed; `message` is as it is now, written when it was changed.

    `at` is the chat's own time of the change, and orders the changes of one message; `age` is how long after its
    first writing that was, in seconds.
    """

    message: Message
    at: str
    age: float


@dataclass(frozen=True, slots=True)
class Deletion:
    """A message that is gone. `at` is the chat's own time of that; `age` the message's then, in seconds."""

    team: str
    channel: str
    id: str
    thread: str | None
    user: str
    at: str
    age: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where the answer to a message belongs: a thread in a channel of a team."""

    team: str
    channel: str
    thread: str


@dataclass(frozen=True, slots=True)
class Question:
    """A message that is to be answered; an empty `text` asks for help on how to ask.

    `asked_at` is in seconds since the epoch. `user_team` and `is_shared` as for a message. `revision` is when the
    message was changed or deleted last, by the chat's clock; empty: it is as it was written. One that `is_deleted` but
    `is_there` was edited to be no question any more.
    """

    place: Place
    id: str
    user: str
    text: str
    origin_url: str
    asked_at: float = 0.0
    user_team: str = ""
    is_shared: bool = False
    revision: str = ""
    is_deleted: bool = False
    is_there: bool = False

    @property
    def line(self) -> str:
        """The conversation this question waits in: one at a time, in order."""
        return f"{self.place.team}:{self.place.channel}:{self.place.thread}"

    @property
    def person(self) -> str:
        """The asking person's identifier at Kapa: `slack:<team>:<user>`."""
        return f"slack:{self.place.team}:{self.user}"

    def to_json(self) -> str:
        """Give the form in which a question waits in the inbox."""
        return _written(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read `to_json`'s form back; raises ValueError, KeyError or TypeError on anything else."""
        fields = loads(text)
        return cls(place=Place(**fields.pop("place")), **fields)


@dataclass(frozen=True, slots=True)
class Emoji:
    """An emoji that a person put on, or took off, a message of the bridge.

    `at` is the chat's own time of the event and orders the events of one person, whatever order they arrive in.
    `answer` is the first message of the answer that `message` is a later part of; empty: it is none. `about` is the
    question_answer_id that the message showed by then; empty: it was not finished.
    """

    team: str
    channel: str
    message: str
    user: str
    name: str
    is_on: bool
    at: str
    answer: str = ""
    about: str = ""

    @property
    def line(self) -> str:
        """Votes on one answer are counted one at a time, on whichever of its messages they stand."""
        return f"{self.team}:{self.channel}:{self.answer or self.message}"

    @property
    def person(self) -> str:
        """The voting person's identifier at Kapa: `slack:<team>:<user>`."""
        return f"slack:{self.team}:{self.user}"

    def to_json(self) -> str:
        """Give the form in which a vote waits in the inbox."""
        return _written(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read `to_json`'s form back; raises ValueError, KeyError or TypeError on anything else."""
        return cls(**loads(text))


@dataclass(frozen=True, slots=True)
class Vote:
    """What one person thinks of one answer: a reaction, reasons for a downvote, and their own words."""

    reaction: Reaction
    reasons: frozenset[Reason] = frozenset()
    words: str = ""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a person said of an answer by a button, with reasons and words of their own if they gave any.

    `message`, `at`, `answer` and `about` as for an emoji; `thread` is the id of the thread that the message stands in.
    """

    team: str
    channel: str
    message: str
    user: str
    at: str
    reaction: Reaction
    reasons: tuple[Reason, ...] = ()
    words: str = ""
    thread: str = ""
    answer: str = ""
    about: str = ""

    @property
    def line(self) -> str:
        """Votes on one answer are counted one at a time, on whichever of its messages they were given."""
        return f"{self.team}:{self.channel}:{self.answer or self.message}"

    @property
    def person(self) -> str:
        """The voting person's identifier at Kapa: `slack:<team>:<user>`."""
        return f"slack:{self.team}:{self.user}"

    @property
    def vote(self) -> Vote:
        """What it comes to."""
        return Vote(self.reaction, frozenset(self.reasons), self.words)

    def to_json(self) -> str:
        """Give the form in which feedback waits in the inbox."""
        return _written(self)


def opinion_from_json(text: str) -> Emoji | Feedback:
    """Read an emoji's or a feedback's `to_json` back; raises ValueError, KeyError or TypeError on anything else."""
    fields = loads(text)
    if "name" in fields:
        return Emoji(**fields)
    reasons = tuple(map(Reason, fields.pop("reasons")))
    return Feedback(reaction=Reaction(fields.pop("reaction")), reasons=reasons, **fields)


@dataclass(frozen=True, slots=True)
class Whisper:
    """A sentence that only one person sees.

    `explains` is the message of an answer that they are asked to say more of, empty: they are asked nothing; `about`
    the question_answer_id that it showed.
    """

    text: str
    explains: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A page that an answer rests on. `is_internal` pages are not for people outside the company."""

    url: str
    title: str
    is_internal: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """One request for an answer: a new Kapa conversation, or the next turn of `thread_id`.

    `person` is the asking person's identifier, `origin_url` where they asked.
    """

    text: str
    person: str
    origin_url: str
    thread_id: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Kapa's whole answer to one query. `text` is CommonMark; feedback belongs to `question_answer_id`."""

    text: str
    thread_id: str
    question_answer_id: str
    is_uncertain: bool = False
    sources: tuple[Source, ...] = field(default=())

    def to_json(self) -> str:
        """Give the form in which an answer is remembered until it is shown."""
        return _written(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read `to_json`'s form back; raises ValueError, KeyError or TypeError on anything else."""
        fields = loads(text)
        sources = tuple(Source(**source) for source in fields.pop("sources"))
        return cls(sources=sources, **fields)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the bridge shows to a person. `text` is CommonMark; a draft is still growing; `note` stands at the end.

    A reply that can be voted on asks for it. Where it `is_shared`, people of another company read it too.
    """

    text: str
    sources: tuple[Source, ...] = ()
    is_draft: bool = False
    note: str = ""
    is_votable: bool = False
    is_shared: bool = False


def _written(value: object) -> str:
    return _encoder().encode(value)


@cache
def _encoder() -> JSONEncoder:
    # `json.dumps` would make one for every value.
    return JSONEncoder(default=_fields, ensure_ascii=False, separators=(",", ":"))


def _fields(value: Any) -> dict[str, Any]:
    # As `dataclasses.asdict`, which copies all that it finds, in a tenth of its time.
    return {name: getattr(value, name) for name in value.__slots__}
