"""What the bridge remembers of finished work, so that people can carry on and vote.

    {bridge}:thread:<team>:<channel>:<thread>           Kapa's thread id; empty: accepted, not answered yet
    {bridge}:answer:<team>:<channel>:<message>          Kapa's question_answer_id; empty: not finished yet;
                                                        NO_ANSWER: a sentence of the bridge's own. In the later
                                                        messages of an answer, a space and its first one follow
    {bridge}:vote:<team>:<channel>:<message>:<user>     what that person thinks of that answer, and the vote Kapa has
    {bridge}:voted:<team>:<channel>:<message>           somebody has voted on that answer

All of them live for the contract's lifetime after their last use. They are written as part of the inbox's own atomic
steps: this module names and reads them. Unfinished work lives in `inbox`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from redis.asyncio import Redis

from bridge.inbox import TAG, Kind, Write, line_key, thread_key
from bridge.models import Place

NO_ANSWER: Final = "-"


@dataclass(frozen=True, slots=True)
class Ballot:
    """What is known about one person's vote on one message of the bridge.

    `question_answer_id` is None when the message is not known, NO_ANSWER when it is none, and empty while the answer
    is not finished.
    `state` is what the last vote left, in the feedback journey's own form.
    """

    question_answer_id: str | None
    state: str | None


class Store:
    """The memory in one Redis; `ttl_seconds` is how long each thing is remembered after its last use.

    Every read raises redis.RedisError when Redis cannot be reached.
    """

    def __init__(self, redis: Redis, *, ttl_seconds: int) -> None:
        self._redis = redis
        self.ttl_seconds = ttl_seconds

    async def kapa_thread(self, line: str) -> str | None:
        """Give the Kapa thread that a chat thread's conversation goes on in, or None."""
        return cast("str | None", await self._redis.get(thread_key(line))) or None

    async def ballot(self, message: str, person: str) -> Ballot:
        """Give what is known about the vote of `person` on `message` (`<team>:<channel>:<message>`)."""
        keys = [_answer_key(message), _vote_key(message, person)]
        answer, state = cast("list[str | None]", await self._redis.mget(keys))
        return Ballot(None if answer is None else answer.partition(" ")[0], state)

    async def is_known(self, message: str) -> bool:
        """Say whether `message` is remembered as one of an answer, finished or not."""
        return bool(await self._redis.exists(_answer_key(message)))

    async def is_voted(self, message: str) -> bool:
        """Say whether somebody has voted on the answer whose first message is `message`, told or still to be told."""
        return bool(await self._redis.exists(_voted_key(message), line_key(Kind.VOTE, message)))

    async def shown(self, message: str) -> tuple[str, str]:
        """Give the question_answer_id of the finished answer that `message` shows, and that answer's first message.

        The first is empty where there is none, or none yet; the second where `message` is itself the first.
        """
        value = cast("str | None", await self._redis.get(_answer_key(message)))
        answer, _, first = (value or "").partition(" ")
        return "" if answer == NO_ANSWER else answer, first

    def thread(self, line: str, kapa_thread: str) -> Write:
        """Remember that a chat thread's conversation goes on in `kapa_thread`."""
        return Write(thread_key(line), kapa_thread, self.ttl_seconds)

    def answer(self, message: str, question_answer_id: str, first: str = "") -> Write:
        """Remember that `message` shows the answer `question_answer_id` (empty: one not finished yet).

        `first` is the answer's first message, where this is a later one.
        """
        value = f"{question_answer_id} {first}" if first else question_answer_id
        return Write(_answer_key(message), value, self.ttl_seconds)

    def kept(self, message: str) -> Write:
        """Remember for longer which answer `message` shows, whichever it is by now."""
        return Write(_answer_key(message), "", self.ttl_seconds, is_kept=True)

    def parts(self, place: Place, messages: Sequence[str], question_answer_id: str) -> list[Write]:
        """Remember which messages show an answer, in their order."""
        return [
            self.answer(message_key(place, message), question_answer_id, messages[0] if number else "")
            for number, message in enumerate(messages)
        ]

    def vote(self, message: str, person: str, state: str) -> list[Write]:
        """Remember what the vote of `person` on `message` left."""
        return [
            Write(_vote_key(message, person), state, self.ttl_seconds),
            Write(_voted_key(message), "", self.ttl_seconds),
        ]


def message_key(place: Place, message: str) -> str:
    """Name a message of the bridge: `<team>:<channel>:<message>`."""
    return f"{place.team}:{place.channel}:{message}"


def _answer_key(message: str) -> str:
    return f"{TAG}:answer:{message}"


def _voted_key(message: str) -> str:
    return f"{TAG}:voted:{message}"


def _vote_key(message: str, person: str) -> str:
    return f"{TAG}:vote:{message}:{person}"
