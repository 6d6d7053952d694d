"""People who ask in many threads at once, turn after turn, each when the answer to the last is there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

from tests.benchmarks.harness import CHANNELS
from tests.rig import ADA, Rig, is_draft

QUESTION = "How are threads stored?"
PATIENCE_SECONDS = 120.0
# More would be told of at once than a listener of the simulated Slack may lag behind.
AT_ONCE = 100


class Conversations:
    """Asks on a rig, and hears of the answers; used as `async with Conversations(rig).listening() as people`."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._answered: dict[str, asyncio.Future[float]] = {}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Conversations"]:
        """Hear of answers until the end of the block."""
        listening = asyncio.create_task(self._listen())
        try:
            yield self
        finally:
            listening.cancel()

    async def _listen(self) -> None:
        async for change in self._rig.slack.subscribe_changes():
            message = change.get("message", {})
            waiting = self._answered.get(message.get("thread_ts", ""))
            if waiting and not waiting.done() and message.get("bot_id") and not is_draft(message):
                waiting.set_result(perf_counter())
        for waiting in self._answered.values():
            if not waiting.done():
                waiting.set_exception(RuntimeError("whoever listens was too slow"))

    async def ask(self, channel: str, text: str = QUESTION, thread: str | None = None) -> tuple[str, float]:
        """Ask, and wait for the whole answer; give the thread and the seconds that it took."""
        asked = perf_counter()
        ts = await self._rig.slack.say(ADA, channel, text, thread=thread)
        line = thread or ts
        waiting = self._answered[line] = asyncio.get_running_loop().create_future()
        return line, await waiting - asked

    async def converse(self, channel: str, turns: int) -> list[float]:
        """Ask turn after turn in one thread; give the seconds that each answer took."""
        thread, seconds = await self.ask(channel)
        took = [seconds]
        for turn in range(1, turns):
            _, seconds = await self.ask(channel, f"{QUESTION} {turn}", thread)
            took.append(seconds)
        del self._answered[thread]
        return took

    async def all_at_once(
        self, threads: int, turns: int = 1, channels: int = len(CHANNELS)
    ) -> tuple[float, list[float]]:
        """Converse in so many threads; give the seconds until the last answer, and those of each.

        Raises TimeoutError where one does not come in PATIENCE_SECONDS.
        """
        started = perf_counter()
        async with asyncio.timeout(PATIENCE_SECONDS):
            async with asyncio.TaskGroup() as group:
                talks = []
                for number in range(threads):
                    talks.append(group.create_task(self.converse(CHANNELS[number % channels], turns)))
                    if number % AT_ONCE == AT_ONCE - 1:
                        await asyncio.sleep(0)
        return perf_counter() - started, [seconds for talk in talks for seconds in talk.result()]
