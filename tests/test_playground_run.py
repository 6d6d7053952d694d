"""`bridge playground` as a newcomer runs it: one command, a page, an answer; and nothing that outlives it."""

import asyncio
import re
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.playground.slack import GENERAL
from tests.waiting import eventually


@asynccontextmanager
async def playground(folder: Path, port: int = 0, environment: dict[str, str] | None = None) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge", "playground", "--port", str(port)),
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


async def messages(session: aiohttp.ClientSession, url: str) -> list[dict[str, Any]]:
    async with session.get(f"{url}/state") as reply:
        state = await reply.json()
    return [message for channel in state["channels"] if channel["id"] == GENERAL for message in channel["messages"]]


@pytest.mark.parametrize(
    "environment", [{}, {"SLACK_BOT_TOKEN": "no token", "REDIS_URL": "nowhere", "KAPA_API_KEY": "x y"}]
)
async def test_a_question_typed_into_the_page_is_answered_in_its_thread(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    async with playground(tmp_path, environment=environment) as process, aiohttp.ClientSession() as session:
        url = await address(process)
        question = {"user": "U0ADA", "channel": GENERAL, "text": "How does the bridge keep order without locks?"}
        async with session.post(f"{url}/say", json=question) as reply:
            assert reply.status == 200

        async def answered() -> list[dict[str, Any]]:
            found = [message for message in await messages(session, url) if message.get("bot_id")]
            return [message for message in found if "conversation" in message["text"]]

        [answer] = await eventually(answered)
        assert answer["thread_ts"] in {message["ts"] for message in await messages(session, url)}
        process.terminate()
        await process.communicate()
    assert process.returncode == 0


async def test_a_taken_port_is_told_in_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with playground(tmp_path, port) as process:
            said, _ = await process.communicate()
    assert process.returncode == 1
    assert said.decode() == f"--port: cannot listen on port {port} (Address already in use); give another\n"


async def test_a_folder_that_cannot_be_made_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file in the way", encoding="utf-8")
    async with playground(tmp_path) as process:
        said, _ = await process.communicate()
    assert process.returncode == 1
    assert said.decode().startswith("BRIDGE_DATA_DIR: ")
    assert said.count(b"\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel tells no child of its parent's end")
async def test_its_bridge_ends_when_it_is_killed(tmp_path: Path) -> None:
    async with playground(tmp_path) as process:
        await address(process)
        children = children_of(process.pid)
        assert children
        process.kill()
        await process.wait()
        await eventually(lambda: not any(Path(f"/proc/{child}/cmdline").exists() for child in children))
    async with playground(tmp_path) as again:
        assert await address(again)
