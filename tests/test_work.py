"""What a journey works with: a call that must not be left halfway lands although its task is cancelled."""

import asyncio

import pytest

from bridge.work import end, landed


async def test_a_call_under_way_lands_though_its_task_is_cancelled_again_and_again() -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def post() -> None:
        begun.set()
        await go_on.wait()
        done.set()

    task = asyncio.create_task(landed(post(), 30))
    await begun.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()


async def test_a_call_that_does_not_land_in_time_is_given_up() -> None:
    begun, given_up = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.set()
            raise

    task = asyncio.create_task(landed(hang(), 0.01))
    await begun.wait()
    await end(task)
    assert task.cancelled()
    await asyncio.wait_for(given_up.wait(), 10)


async def test_what_a_call_gives_or_raises_is_given_and_raised() -> None:
    async def give() -> int:
        return 1

    async def fail() -> int:
        raise KeyError("no")

    assert await landed(give(), 1) == 1
    with pytest.raises(KeyError):
        await landed(fail(), 1)
