"""What the simulated servers have in common: being served, telling of changes, misbehaving on demand.

Nothing of Slack's or Kapa's protocols lives here.
"""

import asyncio
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakSet

from aiohttp import web

Json = dict[str, Any]
"""A JSON object as it goes over the wire."""

_BACKLOG = 1000
_SUBJECTS_KEPT = 1_000
_CANCEL_AGAIN_SECONDS = 0.2
T = TypeVar("T")


@asynccontextmanager
async def served(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """Serve `app` until the block ends; gives its base URL without a trailing slash.

    Port 0 takes a free one. Raises OSError where the port is taken. A client that goes away cancels its request,
    and requests that are still open at the end are cancelled too.
    """
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and wait until it has ended in whatever way."""
    # Python 3.11's wait_for, which redis-py sends through, now and then loses a cancellation (python/cpython#86296).
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_AGAIN_SECONDS)


class Changes:
    """Wakes everyone who waits for something to happen on a simulated server, and tells listeners what it was."""

    def __init__(self) -> None:
        self._next = asyncio.Event()
        self._listeners: WeakSet[asyncio.Queue[Json | None]] = WeakSet()

    def publish(self, change: Json | None = None) -> None:
        """Wake all waiters; a `change` goes to the listeners too. A listener that lags far behind is cut off."""
        woken, self._next = self._next, asyncio.Event()
        woken.set()
        if change is None:
            return
        for queue in list(self._listeners):
            if queue.qsize() >= _BACKLOG:
                self._listeners.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(change)

    async def wait_for(self, predicate: Callable[[], T], timeout: float = 5.0) -> T:  # noqa: ASYNC109 a deadline is what callers think in
        """Wait until `predicate()` is true and give its value; raises TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while not (value := predicate()):
                await self._next.wait()
        return value

    def subscribe(self) -> AsyncIterator[Json]:
        """Give all changes from now on; ends for a listener that lags far behind."""
        queue: asyncio.Queue[Json | None] = asyncio.Queue()
        self._listeners.add(queue)
        return _listen(queue)


async def _listen(queue: asyncio.Queue[Json | None]) -> AsyncIterator[Json]:
    while (change := await queue.get()) is not None:
        yield change


@dataclass(frozen=True, slots=True)
class Fault:
    """One misbehaviour that a server was told to show; `retry_after` is the raw header of a 429, None for none."""

    action: str
    retry_after: str | None = "1"


@dataclass(frozen=True, slots=True)
class _Standing:
    fault: Fault
    apart: float
    shown: OrderedDict[str, float]


class Faults:
    """Misbehaviours to come: those that were counted out first, in their order, then those that last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._lasting: dict[str, _Standing] = {}

    def add(self, key: str, fault: Fault, times: int) -> None:
        """Let the next `times` requests of `key` show `fault`."""
        self._waiting[key].extend([fault] * times)

    def always(self, key: str, fault: Fault | None, *, apart: float = 0.0) -> None:
        """Let every request of `key` show `fault` until this is called with None.

        With `apart`, two requests about the same thing show it only if so many seconds lie between them.
        """
        if fault is None:
            self._lasting.pop(key, None)
        else:
            self._lasting[key] = _Standing(fault, apart, OrderedDict())

    def take(self, key: str, subject: str = "") -> Fault | None:
        """Take the next misbehaviour of `key`, if there is one, for a request about `subject`."""
        waiting = self._waiting.get(key)
        if waiting:
            return waiting.popleft()
        lasting = self._lasting.get(key)
        return lasting.fault if lasting is not None and self._is_due(lasting, subject) else None

    def _is_due(self, lasting: _Standing, subject: str) -> bool:
        now = self._clock()
        if now - lasting.shown.get(subject, float("-inf")) < lasting.apart:
            return False
        lasting.shown[subject] = now
        lasting.shown.move_to_end(subject)
        while len(lasting.shown) > _SUBJECTS_KEPT:
            lasting.shown.popitem(last=False)
        return True

    def clear(self) -> None:
        """Behave well again."""
        self._waiting.clear()
        self._lasting.clear()


def drop(request: web.Request) -> web.Response:
    """Close the connection of `request` without an answer; what is returned here never reaches the client."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def hang() -> web.Response:
    """Never answer: ends when the client goes away or the server stops."""
    await asyncio.Event().wait()
    return web.Response()
