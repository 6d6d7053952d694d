"""`bridge playground` as a newcomer runs it: one command, a page, an answer; and nothing that outlives it."""

import socket
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.playground.kapa import SimulatedKapa
from bridge.playground.knowledge import Knowledge
from bridge.playground.run import simulated_kapa_environment
from bridge.playground.slack import GENERAL
from tests.playground_process import address, children_of, messages, playground, stands_still, visiting
from tests.waiting import eventually


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


async def test_a_real_kapa_is_asked_and_has_a_weather_of_its_own(tmp_path: Path) -> None:
    knowledge = Knowledge({"README.md": "# Redis\n\nThreads are in Redis.\n"})
    async with (
        SimulatedKapa(knowledge).serve() as kapa,
        playground(tmp_path, environment=simulated_kapa_environment(kapa), kapa="real") as process,
        visiting(process) as visitor,
    ):
        assert "Threads are in Redis." in await visitor.only_answer(await visitor.ask())
        async with visitor.session.get(f"{visitor.url}/state") as reply:
            state = await reply.json()
    assert state["kapa"] == "real"
    assert set(state["weather"]) == {"slack_limited", "slack_drops", "duplicate", "kill_worker", "redis_away"}
    assert len(kapa.asked) == 1


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


@pytest.mark.parametrize("name", ["duplicate", "slack_drops"])
async def test_under_a_switch_that_lasts_a_question_has_one_answer(tmp_path: Path, name: str) -> None:
    async with playground(tmp_path) as process, visiting(process) as visitor:
        await visitor.turn(name)
        ts = await visitor.ask()
        await visitor.only_answer(ts)
        rows = await visitor.rows(ts)
    assert ({"duplicate": ("put", "duplicate"), "slack_drops": ("chat.startStream", "drop_after")}[name]) in rows


async def test_a_worker_that_is_killed_comes_back_and_finishes_its_answer(tmp_path: Path) -> None:
    async with playground(tmp_path) as process, visiting(process) as visitor:
        before = children_of(process.pid)
        ts = await visitor.ask()
        await eventually(lambda: visitor.answers(ts))
        await visitor.turn("kill_worker")

        async def is_back() -> bool:
            return not await visitor.is_on("kill_worker")

        await eventually(is_back)
        after = children_of(process.pid)
        assert len(set(before) - set(after)) == len(set(after) - set(before)) == 1
        await visitor.only_answer(ts)
        rows = await visitor.rows(ts)
        assert [row for row in rows if row[0] == "chat (stream)"] == [
            ("chat (stream)", "gone"),
            ("chat (stream)", "ok"),
        ]
        assert ("take over", "ok") in rows
        process.terminate()
        said, _ = await process.communicate()
    assert process.returncode == 0
    assert said.count(b"worker_ended") == 1


async def test_redis_stands_still_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    async with playground(tmp_path) as process, visiting(process) as visitor:
        under_way = await visitor.ask()
        await eventually(lambda: visitor.answers(under_way))
        await visitor.turn("redis_away")
        await eventually(lambda: any(stands_still(child) for child in children_of(process.pid)))
        asked_meanwhile = await visitor.ask()
        assert ("message", "") in await visitor.rows(asked_meanwhile)

        async def is_back() -> bool:
            return not await visitor.is_on("redis_away")

        await eventually(is_back)
        await visitor.only_answer(under_way)
        await visitor.only_answer(asked_meanwhile)
        assert ("message", "timeout") in await visitor.rows(asked_meanwhile)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel tells no child of its parent's end")
@pytest.mark.parametrize("is_redis_away", [False, True])
async def test_its_processes_end_when_it_is_killed(tmp_path: Path, is_redis_away: bool) -> None:
    async with playground(tmp_path) as process, visiting(process) as visitor:
        children = children_of(process.pid)
        assert len(children) == 3
        if is_redis_away:
            await visitor.turn("redis_away")
            await eventually(lambda: any(stands_still(child) for child in children))
        process.kill()
        await process.wait()
        await eventually(lambda: not any(Path(f"/proc/{child}/cmdline").exists() for child in children))
    async with playground(tmp_path) as again, visiting(again) as visitor:
        await visitor.only_answer(await visitor.ask("xyzzy"))
