"""The journal: what was finished, kept for the operator's report, and bounded in number.

Entries are written by the inbox in the same atomic step that finishes an item, so nothing is counted twice.
What a report says of them lives in `report`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self, cast

from redis.asyncio import Redis

from bridge.inbox import JOURNAL, Kind


@dataclass(frozen=True, slots=True)
class _Entry:
    """What both kinds of entry have in common; `at` is in seconds since the epoch, set when it is read back."""

    at: float = field(default=0.0, kw_only=True)

    def to_json(self) -> str:
        """Give the form in which the entry is kept."""
        fields = asdict(self)
        del fields["at"]
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def read(cls, text: str, at: float) -> Self:
        """Read `to_json`'s form back."""
        fields: Mapping[str, Any] = json.loads(text)
        return cls(
            at=at, **{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        )


@dataclass(frozen=True, slots=True)
class QuestionEntry(_Entry):
    """A finished question: how it ended, after how many seconds, and the messages that reply to it."""

    result: str
    seconds: float
    is_uncertain: bool
    link: str
    messages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VoteEntry(_Entry):
    """A vote that Kapa was told: which message it is about, by whom, and why."""

    message: str
    person: str
    reaction: str
    reasons: tuple[str, ...]


async def read(redis: Redis, since: float) -> list[QuestionEntry | VoteEntry]:
    """Give all entries since a time (seconds since the epoch), oldest first; raises redis.RedisError."""
    found = cast("list[tuple[str, dict[str, str]]]", await redis.xrange(JOURNAL, min=str(int(since * 1000))))
    return [_read(int(id_.partition("-")[0]) / 1000, fields) for id_, fields in found]


def _read(at: float, fields: Mapping[str, str]) -> QuestionEntry | VoteEntry:
    kind = QuestionEntry if fields["kind"] == Kind.QUESTION else VoteEntry
    return kind.read(fields["entry"], at)
