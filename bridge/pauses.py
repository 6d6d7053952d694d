"""Pauses that all workers keep: what the other side asked to be left alone for a while, in Redis, on Redis' clock.

What is paused, a scope, is a text that the user of this module chooses. How much may be asked at all lives in
`rate_limit`, and what is done about a pause in the journeys.

    {bridge}:paused:<name>    sorted set of the paused scopes, by the end of their pause (ms); it lives until the last
"""

from collections.abc import Sequence
from typing import cast

from redis.asyncio import Redis

from bridge.inbox import TAG

# KEYS: paused   ARGV: scopes   Returns how many ms the longest of their pauses still lasts.
_LEFT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local left = 0
for _, ends in ipairs(redis.call('ZMSCORE', KEYS[1], unpack(ARGV))) do
  if ends then left = math.max(left, ends - now) end
end
return left
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

    def __init__(self, redis: Redis, name: str) -> None:
        self._key = f"{TAG}:paused:{name}"
        self._left = redis.register_script(_LEFT)
        self._pause = redis.register_script(_PAUSE)

    async def left(self, scopes: Sequence[str]) -> float:
        """Give the seconds until none of `scopes`, one or more, is paused any longer; 0 when none is."""
        return cast("int", await self._left(keys=[self._key], args=scopes)) / 1000

    async def pause(self, scope: str, seconds: float) -> frozenset[str]:
        """Pause `scope` for so long, unless a longer pause lasts; return every scope that is paused now."""
        args: list[str | int] = [scope, max(1, int(seconds * 1000))]
        return frozenset(cast("list[str]", await self._pause(keys=[self._key], args=args)))
