"""`bridge playground` as a process of its own, and someone who talks to it over HTTP as its page does."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bridge.playground.slack import GENERAL
from tests.waiting import eventually


@asynccontextmanager
async def playground(
    folder: Path, port: int = 0, environment: dict[str, str] | None = None, *, kapa: str = "simulated"
) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge", "playground", "--port", str(port), "--kapa", kapa),
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "BRIDGE_DATA_DIR": str(folder / "data")} | (environment or {}),
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.communicate()


async def address(process: Process) -> str:
    """Read what the playground says until it says where it is."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        async for line in process.stdout:
            if found := re.search(r"The playground is at (http://127\.0\.0\.1:[0-9]+)", line.decode()):
                return found[1]
    raise AssertionError("it never said where it is")


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()


@dataclass
class Visitor:
    """Someone who has the page open; asks in #general."""

    session: aiohttp.ClientSession
    url: str

    async def post(self, path: str, **fields: Any) -> dict[str, Any]:
        async with self.session.post(f"{self.url}/{path}", json=fields) as reply:
            assert reply.status == 200
            body: dict[str, Any] = await reply.json()
        return body

    async def ask(self, text: str = "What is in Redis?") -> str:
        return str((await self.post("say", user="U0ADA", channel=GENERAL, text=text))["ts"])

    async def turn(self, name: str, *, on: bool = True) -> None:
        weather = (await self.post("weather", name=name, on=on))["weather"]
        assert weather[name]["on"] is on

    async def is_on(self, name: str) -> bool:
        async with self.session.get(f"{self.url}/state") as reply:
            return bool((await reply.json())["weather"][name]["on"])

    async def rows(self, thread: str) -> list[tuple[str, str]]:
        async with self.session.get(f"{self.url}/bonnet", params={"channel": GENERAL, "thread": thread}) as reply:
            return [(row["label"], row["outcome"]) for row in (await reply.json())["rows"]]

    async def answers(self, thread: str) -> list[str]:
        found = await messages(self.session, self.url)
        return [one["text"] for one in found if one.get("bot_id") and one.get("thread_ts") == thread]

    async def only_answer(self, thread: str) -> str:
        """Wait until the question is finished, and give its one answer."""

        async def is_finished() -> bool:
            return ("finish", "ok") in await self.rows(thread)

        await eventually(is_finished, 120)
        [answer] = await self.answers(thread)
        return answer


@asynccontextmanager
async def visiting(process: Process) -> AsyncIterator[Visitor]:
    url = await address(process)
    async with aiohttp.ClientSession() as session:
        yield Visitor(session, url)


def stands_still(pid: str) -> bool:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T"


async def messages(session: aiohttp.ClientSession, url: str) -> list[dict[str, Any]]:
    async with session.get(f"{url}/state") as reply:
        state = await reply.json()
    return [message for channel in state["channels"] if channel["id"] == GENERAL for message in channel["messages"]]
