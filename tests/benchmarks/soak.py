"""Asks a real bridge a great many questions and watches its memory: `soak.py [QUESTIONS] [SECONDS]`.

The bridge is a process of its own on a Redis that keeps every write; both simulated worlds are in this process, and
answer at once. Exits with 1 when the bridge's memory grew by more than GROWTH after the first fifth, when a question
went unanswered, or when SECONDS were not enough.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from time import monotonic

import structlog

from bridge.embedded_redis import EmbeddedRedis
from bridge.playground.kapa import Pace, SimulatedKapa
from bridge.playground.knowledge import Knowledge
from bridge.playground.run import bridge_process
from bridge.playground.slack import SimulatedSlack
from tests.rig import ADA, PAGES, Rig

QUESTIONS = 100_000
SECONDS = 1_800.0
AT_ONCE = 64
CHANNELS = ("C0GENERAL", "C0HELP", "C0PRIVATE")
GROWTH = 0.10
WARM = 0.2


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a benchmark's output


def rss_bytes(pid: int) -> int:
    """Give the memory that a process holds (https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Soak:
    """Asks `questions` questions, a bounded number at once, and samples the memory of the bridge at every hundredth."""

    def __init__(self, rig: Rig, pid: int, questions: int) -> None:
        self._rig, self._pid, self._questions = rig, pid, questions
        self._step = max(1, questions // 100)
        self._asked = self._answered = 0
        self._answer_of: dict[str, asyncio.Event] = {}
        self.samples: list[tuple[float, int]] = []

    @property
    def answered(self) -> int:
        """How many questions have their whole answer."""
        return self._answered

    async def run(self) -> None:
        """Ask until all are answered."""
        listening = asyncio.create_task(self._listen())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(self._ask_on())
        finally:
            listening.cancel()

    async def _ask_on(self) -> None:
        while self._asked < self._questions:
            number, self._asked = self._asked, self._asked + 1
            ts = await self._rig.slack.say(ADA, CHANNELS[number % len(CHANNELS)], f"How are threads stored? {number}")
            answered = self._answer_of[ts] = asyncio.Event()
            await answered.wait()
            self._count()

    async def _listen(self) -> None:
        async for change in self._rig.slack.subscribe_changes():
            message = change.get("message", {})
            event = self._answer_of.get(message.get("thread_ts", ""))
            if event and message.get("bot_id") and not message.get("text", "").rstrip().endswith("…"):
                del self._answer_of[message["thread_ts"]]
                event.set()

    def _count(self) -> None:
        self._answered += 1
        if self._answered % self._step == 0:
            self.samples.append((self._answered / self._questions, rss_bytes(self._pid)))
            # The simulated worlds remember every thread, for people who carry on: nobody does here.
            self._rig.kapa.threads.clear()
            for channel in self._rig.slack.workspace.channels.values():
                channel.statuses.clear()

    def growth(self) -> float:
        """Give by how much the memory grew from a fifth of the way to the end, as a share: the best case of each."""
        warm = [rss for share, rss in self.samples if WARM <= share < WARM + 0.1]
        last = [rss for share, rss in self.samples if share >= 0.9]
        return min(last) / min(warm) - 1

    def at(self, share: float) -> float:
        """Give the memory at a share of the way, in MiB."""
        return next(rss for reached, rss in self.samples if reached >= share) / 2**20


async def soak(folder: Path, questions: int, seconds: float) -> bool:
    """Run it, print the figures, and say whether they are good."""
    slack = SimulatedSlack(limits=None)
    kapa = SimulatedKapa(Knowledge(PAGES), pace=Pace(0, 0))
    async with EmbeddedRedis(folder / "redis").own() as url, slack.serve(), kapa.serve():
        rig = Rig(slack, kapa, url, folder)
        environment = rig.environment(kapa_requests_per_minute=0, bridge_streaming="off", bridge_log_level="error")
        async with bridge_process(environment, folder) as process:
            await slack.wait_for(lambda: slack.sockets, 30)
            run, started = Soak(rig, process.pid, questions), monotonic()
            try:
                async with asyncio.timeout(seconds):
                    await run.run()
            except TimeoutError:
                say(f"{seconds:g} s were not enough")
            took = monotonic() - started
    say(f"questions {questions}, answered {run.answered}, {run.answered / took:.0f} answers/s")
    if run.answered < questions:
        return False
    say("RSS " + ", ".join(f"{run.at(share):.1f} MiB at {share:.0%}" for share in (0.1, 0.2, 0.5, 1.0)))
    say(f"growth after the first fifth {run.growth():+.1%} (at most {GROWTH:.0%})")
    return run.growth() <= GROWTH


def main() -> None:
    """Run the soak as the command line says."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
    questions = int(sys.argv[1]) if len(sys.argv) > 1 else QUESTIONS
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS
    with tempfile.TemporaryDirectory() as folder:
        is_good = asyncio.run(soak(Path(folder), questions, seconds))
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
