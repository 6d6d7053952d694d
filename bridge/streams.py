"""The messages that grow by the chat's own means: how many there may be, and where the chat shows none.

Starting and stopping one is what the chat limits most, so a stream takes a place from its start until a minute after
its end: who was let start may then stop, and neither is called more than `limit` times in a minute. How messages are
shown lives in `display`.

    {bridge}:streams:<team>             sorted set of streams by the time until which they take a place (ms)
    {bridge}:unstreamable:<scope>       the chat refuses streams in this team, or in this channel of it
"""

from typing import Final, cast

from redis.asyncio import Redis

from bridge.chat import Extent
from bridge.inbox import TAG
from bridge.models import Place

# A call that was granted reaches the chat a little later.
WINDOW_SECONDS: Final = 61.0
# The chat ends a stream by itself after some five minutes: one that died with its worker needs its place no longer.
LONGEST_SECONDS: Final = 360.0
# Whoever runs the bridge may allow it meanwhile.
REFUSED_SECONDS: Final = 86_400
# A refusal that nobody knows may mean this one message, or all.
UNKNOWN_SECONDS: Final = 600

# KEYS: streams, unstreamable…   ARGV: who, limit, longest ms   Returns whether `who` may start one.
_ADMIT = """
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""

# KEYS: streams   ARGV: who, window ms
_ENDED = """
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'XX', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
"""


class Streams:
    """The streams of each workspace. Every method raises redis.RedisError.

    With `remembers` nobody tries again for a day where a stream was refused, or for a while where it is not known why.
    """

    def __init__(self, redis: Redis, *, limit: int, remembers: bool = True) -> None:
        self._redis = redis
        self._limit = limit
        self._remembers = remembers
        self._admit = redis.register_script(_ADMIT)
        self._ended = redis.register_script(_ENDED)

    async def admit(self, place: Place, who: str) -> bool:
        """Say whether `who` may start a stream now."""
        refused = [_refused(place, extent) for extent in (Extent.WORKSPACE, Extent.CHANNEL)] if self._remembers else []
        args: list[str | int] = [who, self._limit, int(LONGEST_SECONDS * 1000)]
        return bool(cast("int", await self._admit(keys=[_streams(place), *refused], args=args)))

    async def ended(self, place: Place, who: str) -> None:
        """Let another one have the place of `who` once a minute is over."""
        await self._ended(keys=[_streams(place)], args=[who, int(WINDOW_SECONDS * 1000)])

    async def refused(self, place: Place, extent: Extent) -> None:
        """Remember that the chat shows no streams there."""
        if self._remembers and extent is not Extent.ONCE:
            seconds = UNKNOWN_SECONDS if extent is Extent.UNKNOWN else REFUSED_SECONDS
            await self._redis.set(_refused(place, extent), "", ex=seconds)


def _streams(place: Place) -> str:
    return f"{TAG}:streams:{place.team}"


def _refused(place: Place, extent: Extent) -> str:
    scope = f"{place.team}:{place.channel}" if extent is Extent.CHANNEL else place.team
    return f"{TAG}:unstreamable:{scope}"
