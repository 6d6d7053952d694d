"""The playground's processes: a bridge with settings of its own, and a worker that comes back when it dies.

What settings they get, and when they start and stop, is `run`'s business.
"""

import asyncio
import ctypes
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from time import monotonic

import structlog

from bridge.playground.serving import end

STOP_SECONDS = 40.0
_LOOK_SECONDS = 0.05
_FIRST_PAUSE, _LONGEST_PAUSE, _LIVED_WELL = 0.2, 10.0, 10.0

log = structlog.get_logger()


def _told_to_stop_with_its_starter() -> Callable[[], object] | None:
    """Let a child get SIGTERM when its starter is killed, where the kernel offers that (prctl(2), PR_SET_PDEATHSIG)."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(1, signal.SIGTERM)


@asynccontextmanager
async def bridge_process(environment: Mapping[str, str], folder: Path, *arguments: str) -> AsyncIterator[Process]:
    """Run a bridge as a process with exactly these settings; at the end it is told to stop and waited for.

    It runs in `folder`, where no `.env` adds settings of its own.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bridge",
        "run",
        *arguments,
        cwd=folder,
        env={**kept, **environment},
        start_new_session=True,
        preexec_fn=_told_to_stop_with_its_starter(),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


class Worker:
    """A worker's process that is started again whenever it ends, after pauses that grow while it keeps ending.

    `start` runs one; `is_at_work` says whether there is one that takes tickets.
    """

    def __init__(
        self,
        start: Callable[[], AbstractAsyncContextManager[Process]],
        is_at_work: Callable[[], Awaitable[bool]],
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._start = start
        self._is_at_work = is_at_work
        self._sleep = sleep
        self._process: Process | None = None

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[asyncio.Task[None]]:
        """Keep one running until the block ends; the task ends by itself if the very first never got to work."""
        keeping = asyncio.create_task(self._keep())
        try:
            yield keeping
        finally:
            # Once: a second cancellation would not let the worker finish what it does.
            keeping.cancel()
            await asyncio.wait([keeping])

    async def _keep(self) -> None:
        pause, had_one_at_work = _FIRST_PAUSE, False
        while True:
            began = monotonic()
            async with self._start() as process:
                self._process = process
                looking = asyncio.create_task(self.at_work())
                try:
                    code = await process.wait()
                finally:
                    had_one_at_work = had_one_at_work or looking.done()
                    await end(looking)
            if not had_one_at_work and code >= 0:
                return
            pause = _FIRST_PAUSE if monotonic() - began > _LIVED_WELL else pause
            log.warning("worker_ended", exit_code=code, again_in=pause)
            await self._sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def at_work(self) -> None:
        """Return when a worker that lives takes tickets."""
        while not (self._process is not None and self._process.returncode is None and await self._is_at_work()):
            await self._sleep(_LOOK_SECONDS)

    async def kill(self) -> None:
        """Kill it as a power cut does, and return when another is at work."""
        process = self._process
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
        await self.at_work()
