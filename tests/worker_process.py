"""A process with one worker, to be killed or frozen by a test: `worker_process.py URL NAME LEASE_SECONDS`.

Its journey goes on until Redis holds the key `go`. Prints a line when a journey starts, and one when it is settled.
"""

import asyncio
import sys

import structlog

from bridge import redis_client
from bridge.inbox import Inbox, Kind, Write
from bridge.work import Done, GaveUp, Lease, Outcome
from bridge.worker import Worker


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201 - the test reads it


class UntilGo:
    """A journey as long as the test wants it to be."""

    def __init__(self, inbox: Inbox, url: str) -> None:
        self.inbox = inbox
        self.redis = redis_client.connect(url)

    async def run(self, lease: Lease) -> Outcome:
        await lease.begin()
        say("started", lease.ticket.item.id, lease.ticket.deaths)
        while not await self.redis.exists("go"):
            await asyncio.sleep(0.01)
            await lease.confirm()
        return Done("done", [Write(f"done:{lease.ticket.item.id}", self.inbox.worker, 100)])

    async def surrender(self, lease: Lease, reason: str) -> Outcome:
        return GaveUp(reason)


async def work(url: str, name: str, lease_seconds: float) -> None:
    inbox = Inbox(redis_client.connect(url), Kind.QUESTION, worker=name, lease_seconds=lease_seconds)
    worker = Worker(
        inbox,
        UntilGo(inbox, url),
        concurrency=8,
        drain_seconds=0,
        on_settled=lambda _, result: say("settled", result),
    )
    await worker.run(asyncio.Event())


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(work(sys.argv[1], sys.argv[2], float(sys.argv[3])))
