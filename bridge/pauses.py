"""Pauses that all workers keep: what the other side asked to be left alone for a while, in Redis, on Redis' clock.

What is paused, a scope, is a text that the user of this module chooses. How much may be asked at all lives in
`rate_limit`, and what is done about a pause in the journeys.

    {bridge}:paused:<name>    sorted set of the paused scopes, by the end of their pause (ms); it lives until the last
"""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, cast

from redis.asyncio import Redis

from bridge.inbox import TAG

# What another worker is asked is heard of so late at most. A call that is on its way by then is as late.
FRESH_SECONDS: Final = 0.02

# KEYS: paused   Returns scope, ms that its pause still lasts, …
_PAUSED = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 2, #found, 2 do found[i] = found[i] - now end
return found
"""

# KEYS: paused   ARGV: scope, ms   A longer pause that lasts is kept. Returns all scopes that are paused.
_PAUSE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], 'GT', now + ARGV[2], ARGV[1])
redis.call('PEXPIREAT', KEYS[1], redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2])
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""


class Pauses:
    """The pauses of everyone who uses the same name on the same Redis. Every method raises redis.RedisError."""

    def __init__(self, redis: Redis, name: str, clock: Callable[[], float] = monotonic) -> None:
        self._key = f"{TAG}:paused:{name}"
        self._clock = clock
        self._paused = redis.register_script(_PAUSED)
        self._pause = redis.register_script(_PAUSE)
        # When each pause ends, by this process' clock, and until when that is fresh. What is read while a pause is made
        # may be from before it.
        self._ends: dict[str, float] = {}
        self._fresh_until = 0.0
        self._made = 0

    async def left(self, scopes: Sequence[str]) -> float:
        """Give the seconds until none of `scopes`, one or more, is paused any longer; 0 when none is."""
        await self.refresh()
        now = self._clock()
        return max(0.0, *(self._ends.get(scope, now) - now for scope in scopes))

    async def refresh(self) -> None:
        """Learn what is paused, where that was learned more than FRESH_SECONDS ago."""
        asked_at = self._clock()
        if asked_at < self._fresh_until:
            return
        made = self._made
        found = cast("list[str | int]", await self._paused(keys=[self._key]))
        now = self._clock()
        self._ends = {str(scope): now + int(ms) / 1000 for scope, ms in zip(found[::2], found[1::2], strict=True)}
        self._fresh_until = asked_at + FRESH_SECONDS if made == self._made else 0.0

    async def pause(self, scope: str, seconds: float) -> frozenset[str]:
        """Pause `scope` for so long, unless a longer pause lasts; return every scope that is paused now."""
        args: list[str | int] = [scope, max(1, int(seconds * 1000))]
        try:
            return frozenset(cast("list[str]", await self._pause(keys=[self._key], args=args)))
        finally:
            self._made += 1
            self._fresh_until = 0.0
