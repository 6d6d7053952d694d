"""Takes tickets, lets a journey run on each, and settles what comes of it; keeps the leases alive meanwhile.

What is done about an item lives in the journeys.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Final

import structlog
from redis.exceptions import RedisError, ResponseError

from bridge import redis_client
from bridge.inbox import Inbox, LeaseLostError, RevisedError, Ticket
from bridge.policy import patient_wait
from bridge.work import Again, Done, GaveUp, Journey, Lease, Outcome, end, persistently

TAKE_SECONDS: Final = 1.0
UPKEEP_SECONDS: Final = 0.5
REDIS_AWAY_SECONDS: Final = 0.5
# Whoever stops a bridge gives it little longer than it may drain: what Redis does not hear, a lease's end tells.
LEAVE_SECONDS: Final = 3.0
# A fault of ours that happens so often over one item will happen every time.
MOST_FAULTS: Final = 3

Sleep = Callable[[float], Awaitable[None]]
log = structlog.get_logger()


class Worker:
    """Deals with one kind of item, up to `concurrency` at once.

    `on_settled(kind, result)` hears how each ticket ended: a Done's result, `again`, `dead`, `lost` or `away`.
    """

    def __init__(
        self,
        inbox: Inbox,
        journey: Journey,
        *,
        concurrency: int,
        drain_seconds: float,
        on_settled: Callable[[str, str], None] = lambda kind, result: None,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._inbox = inbox
        self._journey = journey
        self._drain_seconds = drain_seconds
        self._on_settled = on_settled
        self._sleep = sleep
        self._clock = clock
        self._concurrency = concurrency
        self._running: dict[asyncio.Task[None], Lease] = {}
        self._lost: set[asyncio.Task[None]] = set()
        self._trouble = ""
        self._has_room = asyncio.Event()
        self._has_room.set()

    def running(self) -> int:
        """How many tickets are being dealt with."""
        return len(self._running)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then finish what is in flight, for a while, and hand the rest back."""
        loops = [asyncio.create_task(self._serve()), asyncio.create_task(self._keep())]
        try:
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait([stopped, *loops], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            await end(loops[0])
            await self._drain()
        finally:
            tasks = [*loops, *self._running]
            await end(*tasks)
            await self._leave()
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _serve(self) -> None:
        is_open, next_look = False, self._clock()
        while True:
            await self._has_room.wait()
            try:
                if not is_open:
                    await self._inbox.open()
                    is_open = True
                if self._clock() >= next_look:
                    next_look = self._clock() + self._inbox.lease_seconds / 3
                    await self._take_over()
                await self._take()
                self._tell_of("")
            except RedisError as error:
                # A Redis that lost its data has lost the consumer group too.
                is_open = not isinstance(error, ResponseError)
                self._tell_of(redis_client.reason(error))
                await self._sleep(REDIS_AWAY_SECONDS)

    def _tell_of(self, trouble: str) -> None:
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            log.warning("inbox_unreachable", kind=self._inbox.kind, reason=trouble)
        else:
            log.info("inbox_reached_again", kind=self._inbox.kind)

    async def _take(self) -> None:
        asked_at = self._clock()
        room = self._concurrency - len(self._running)
        if room > 0:
            tickets = await self._inbox.take(room, wait_seconds=TAKE_SECONDS)
            # A Redis that failed over may have forgotten that it handed one out.
            running = {lease.ticket.id for lease in self._running.values()}
            for ticket in tickets:
                if ticket.id not in running:
                    self._start(ticket, asked_at)

    def _start(self, ticket: Ticket, asked_at: float) -> None:
        lease = Lease(self._inbox, ticket, asked_at, self._clock)
        task = asyncio.create_task(self._deal(lease))
        self._running[task] = lease
        task.add_done_callback(self._ended)
        if len(self._running) >= self._concurrency:
            self._has_room.clear()

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._has_room.set()
        if task in self._lost:
            self._lost.remove(task)
            if task.cancelled():
                self._on_settled(self._inbox.kind, "lost")

    async def _deal(self, lease: Lease) -> None:
        structlog.contextvars.clear_contextvars()
        ticket, kind = lease.ticket, self._inbox.kind
        log.info("work_started", kind=kind, item=ticket.item.id, failures=ticket.failures, deaths=ticket.deaths)
        try:
            while (result := await self._attempt(lease)) is None:
                log.info("work_revised", kind=kind, item=ticket.item.id)
        except LeaseLostError:
            log.warning("lease_lost", kind=kind, item=ticket.item.id)
            result = "lost"
        except RedisError as error:
            # The ticket stays this worker's until its lease is over, and is then taken over by whoever is there.
            log.warning("redis_away", kind=kind, item=ticket.item.id, reason=redis_client.reason(error))
            result = "away"
        self._on_settled(kind, result)

    async def _attempt(self, lease: Lease) -> str | None:
        """Run the journey and settle it, and say how it ended; None: its item was revised on the way."""
        try:
            if lease.is_revised:
                lease.ticket = await self._inbox.reread(lease.ticket)
                lease.is_revised = False
            outcome = await self._run(lease)
            lease.is_settling = True
            await self._settle(lease.ticket, outcome)
            return self._tell(lease.ticket, outcome)
        except RevisedError:
            lease.is_revised = True
        except asyncio.CancelledError:
            if not _is_interrupted(lease):
                raise
            lease.is_revised = True
        lease.is_settling = False
        return None

    async def _run(self, lease: Lease) -> Outcome:
        try:
            return await self._journey.run(lease)
        except (LeaseLostError, RevisedError, RedisError):
            raise
        except Exception:  # a fault of ours in one journey must not end the others
            log.exception("journey_failed", kind=self._inbox.kind, item=lease.ticket.item.id)
        failures = lease.ticket.failures + 1
        if failures < MOST_FAULTS:
            return Again("fault", patient_wait(failures, None, 0.5) or 0)
        try:
            return await self._journey.surrender(lease, "fault of the bridge: see its log")
        except (LeaseLostError, RevisedError, RedisError):
            raise
        except Exception:  # what cannot even be given up in words becomes a dead letter
            log.exception("surrender_failed", kind=self._inbox.kind, item=lease.ticket.item.id)
            return GaveUp("fault of the bridge: see its log")

    async def _settle(self, ticket: Ticket, outcome: Outcome) -> None:
        async def again() -> None:
            # Redis no longer knows the ticket: it was settled the first time, and only the reply was lost.
            with suppress(LeaseLostError):
                await self._settle_once(ticket, outcome)

        await persistently(lambda: self._settle_once(ticket, outcome), again)

    async def _settle_once(self, ticket: Ticket, outcome: Outcome) -> None:
        match outcome:
            case Done(_, writes, entry):
                await self._inbox.finish(ticket, writes, entry=entry)
            case Again(_, wait_seconds, is_failure):
                await self._inbox.retry(ticket, wait_seconds=wait_seconds, is_failure=is_failure)
            case GaveUp(reason, writes, entry):
                await self._inbox.finish(ticket, writes, dead_reason=reason, entry=entry)

    def _tell(self, ticket: Ticket, outcome: Outcome) -> str:
        kind = self._inbox.kind
        match outcome:
            case Done(result):
                log.info("work_done", kind=kind, result=result)
                return result
            case Again(reason, wait_seconds):
                log.info("work_again", kind=kind, reason=reason, wait_seconds=round(wait_seconds, 1))
                return "again"
            case GaveUp():
                # The reason may quote what people said: it is for `bridge dead-letters`.
                log.error("work_dead", kind=kind, item=ticket.item.id)
                return "dead"

    async def _keep(self) -> None:
        """Renew the leases, and give lines whose wait is over their turn."""
        next_renewal = self._clock()
        while True:
            await self._sleep(UPKEEP_SECONDS)
            try:
                await self._inbox.promote()
                await self._interrupt_revised()
                if self._clock() >= next_renewal:
                    next_renewal = self._clock() + self._inbox.lease_seconds / 3
                    await self._renew()
            except RedisError as error:
                # Who takes tickets meets the same trouble, and tells of it.
                log.debug("upkeep_failed", kind=self._inbox.kind, reason=redis_client.reason(error))

    async def _interrupt_revised(self) -> None:
        """Let journeys whose item was edited or deleted meanwhile start anew."""
        held = {task: lease for task, lease in self._running.items() if not (lease.is_interrupted or lease.is_revised)}
        tickets = {task: lease.ticket for task, lease in held.items()}
        revised = await self._inbox.revised(list(tickets.values()))
        for task, lease in held.items():
            is_busy = lease.is_settling or lease.is_revised
            if lease.ticket is tickets[task] and lease.ticket.id in revised and not is_busy:
                lease.is_interrupted = True
                task.cancel()

    async def _renew(self) -> None:
        asked_at = self._clock()
        # One that is being settled may be done in Redis before its reply is here: that is no lease lost.
        held = {task: lease for task, lease in self._running.items() if not lease.is_settling}
        kept = await self._inbox.renew([lease.ticket for lease in held.values()])
        for task, lease in held.items():
            if lease.ticket.id in kept:
                lease.renewed(asked_at)
            elif task in self._running and not lease.is_settling:
                log.warning("lease_lost", kind=self._inbox.kind, item=lease.ticket.item.id)
                self._lost.add(task)
                task.cancel()

    async def _take_over(self) -> None:
        # A ticket that another took meanwhile, and lost as well, must not come back to work that knows nothing of it.
        await self._renew()
        if self._lost:
            await asyncio.wait(set(self._lost))
        asked_at = self._clock()
        # A worker that was frozen, or had no Redis to renew its leases at, finds its own running tickets overdue.
        running = {lease.ticket.id for lease in self._running.values()}
        for ticket in await self._inbox.take_over(self._concurrency - len(self._running), running=running):
            log.warning("work_taken_over", kind=self._inbox.kind, item=ticket.item.id, deaths=ticket.deaths)
            self._start(ticket, asked_at)

    async def _drain(self) -> None:
        await self._hand_back_what_waits()
        if self._running:
            log.info("draining", kind=self._inbox.kind, running=len(self._running), seconds=self._drain_seconds)
            await asyncio.wait(self._running, timeout=self._drain_seconds)

    async def _hand_back_what_waits(self) -> None:
        waiting = {task: lease.ticket for task, lease in self._running.items() if lease.is_waiting}
        await end(*waiting)
        until = asyncio.get_running_loop().time() + LEAVE_SECONDS
        for ticket in waiting.values():
            try:
                async with asyncio.timeout_at(until):
                    await self._inbox.retry(ticket, is_failure=False)
            except (LeaseLostError, RedisError, TimeoutError) as error:
                # What is still this worker's is handed back when it leaves.
                log.info("not_handed_back", kind=self._inbox.kind, item=ticket.item.id, error=type(error).__name__)

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                handed_back = await self._inbox.leave()
        except (RedisError, TimeoutError) as error:
            log.warning("leave_failed", kind=self._inbox.kind, error=type(error).__name__)
            return
        log.info("worker_left", kind=self._inbox.kind, handed_back=handed_back)


def _is_interrupted(lease: Lease) -> bool:
    """Say whether the current task was cancelled for a revision of its item, and for nothing else."""
    was_interrupted, lease.is_interrupted = lease.is_interrupted, False
    task = asyncio.current_task()
    return was_interrupted and task is not None and task.uncancel() == 0
