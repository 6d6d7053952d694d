"""A worker that dies comes back, after pauses that grow; one that never gets to work is not tried again."""

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.playground import processes
from bridge.playground.processes import Worker
from tests.waiting import Naps, eventually

FOREVER = "import time; time.sleep(600)"


class Yard:
    """Starts programs in a worker's place, and counts them."""

    def __init__(self, *programs: str) -> None:
        self.programs = list(programs)
        self.started: list[Process] = []

    @asynccontextmanager
    async def start(self) -> AsyncIterator[Process]:
        program = self.programs.pop(0) if self.programs else FOREVER
        process = await asyncio.create_subprocess_exec(sys.executable, "-SIc", program)
        self.started.append(process)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def is_at_work() -> bool:
    return True


async def test_one_that_is_killed_comes_back() -> None:
    yard = Yard()
    worker = Worker(yard.start, is_at_work)
    async with worker.kept():
        await worker.at_work()
        await worker.kill()
        assert [process.returncode for process in yard.started] == [-9, None]
    assert [process.returncode for process in yard.started] == [-9, -9]


async def test_pauses_grow_while_it_keeps_ending_and_begin_anew_once_it_lived(monkeypatch: pytest.MonkeyPatch) -> None:
    naps, yard = Naps(), Yard(*["import time; time.sleep(0.1)"] * 9)
    looks = 0.001

    async def sleep(seconds: float) -> None:
        await naps(seconds) if seconds != looks else None
        await asyncio.sleep(0)

    monkeypatch.setattr(processes, "_LOOK_SECONDS", looks)
    async with Worker(yard.start, is_at_work, sleep=sleep).kept():
        await eventually(lambda: len(yard.started) == 10)
    assert naps.asked == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]
    naps.asked.clear()
    monkeypatch.setattr(processes, "_LIVED_WELL", 0.0)
    again = Yard(*["import time; time.sleep(0.1)"] * 3)
    async with Worker(again.start, is_at_work, sleep=sleep).kept():
        await eventually(lambda: len(again.started) == 4)
    assert naps.asked == [0.2, 0.2, 0.2]


async def test_one_that_never_got_to_work_is_the_end() -> None:
    async def never() -> bool:
        return False

    yard = Yard("raise SystemExit(2)")
    async with Worker(yard.start, never).kept() as keeping:
        await asyncio.wait_for(keeping, 20)
    assert len(yard.started) == 1


async def test_one_that_is_killed_before_it_got_to_work_comes_back() -> None:
    answers = [False]

    async def later() -> bool:
        return answers[-1]

    yard = Yard()
    worker = Worker(yard.start, later)
    async with worker.kept():
        await eventually(lambda: len(yard.started) == 1)
        killing = asyncio.create_task(worker.kill())
        await eventually(lambda: len(yard.started) == 2)
        assert not killing.done()
        answers.append(True)
        await asyncio.wait_for(killing, 20)
