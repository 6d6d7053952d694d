"""What outlives a bridge: threads, votes and questions, over a restart, a SIGTERM and a SIGKILL; and what it logs."""

import asyncio
import json
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from bridge import redis_client
from bridge.embedded_redis import EmbeddedRedis
from bridge.inbox import TAG, Kind
from bridge.settings import Role
from tests.rig import ADA, BOTH_WAYS, GENERAL, GRACE, HELP, Rig, markdown, settled, waiting

SECRET_WORDS = "marmalade telescope"


async def heard(rig: Rig) -> None:
    """Wait until a bridge that was started as a process hears."""
    await rig.slack.wait_for(lambda: rig.slack.sockets, 20)


async def killed(rig: Rig, process: Process) -> None:
    """Kill a bridge like a power switch does, and wait until Slack knows."""
    process.kill()
    await process.wait()
    await rig.slack.wait_for(lambda: not rig.slack.sockets)


@BOTH_WAYS
async def test_a_thread_and_its_answers_outlive_a_restart(rig: Rig, redis: Redis, http: bool) -> None:
    async with rig.bridge(http=http):
        ts, first = await rig.ask(ADA, GENERAL, "How are threads stored?")
        await settled(rig, redis)
        await rig.slack.react(ADA, GENERAL, first["ts"], "+1")
        await settled(rig, redis)
    async with rig.bridge(http=http):
        await rig.slack.say(ADA, GENERAL, "And keys?", thread=ts)
        await rig.answer(GENERAL, ts, 2)
        await rig.slack.react(GRACE, GENERAL, first["ts"], "-1")
        await rig.slack.unreact(ADA, GENERAL, first["ts"], "+1")
        await rig.slack.react(ADA, GENERAL, first["ts"], "-1")
        await settled(rig, redis)
    one, two = rig.kapa.asked
    assert (two.thread_id, two.is_follow_up) == (one.thread_id, True)
    votes = {key: body["reaction"] for key, body in rig.kapa.feedback.items()}
    assert votes == {
        (one.question_answer_id, f"slack:T0PLAY:{ADA}"): "downvote",
        (one.question_answer_id, f"slack:T0PLAY:{GRACE}"): "downvote",
    }


@BOTH_WAYS
async def test_what_was_taken_in_before_there_was_a_worker_is_answered_in_order(
    rig: Rig, redis: Redis, http: bool
) -> None:
    async with rig.bridge(Role.INGRESS, http=http):
        ts = await rig.slack.say(ADA, GENERAL, "one")
        await rig.slack.delivered()
        for text in ("two", "three"):
            await rig.slack.say(ADA, GENERAL, text, thread=ts)
        await rig.slack.delivered()
        assert [question.text for question in await waiting(redis)] == ["one", "two", "three"]
    async with rig.bridge(Role.WORKER):
        await rig.answer(GENERAL, ts, 3)
    assert [asked.query for asked in rig.kapa.asked] == ["one", "two", "three"]


async def test_a_question_in_flight_is_handed_back_at_once(rig: Rig) -> None:
    # A lease that nobody could wait for: whoever is next gets the question without it.
    settings: dict[str, Any] = {"bridge_lease_seconds": 3600, "bridge_drain_seconds": 0}
    async with rig.bridge(Role.INGRESS):
        async with rig.process("--role", "worker", **settings) as process:
            rig.kapa.answer_with("one two three four five six seven eight nine")
            rig.kapa.hold(after_pieces=2)
            ts = await rig.slack.say(ADA, GENERAL, "Count")
            [draft] = await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts), 20)
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 15) == 0
        rig.kapa.release()
        async with rig.bridge(Role.WORKER, **settings):
            [answer] = await rig.answer(GENERAL, ts)
    assert markdown(answer) == "one two three four five six seven eight nine"
    assert answer["ts"] == draft["ts"]
    assert len(rig.kapa.asked) == 2


async def test_what_can_be_finished_is_finished_before_the_end(rig: Rig) -> None:
    async with rig.bridge(Role.INGRESS), rig.process("--role", "worker") as process:
        rig.kapa.hold(after_pieces=2)
        ts = await rig.slack.say(ADA, GENERAL, "How are threads stored?")
        await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts), 20)
        process.terminate()
        rig.kapa.release()
        assert await asyncio.wait_for(process.wait(), 15) == 0
        [answer] = rig.replies(GENERAL, ts)
    assert "stored in Redis" in markdown(answer)
    assert not markdown(answer).endswith("…")
    assert len(rig.kapa.asked) == 1


# With the embedded Redis


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    """Give the settings of a bridge on an embedded Redis; a server that a killed bridge left is ended."""
    folder = tmp_path / "data"
    yield {"redis_url": "", "bridge_data_dir": folder, "bridge_lease_seconds": 1}
    async with EmbeddedRedis(folder).own():
        pass


async def test_kill_9_of_the_whole_bridge_loses_nothing(rig: Rig, embedded: dict[str, Any]) -> None:
    async with rig.process(**embedded) as process:
        await heard(rig)
        ts, first = await rig.ask(ADA, GENERAL, "How are threads stored?")
        rig.kapa.hold()
        other = await rig.slack.say(GRACE, HELP, "How are keys rotated?")
        await rig.slack.say(GRACE, HELP, "And installed?", thread=other)
        await rig.slack.delivered()
        await rig.kapa.wait_for(lambda: rig.kapa.held)
        await killed(rig, process)
    assert all(delivery.is_acknowledged for delivery in rig.slack.deliveries)
    rig.kapa.release()
    async with rig.process(**embedded):
        await heard(rig)
        answers = await rig.answer(HELP, other, 2, within=20)
        await rig.slack.say(ADA, GENERAL, "And keys?", thread=ts)
        await rig.answer(GENERAL, ts, 2)
        await rig.slack.react(GRACE, GENERAL, first["ts"], "+1")
        await rig.slack.react(GRACE, HELP, answers[0]["ts"], "x")
        await rig.kapa.wait_for(lambda: len(rig.kapa.feedback_log) == 2, 10)
    assert "Rotate keys" in markdown(answers[0])
    assert len(answers) == 2
    asked = [asked.query for asked in rig.kapa.asked]
    # Kapa had begun to answer when the bridge died, so it was asked that one again, and nothing else.
    assert asked.count("How are keys rotated?") == 2
    assert len(asked) == 5
    one, follow_up = (next(a for a in rig.kapa.asked if a.query == q) for q in ("How are threads stored?", "And keys?"))
    assert follow_up.thread_id == one.thread_id
    assert (one.question_answer_id, f"slack:T0PLAY:{GRACE}") in rig.kapa.feedback


async def test_a_bridge_that_was_stopped_leaves_its_data_and_no_server(rig: Rig, embedded: dict[str, Any]) -> None:
    async with rig.process(**embedded) as process:
        await heard(rig)
        ts, _ = await rig.ask(ADA, GENERAL, "How are threads stored?")
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    assert not (embedded["bridge_data_dir"] / "redis.sock").exists()
    async with EmbeddedRedis(embedded["bridge_data_dir"]).own() as url:
        client = redis_client.connect(url)
        assert await client.keys(f"*thread*{ts}")
        await client.aclose()


# What is logged


async def test_the_log_has_no_token_and_no_word_that_somebody_wrote(
    rig: Rig, redis: Redis, capfd: pytest.CaptureFixture[str]
) -> None:
    async with rig.process(bridge_log_level="info") as process:
        await heard(rig)
        rig.kapa.answer_with(f"Of {SECRET_WORDS} nothing is known.")
        rig.kapa.fault("500")
        ts, answer = await rig.ask(ADA, GENERAL, f"What of the {SECRET_WORDS}?")
        await settled(rig, redis)
        await rig.slack.react(ADA, GENERAL, answer["ts"], "+1")
        await rig.kapa.wait_for(lambda: rig.kapa.feedback_log, 10)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 15) == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    events = [json.loads(line) for line in lines]
    assert {"bridge_ready", "question_accepted", "kapa_failed", "work_done", "vote_told", "bridge_stopped"} <= {
        event["event"] for event in events
    }
    accepted = next(event for event in events if event["event"] == "question_accepted")
    assert (accepted["channel"], accepted["thread"], accepted["question"]) == (GENERAL, ts, ts)
    text = "\n".join(lines)
    for secret in (rig.slack.bot_token, rig.slack.app_token, rig.kapa.api_key, *SECRET_WORDS.split()):
        assert secret not in text, secret
    assert all(event["event"].replace("_", "").isalnum() for event in events)
    assert {event["level"] for event in events} <= {"info", "warning"}


async def test_a_bridge_hears_nothing_before_its_inbox_is_open(rig: Rig, redis: Redis) -> None:
    # A question that was there before would count as tried, and be looked for in Slack.
    async with rig.bridge():
        for kind in Kind:
            assert len(await redis.xinfo_groups(f"{TAG}:{kind}:ready")) == 1
