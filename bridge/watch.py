"""Looks after what the bridge has in Redis: whether it takes writes, and how much waits there.

What was found is told in the log and in `metrics`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge.dead_letters import DeadLetters
from bridge.inbox import Inbox, Kind
from bridge.metrics import Metrics
from bridge.redis_client import reason, refusal, shortcomings
from bridge.work import end

LOOK_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 2.0
_AWAY: Final = "away"

Sleep = Callable[[float], Awaitable[None]]
log = structlog.get_logger()


class Watch:
    """Looks from time to time whether Redis takes writes and how much waits in it; logs when the former changes."""

    def __init__(
        self, redis: Redis, metrics: Metrics, *, known: Iterable[str] = (), sleep: Sleep = asyncio.sleep
    ) -> None:
        """`known` are the shortcomings that were told already."""
        self._redis = redis
        self._inboxes = [Inbox(redis, kind) for kind in Kind]
        self._metrics = metrics
        self._sleep = sleep
        self._trouble = ""
        # Whoever asks whether the bridge is ready looks as well.
        self._looks = self._newest = 0
        self._shortcomings = set(known)
        self._is_fit = True

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look every LOOK_SECONDS until the end of the block; nobody needs to ask."""
        task = asyncio.create_task(self._look_on())
        try:
            yield
        finally:
            await end(task)

    async def is_fit(self) -> bool:
        """Say whether Redis takes writes now, and was found fit to keep questions when it was last looked at."""
        return await self.takes_writes() and self._is_fit

    async def takes_writes(self) -> bool:
        """Write once, and say whether Redis took it within PATIENCE_SECONDS."""
        self._looks = look = self._looks + 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                trouble = await refusal(self._redis)
        except (RedisError, TimeoutError, OSError):
            trouble = _AWAY
        # One that was overtaken by a later look says how Redis was before.
        if look > self._newest:
            self._newest = look
            self._note(trouble)
        return not trouble

    def _note(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            _tell(trouble)
        self._metrics.redis(takes_writes=not trouble)

    async def _look_on(self) -> None:
        while True:
            if await self.takes_writes():
                await self.examine()
                await self._measure()
            await self._sleep(LOOK_SECONDS)

    async def examine(self) -> None:
        """Tell what became of Redis' configuration, which may change under a running bridge, or by a failover."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                fatal, risky = await shortcomings(self._redis)
        except (RedisError, TimeoutError, OSError) as error:
            log.debug("redis_not_examined", reason=reason(error))
            return
        for problem in fatal + risky:
            if problem not in self._shortcomings:
                (log.error if problem in fatal else log.warning)("redis_at_risk", problem=problem)
        self._shortcomings, self._is_fit = {*fatal, *risky}, not fatal

    async def _measure(self) -> None:
        """Note how much waits, and drop the dead letters that are too old.

        Whoever asks for the metrics gets what was noted last, and never waits for Redis.
        """
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                for inbox in self._inboxes:
                    self._metrics.backlog(inbox.kind, await inbox.backlog())
                self._metrics.dead_letters(await DeadLetters(self._redis).trim())
        except (RedisError, TimeoutError, OSError) as error:
            log.warning("backlog_not_measured", error=type(error).__name__)


def _tell(trouble: str) -> None:
    if not trouble:
        log.info("redis_takes_writes_again")
    elif trouble == _AWAY:
        log.error("redis_not_reached")
    else:
        log.error("redis_refuses_writes", reason=trouble)
