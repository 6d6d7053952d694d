"""What a journey works with: a call that must not be left halfway lands although its task is cancelled."""

import asyncio
import gc

import pytest

from bridge.work import end, landed, together


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


async def test_what_is_done_together_gives_what_the_first_gives() -> None:
    async def give(number: int) -> int:
        await asyncio.sleep(0)
        return number

    assert await together(give(1), give(2), give(3)) == 1


@pytest.mark.parametrize("failing", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 1, 2}])
async def test_one_failure_is_told_of_and_nothing_goes_on(failing: set[int], caplog: pytest.LogCaptureFixture) -> None:
    ended = []

    async def do(number: int) -> None:
        try:
            await asyncio.sleep(0)
            if number in failing:
                raise KeyError(number)
            if number > min(failing):
                await asyncio.Event().wait()
        finally:
            ended.append(number)

    with pytest.raises(KeyError, match=str(min(failing))):
        await together(do(0), do(1), do(2))
    assert sorted(ended) == [0, 1, 2]
    gc.collect()
    # asyncio logs an exception that nobody has looked at.
    assert caplog.records == []
