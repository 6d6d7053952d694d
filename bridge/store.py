"""What the bridge remembers of finished work, so that people can carry on and vote.

    {bridge}:thread:<team>:<channel>:<thread>           Kapa's thread id; empty: accepted, not answered yet
    {bridge}:answer:<team>:<channel>:<message>          Kapa's question_answer_id; empty: not finished yet;
                                                        NO_ANSWER: a sentence of the bridge's own
    {bridge}:vote:<team>:<channel>:<message>:<user>     that person's emoji on that answer, and the vote Kapa has

All of them live for the contract's lifetime after their last use. They are written as part of the inbox's own atomic
steps: this module names and reads them. Unfinished work lives in `inbox`.
"""

from dataclasses import dataclass
from typing import Final, cast

from redis.asyncio import Redis

from bridge.inbox import TAG, Write, thread_key

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
        return Ballot(answer, state)

    def thread(self, line: str, kapa_thread: str) -> Write:
        """Remember that a chat thread's conversation goes on in `kapa_thread`."""
        return Write(thread_key(line), kapa_thread, self.ttl_seconds)

    def answer(self, message: str, question_answer_id: str) -> Write:
        """Remember that `message` shows the answer `question_answer_id` (empty: one not finished yet)."""
        return Write(_answer_key(message), question_answer_id, self.ttl_seconds)

    def vote(self, message: str, person: str, state: str) -> Write:
        """Remember what the vote of `person` on `message` left."""
        return Write(_vote_key(message, person), state, self.ttl_seconds)


def _answer_key(message: str) -> str:
    return f"{TAG}:answer:{message}"


def _vote_key(message: str, person: str) -> str:
    return f"{TAG}:vote:{message}:{person}"
