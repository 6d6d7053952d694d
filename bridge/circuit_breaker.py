"""Kapa's circuit breakers, shared by all workers: while Kapa is out nobody asks it but one probe now and then.

After MOST_FAILURES in a row the circuit opens. Then a cool-down passes before a probe may go; each probe that fails
doubles it, and the first success closes the circuit. When a question or a vote is tried again lives in `policy`.

    {bridge}:circuit:<name>:failures    how many failures there were in a row while the circuit was closed
    {bridge}:circuit:<name>:open        present while the circuit is open: the length of the cool-down (ms)
    {bridge}:circuit:<name>:cooling     lives as long as the cool-down
    {bridge}:circuit:<name>:probe       who probes, for as long as that is believed

All of them have a lifetime: a circuit that nobody asks about any more is closed in the end.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge.inbox import TAG
from bridge.kapa.wire import KapaError, KapaUnavailable

MOST_FAILURES: Final = 5
# Failures that lie further apart have nothing to do with each other. A question's own retries are at most 25 s apart.
FAILURES_SECONDS: Final = 60.0
COOL_DOWN_SECONDS: Final = 5.0
LONGEST_COOL_DOWN_SECONDS: Final = 60.0
# Most answers have ended by then. A probe that died with its worker holds everyone up for so long at most.
PROBE_SECONDS: Final = 60.0
# Who meets a probe comes back when it has probably ended.
PROBE_WAIT_SECONDS: Final = 15.0
# Votes are patient: two attempts at the same one may lie 12 minutes apart.
OPEN_SECONDS: Final = 3600.0

# KEYS: open, cooling, probe   ARGV: who, how long a probe is believed (ms)
# Returns {admitted, ms of the cool-down that are left, ms for which the probe is still believed}
_ADMIT = """
if redis.call('EXISTS', KEYS[1]) == 0 then return {1, 0, 0} end
local cooling = redis.call('PTTL', KEYS[2])
if cooling > 0 then return {0, cooling, 0} end
local probe = redis.call('GET', KEYS[3])
if probe and probe ~= ARGV[1] then return {0, 0, math.max(1, redis.call('PTTL', KEYS[3]))} end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
return {1, 0, 0}
"""

# KEYS: failures, open, cooling, probe
# ARGV: who, most failures, their lifetime (ms), first cool-down, longest cool-down, lifetime of an open circuit (ms)
# Returns {1 if the circuit opened, the cool-down that begins (ms) or 0}
_FAILED = """
local failures, open, cooling, probe = unpack(KEYS)
local cool_down, is_open = tonumber(ARGV[4]), redis.call('GET', open)
if is_open then
  if redis.call('GET', probe) ~= ARGV[1] then return {0, 0} end
  cool_down = math.min(is_open * 2, tonumber(ARGV[5]))
else
  local count = redis.call('INCR', failures)
  redis.call('PEXPIRE', failures, ARGV[3])
  if count < tonumber(ARGV[2]) then return {0, 0} end
end
redis.call('DEL', failures, probe)
redis.call('SET', open, cool_down, 'PX', ARGV[6])
redis.call('SET', cooling, '', 'PX', cool_down)
return {is_open and 0 or 1, cool_down}
"""

# KEYS: failures, open, cooling, probe   Returns whether the circuit was open.
_SUCCEEDED = """
local was_open = redis.call('EXISTS', KEYS[2])
redis.call('DEL', unpack(KEYS))
return was_open
"""

log = structlog.get_logger()


class State(StrEnum):
    """What a circuit does: let everyone through, nobody, or nobody besides the probe that is under way."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class CircuitOpenError(KapaUnavailable):
    """Kapa is out and was not asked; `retry_after` is when it may be worth it, in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("Kapa is out: the last requests failed, so it was not asked", retry_after=retry_after)


class CircuitBreaker:
    """The circuit `name`, of everyone who uses the same name on the same Redis."""

    def __init__(self, redis: Redis, name: str) -> None:
        self._name = name
        self._redis = redis
        self._keys = [f"{TAG}:circuit:{name}:{part}" for part in ("failures", "open", "cooling", "probe")]
        self._admit = redis.register_script(_ADMIT)
        self._failed = redis.register_script(_FAILED)
        self._succeeded = redis.register_script(_SUCCEEDED)

    async def admit(self, who: str) -> None:
        """Return if `who` may ask Kapa now; who is admitted as the probe stays it when it comes again.

        Raises CircuitOpenError, redis.RedisError.
        """
        args: list[str | int] = [who, _ms(PROBE_SECONDS)]
        reply = await self._admit(keys=self._keys[1:], args=args)
        is_admitted, cooling, probing = cast("tuple[int, int, int]", reply)
        if not is_admitted:
            raise CircuitOpenError(cooling / 1000 or min(probing / 1000, PROBE_WAIT_SECONDS))

    @asynccontextmanager
    async def watch(self, who: str) -> AsyncIterator["Verdict"]:
        """Learn from how a request to Kapa, the block, ends; a block that Kapa did not end says nothing.

        What is learned is told at the end of the block, unless the block itself says before that the request is good.
        """
        verdict = Verdict(self)
        try:
            yield verdict
        except KapaError as error:
            await (self.failed(who) if is_outage(error) else self.succeeded())
            raise
        if not verdict.is_given:
            await self.succeeded()

    async def failed(self, who: str) -> None:
        """Count a failure; while the circuit is open, only that of the probe counts."""
        cool_downs = [_ms(COOL_DOWN_SECONDS), _ms(LONGEST_COOL_DOWN_SECONDS)]
        args: list[str | int] = [who, MOST_FAILURES, _ms(FAILURES_SECONDS), *cool_downs, _ms(OPEN_SECONDS)]
        try:
            opened, cool_down = cast("tuple[int, int]", await self._failed(keys=self._keys, args=args))
        except RedisError as error:
            self._not_told(error)
            return
        if opened:
            log.error("circuit_opened", circuit=self._name, seconds=cool_down / 1000)
        elif cool_down:
            log.info("probe_failed", circuit=self._name, seconds=cool_down / 1000)

    async def succeeded(self) -> None:
        """Close the circuit: Kapa is there."""
        try:
            was_open = await self._succeeded(keys=self._keys)
        except RedisError as error:
            self._not_told(error)
            return
        if was_open:
            log.info("circuit_closed", circuit=self._name)

    async def state(self) -> State:
        """Give the circuit's state, by one call to Redis; raises redis.RedisError."""
        is_open, probe = cast("list[str | None]", await self._redis.mget(self._keys[1], self._keys[3]))
        if is_open is None:
            return State.CLOSED
        return State.OPEN if probe is None else State.PROBING

    def _not_told(self, error: RedisError) -> None:
        # What came of the request counts for more than what others learn from it.
        log.warning("circuit_not_told", circuit=self._name, error=type(error).__name__)


class Verdict:
    """What is said of one request to Kapa before its block ends."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self.is_given = False

    async def good(self) -> None:
        """Say that Kapa has answered."""
        self.is_given = True
        await self._breaker.succeeded()


def is_outage(error: KapaError) -> bool:
    """Say whether an error speaks for an outage; who refuses, or asks to be asked less, is there."""
    return isinstance(error, KapaUnavailable) and not error.is_rate_limit


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
