"""A rate limit that all workers share: a sliding window in Redis, on Redis' clock.

Who waits is served in the order of asking, but for a channel that asks for much: its later ones stand further behind,
so that they do not hold up another's. What is limited, and to how much, does not live here.

    {bridge}:rate:<name>:granted    sorted set of what was granted in the last window, by time (ms)
    {bridge}:rate:<name>:waiting    sorted set of who waits, by its turn: the time of asking (µs), and more
    {bridge}:rate:<name>:asked      sorted set of who waits, by the time of the last sign of life (ms)
    {bridge}:rate:<name>:paused     nothing is granted while it lives: the other side asked for a pause
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, cast

from redis.asyncio import Redis

from bridge.inbox import TAG

# Who gave no sign of life for so long has died waiting, and loses its place.
PATIENCE_SECONDS: Final = 10.0
ASK_AGAIN_SECONDS: Final = 2.0

# KEYS: granted, waiting, asked, paused   ARGV: limit, window ms, who, patience ms, share for who does not wait (or 0)
# Returns {granted, wait in ms, place in line}
_ACQUIRE = """
local function channel_of(name) return string.match(name, '^(.*):') or name end
local granted, waiting, asked, paused = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local limit, window, who, patience, share = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', granted, '-inf', now - window)
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', asked, '-inf', now - patience)) do
  redis.call('ZREM', waiting, dead)
  redis.call('ZREM', asked, dead)
end
if share == 0 then
  if not redis.call('ZSCORE', waiting, who) then
    local before = 0
    for _, other in ipairs(redis.call('ZRANGE', waiting, 0, -1)) do
      if channel_of(other) == channel_of(who) then before = before + 1 end
    end
    -- As if each channel had half of the limit: the turns of one that asks for more lie in the future.
    redis.call('ZADD', waiting, time[1] * 1000000 + time[2] + before * 2000 * window / limit, who)
  end
end
local used = redis.call('ZCARD', granted)
local pause = math.max(0, redis.call('PTTL', paused))
local place = share == 0 and redis.call('ZRANK', waiting, who) or 0
local free = limit - used
if share > 0 then free = share - used end
if pause == 0 and place < free then
  redis.call('ZADD', granted, now, who .. '|' .. time[1] .. '.' .. time[2] .. '|' .. used)
  redis.call('PEXPIRE', granted, window)
  redis.call('ZREM', waiting, who)
  redis.call('ZREM', asked, who)
  return {1, 0, 0}
end
if share > 0 then return {0, pause, 0} end
redis.call('ZADD', asked, now, who)
redis.call('PEXPIRE', waiting, patience)
redis.call('PEXPIRE', asked, patience)
local wait = 0
if place >= free then
  local leaves = redis.call('ZRANGE', granted, place - free, place - free, 'WITHSCORES')[2]
  wait = leaves and leaves + window - now or window
end
return {0, math.max(wait, pause), place + 1}
"""

# KEYS: paused   ARGV: ms   The longest pause that anyone was asked for holds.
_PAUSE = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], '', 'PX', ARGV[1]) end
"""


@dataclass(frozen=True, slots=True)
class Wait:
    """The limit is reached: about how long until it is one's turn, and one's place in line from 1."""

    seconds: float
    place: int


class RateLimit:
    """At most `limit` grants in any `window_seconds`, over everyone who uses the same name on the same Redis.

    Who waits and gives no sign of life for `patience_seconds` loses its place.
    """

    def __init__(
        self,
        redis: Redis,
        name: str,
        *,
        limit: int,
        window_seconds: float = 60,
        patience_seconds: float = PATIENCE_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.limit = limit
        self._window_ms = int(window_seconds * 1000)
        self._patience_ms = int(patience_seconds * 1000)
        self._keys = [f"{TAG}:rate:{name}:{part}" for part in ("granted", "waiting", "asked", "paused")]
        self._redis = redis
        self._acquire = redis.register_script(_ACQUIRE)
        self._pause = redis.register_script(_PAUSE)
        self._sleep = sleep

    async def acquire(self, who: str, on_wait: Callable[[Wait], None] = lambda _: None) -> None:
        """Return when `who` (`<channel>:<id>`) may go; raises redis.RedisError.

        `on_wait` hears of each wait on the way.
        """
        # Who is cancelled keeps its place for a while: another worker goes on for it, under the same name.
        while wait := await self._ask(who):
            on_wait(wait)
            await self._sleep(min(wait.seconds, ASK_AGAIN_SECONDS))

    async def try_acquire(self, who: str, *, share: float = 1) -> bool:
        """Say at once whether `who` may go, leaving all but `share` (0 to 1) of the limit to others."""
        return await self._ask(who, max(1, int(self.limit * share))) is None

    async def pause(self, seconds: float) -> None:
        """Grant nothing for so long: the other side asked for it. A longer pause that lasts is kept."""
        if seconds > 0:
            await self._pause(keys=self._keys[3:], args=[max(1, int(seconds * 1000))])

    async def _ask(self, who: str, share: int = 0) -> Wait | None:
        args: list[str | int] = [self.limit, self._window_ms, who, self._patience_ms, share]
        granted, wait_ms, place = cast("tuple[int, int, int]", await self._acquire(keys=self._keys, args=args))
        return None if granted else Wait(max(wait_ms, 1) / 1000, place)
