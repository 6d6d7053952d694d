"""What a journey gets to work with, a lease on its ticket, and what it gives back, an outcome.

How tickets are taken and outcomes settled is the worker's business.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Protocol, TypeVar

import stamina
import structlog
from redis.exceptions import RedisError

from bridge.chat import ChatError
from bridge.inbox import Inbox, LeaseLostError, Ticket, Write

CANCEL_AGAIN_SECONDS: Final = 0.2
CLOSING_SECONDS: Final = 1.0

T = TypeVar("T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Done:
    """The work is finished; `result` is a constant word for logs and metrics, `entry` what the journal keeps of it."""

    result: str
    writes: Sequence[Write] = ()
    entry: str = ""


@dataclass(frozen=True, slots=True)
class Again:
    """The work is to be tried again after a wait; `reason` is a short word."""

    reason: str
    wait_seconds: float
    is_failure: bool = True


@dataclass(frozen=True, slots=True)
class GaveUp:
    """The work becomes a dead letter; `reason` is a short text for the operator, `entry` as for Done."""

    reason: str
    writes: Sequence[Write] = ()
    entry: str = ""


Outcome = Done | Again | GaveUp


class Lease:
    """One ticket's lease: what the journey knows of it, and the proof that it still holds it.

    Between renewals the lease holds by this process' own clock; past that, Redis is asked. So a process that was
    frozen past its lease notices before it shows anything.
    """

    def __init__(self, inbox: Inbox, ticket: Ticket, taken_at: float, clock: Callable[[], float] = monotonic) -> None:
        self.ticket = ticket
        self._inbox = inbox
        self._clock = clock
        self._until = taken_at + inbox.lease_seconds
        self.is_settling = False
        self.is_waiting = False
        # Its item was changed: the journey is being stopped for that, or is to begin with the new one.
        self.is_interrupted = False
        self.is_revised = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Say that nothing is under way in this block: a worker that stops hands the ticket back at once."""
        self.is_waiting = True
        try:
            yield
        finally:
            self.is_waiting = False

    def renewed(self, asked_at: float) -> None:
        """Take note that the lease was renewed by a request sent at `asked_at` (monotonic seconds)."""
        self._until = asked_at + self._inbox.lease_seconds

    async def confirm(self) -> None:
        """Return if the ticket is still held; raises LeaseLostError, or redis.RedisError when nobody can tell."""
        asked_at = self._clock()
        if asked_at < self._until:
            return
        if not await self._inbox.renew([self.ticket]):
            raise LeaseLostError(self.ticket.item.id)
        self.renewed(asked_at)

    async def begin(self) -> None:
        """Note that the item itself is being dealt with; raises LeaseLostError, RevisedError and redis.RedisError.

        A worker that dies before, with work that only waits, says nothing against that work.
        """
        await persistently(lambda: self._inbox.begin(self.ticket))
        # The reply may have been read only after a freeze.
        await self.confirm()

    async def remember(self, notes: Mapping[str, str], writes: Sequence[Write] = ()) -> None:
        """Remember `notes` for a later attempt, and set `writes`.

        Raises LeaseLostError, RevisedError and redis.RedisError. A Redis that is away for a moment is asked again: what
        would be lost may be an answer.
        """
        await persistently(lambda: self._inbox.remember(self.ticket, notes, writes))


async def persistently(
    ask: Callable[[], Coroutine[Any, Any, None]], again: Callable[[], Coroutine[Any, Any, None]] | None = None
) -> None:
    """Ask Redis what is safe to repeat, where it fails up to five times within about a second; later ones with `again`.

    Raises as what is asked does, redis.RedisError after the last time.
    """
    with suppress(RedisError):  # it is asked again below: making the means to do so costs more than asking once
        await ask()
        return
    async for attempt in stamina.retry_context(
        on=RedisError, attempts=4, wait_initial=0.05, wait_max=0.5, wait_jitter=0.1
    ):
        with attempt:
            await (again or ask)()


async def together(first: Coroutine[Any, Any, T], *others: Coroutine[Any, Any, object]) -> T:
    """Do things at once, and give what the first gives; when one has failed, those after it are ended."""
    tasks = [asyncio.create_task(other) for other in others]
    try:
        result = await first
        for task in tasks:
            await task
    except BaseException:
        await end(*tasks)
        # One failure is told of: the others are nobody's trouble.
        for task in tasks:
            _ = task.cancelled() or task.exception()
        raise
    return result


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended, in whatever way."""
    # Python 3.11's wait_for, which redis-py sends through, now and then loses a cancellation (python/cpython#86296).
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)


async def landed(call: Coroutine[Any, Any, T], seconds: float) -> T:
    """Await a call that must not be left halfway: who is cancelled still gives it so many seconds to land."""
    task = asyncio.create_task(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        until = monotonic() + seconds
        while not task.done() and (left := until - monotonic()) > 0:
            with suppress(asyncio.CancelledError):  # it is said again and again, and heard
                await asyncio.wait([task], timeout=left)
        task.cancel()
        raise


class Beside:
    """What is done beside the journeys, and waited for by nobody: where it fails, that is nobody's trouble."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, doing: Coroutine[Any, Any, None]) -> None:
        """Begin to do something that may raise ChatError and redis.RedisError."""
        task = asyncio.create_task(_quietly(doing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give what is still being done a moment, and end it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSING_SECONDS)
        await end(*self._tasks)


async def _quietly(doing: Coroutine[Any, Any, None]) -> None:
    try:
        await doing
    except (ChatError, RedisError) as error:
        log.info("aside_failed", reason=str(error)[:200])


class Journey(Protocol):
    """What is done about one kind of item."""

    async def run(self, lease: Lease) -> Outcome:
        """Deal with the ticket's item once.

        Raises LeaseLostError, RevisedError, and redis.RedisError when Redis is away; any other exception is a fault of
        ours. It is cancelled when its item is revised, and run again.
        """

    async def surrender(self, lease: Lease, reason: str) -> Outcome:
        """Give the item up after a fault of ours: tell the person, if that can be done."""
