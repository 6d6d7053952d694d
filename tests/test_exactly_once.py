"""One visible answer to one question, whatever Slack's Web API does and whenever a worker dies."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from redis.asyncio import Redis

from bridge import app
from bridge.dead_letters import DeadLetters
from bridge.inbox import TAG
from bridge.playground.slack import BOT
from bridge.playground.slack_api import WebApi
from bridge.settings import Role
from tests.rig import ADA, GENERAL, GRACE, Rig, hurry, is_draft, markdown, settled
from tests.waiting import eventually

ANSWER = "one two three four five six seven eight nine"
LONG = "\n\n".join("some words " * 20 + str(number) for number in range(60))


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(app, "SLACK_TIMEOUT", aiohttp.ClientTimeout(total=0.4))


FAULTS = ["drop_before", "drop_after", "hang", "hang_after", "500", "502", "garbage", "internal_error", "429"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("streaming", ["edit", "off"])
@pytest.mark.parametrize("method", ["chat.postMessage", "chat.update"])
async def test_a_call_that_fails_once(rig: Rig, redis: Redis, method: str, streaming: str, fault: str) -> None:
    async with rig.bridge(bridge_streaming=streaming):
        rig.kapa.answer_with(ANSWER)
        rig.kapa.hold(after_pieces=2)
        if method == "chat.postMessage":
            rig.slack.fault(method, fault)
        ts = await rig.slack.say(ADA, GENERAL, "Count")
        await rig.kapa.wait_for(lambda: rig.kapa.held)
        if streaming == "edit":
            await rig.slack.wait_for(lambda: rig.called("chat.postMessage"))
        if method == "chat.update":
            rig.slack.fault(method, fault)
        rig.kapa.release()
        await rig.answer(GENERAL, ts)
        await settled(rig, redis)
        [answer] = rig.replies(GENERAL, ts)
    assert markdown(answer) == ANSWER
    assert len(rig.kapa.asked) == 1
    assert await DeadLetters(redis).read() == []


@pytest.mark.parametrize("fault", ["drop_after", "hang_after", "500", "garbage"])
async def test_finding_an_answer_again_may_fail_too(rig: Rig, redis: Redis, fault: str) -> None:
    async with rig.bridge(bridge_streaming="off"):
        rig.kapa.answer_with(LONG)
        rig.slack.fault("chat.postMessage", "drop_after", 2)
        rig.slack.fault("conversations.replies", fault, 2)
        rig.slack.fault("chat.update", fault, 2)
        ts = await rig.slack.say(ADA, GENERAL, "Tell")
        await rig.answer(GENERAL, ts, 2)
        await settled(rig, redis)
        assert "\n\n".join(map(markdown, rig.replies(GENERAL, ts))) == LONG
    assert len(rig.kapa.asked) == 1


async def test_other_answers_in_the_thread_are_not_taken_for_this_one(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(bridge_streaming="off"):
        rig.kapa.answer_with(lambda asked: f"You said: {asked.query}")
        ts, first = await rig.ask(ADA, GENERAL, "one")
        rig.slack.fault("chat.postMessage", "drop_after")
        await rig.slack.say(ADA, GENERAL, "two", thread=ts)
        await rig.answer(GENERAL, ts, 2)
        await settled(rig, redis)
        assert list(map(markdown, rig.replies(GENERAL, ts))) == ["You said: one", "You said: two"]
        assert rig.replies(GENERAL, ts)[0]["ts"] == first["ts"]


async def test_an_answer_that_slack_limits_waits_and_comes(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(bridge_streaming="off"):
        rig.slack.fault("chat.postMessage", "429", retry_after="1")
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        await settled(rig, redis)
    assert "stored in Redis" in markdown(answer)
    assert len(rig.called("chat.postMessage")) == 2


@pytest.mark.parametrize("fault", ["invalid_blocks", "msg_blocks_too_long"])
async def test_an_answer_whose_blocks_slack_refuses_comes_without_buttons_or_as_text(rig: Rig, fault: str) -> None:
    async with rig.bridge(bridge_streaming="off"):
        rig.slack.fault("chat.postMessage", fault)
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        assert [block["type"] for block in answer["blocks"]] == ["markdown", "context"]
        rig.slack.fault("chat.postMessage", fault, 2)
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        assert [block["type"] for block in answer["blocks"]] == ["markdown"]
        rig.slack.fault("chat.postMessage", fault, 3)
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
    assert "stored in Redis" in answer["text"]
    assert "blocks" not in answer


@pytest.mark.parametrize("fault", ["invalid_blocks", "msg_blocks_too_long"])
async def test_a_stream_whose_blocks_slack_refuses_is_finished_by_an_edit(rig: Rig, redis: Redis, fault: str) -> None:
    async with rig.bridge(bridge_streaming="native"):
        rig.kapa.answer_with(ANSWER)
        rig.kapa.hold(after_pieces=2)
        ts = await rig.slack.say(ADA, GENERAL, "Count")
        await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts), 10)
        rig.slack.fault("chat.stopStream", fault)
        rig.kapa.release()
        await rig.answer(GENERAL, ts)
        await settled(rig, redis)
        [answer] = rig.replies(GENERAL, ts)
    assert (markdown(answer), is_draft(answer)) == (ANSWER, False)
    assert "chat.update" in [call.method for call in rig.slack.calls]


@pytest.mark.parametrize("streaming", ["edit", "off"])
async def test_an_answer_that_slack_refuses_is_kept_for_the_operator(rig: Rig, redis: Redis, streaming: str) -> None:
    async with rig.bridge(bridge_streaming=streaming):
        rig.kapa.answer_with(ANSWER)
        rig.kapa.hold(after_pieces=2)
        ts = await rig.slack.say(ADA, GENERAL, "Count")
        await rig.kapa.wait_for(lambda: rig.kapa.held)
        if streaming == "edit":
            await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts))
        for method in ("chat.postMessage", "chat.update"):
            rig.slack.fault(method, "is_archived", 10)
        rig.kapa.release()
        await settled(rig, redis)
        letters = DeadLetters(redis)
        [letter] = await letters.read()
        assert letter.reason == "slack: is_archived"
        rig.slack.clear_faults()
        if streaming == "edit":
            # The draft stands for the answer, so a vote on it counts.
            await rig.slack.react(ADA, GENERAL, rig.replies(GENERAL, ts)[0]["ts"], "+1")
            await rig.kapa.wait_for(lambda: rig.kapa.feedback_log)
        await letters.retry([letter.id])
        await rig.answer(GENERAL, ts)
        await settled(rig, redis)
        assert list(map(markdown, rig.replies(GENERAL, ts))) == [ANSWER]
    assert len(rig.kapa.asked) == 1


# Somebody deletes what grows


async def draft_of(rig: Rig, text: str = ANSWER) -> tuple[str, dict[str, Any]]:
    rig.kapa.answer_with(text)
    rig.kapa.hold(after_pieces=2)
    ts = await rig.slack.say(ADA, GENERAL, "Count")
    [draft] = await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts))
    assert is_draft(draft)
    return ts, draft


@pytest.mark.parametrize("fault", ["", "drop_after", "hang_after", "drop_before", "500"])
async def test_a_draft_that_is_deleted_is_posted_again_once(rig: Rig, redis: Redis, fault: str) -> None:
    async with rig.bridge():
        ts, draft = await draft_of(rig)
        await rig.slack.delete("U0BRIDGE", GENERAL, draft["ts"])
        if fault:
            rig.slack.fault("chat.postMessage", fault)
        rig.kapa.release()
        await rig.slack.wait_for(lambda: [r for r in rig.replies(GENERAL, ts) if not is_draft(r)])
        await settled(rig, redis)
        [answer] = rig.replies(GENERAL, ts)
        assert markdown(answer) == ANSWER
        assert answer["ts"] != draft["ts"]
        await rig.slack.react(GRACE, GENERAL, answer["ts"], "+1")
        await rig.kapa.wait_for(lambda: rig.kapa.feedback_log)
    assert len(rig.kapa.asked) == 1


# A worker dies


@asynccontextmanager
async def two_workers(rig: Rig, doomed: Callable[[], Awaitable[None]], **settings: Any) -> AsyncIterator[None]:
    """Let a worker process begin, kill it once `doomed` returns, and let another worker finish."""
    settings |= {"bridge_lease_seconds": 1}
    async with rig.process("--role", "worker", **settings) as process:
        await doomed()
        process.kill()
        await process.wait()
    rig.slack.clear_faults()
    rig.kapa.release()
    async with rig.bridge(Role.WORKER, **settings):
        yield


async def posted(rig: Rig, method: str = "chat.postMessage") -> None:
    await rig.slack.wait_for(lambda: rig.called(method), 15)


MOMENTS: dict[str, tuple[str, str, bool, int]] = {
    # what Slack does, to which call, whether Kapa is held after two pieces, how often Kapa may be asked
    "before Kapa's first word": ("", "", True, 2),
    "after the first draft": ("", "first", True, 2),
    "while the first draft is being posted": ("hang", "first", True, 2),
    "after the first draft, before its ts came": ("hang_after", "first", True, 2),
    "while the final edit is on its way": ("hang", "last", False, 1),
    "after the final edit, before its reply": ("hang_after", "last", False, 1),
}


CALLS = {
    "edit": {"first": "chat.postMessage", "last": "chat.update"},
    "native": {"first": "chat.startStream", "last": "chat.stopStream"},
}


@pytest.mark.parametrize("streaming", CALLS)
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_worker_is_killed_while_it_streams(rig: Rig, redis: Redis, moment: str, streaming: str) -> None:
    fault, call, is_held, asked = MOMENTS[moment]
    method = CALLS[streaming].get(call, "")
    ts = ""

    async def doomed() -> None:
        nonlocal ts
        if call == "first" and fault:
            rig.slack.fault(method, fault)
        rig.kapa.answer_with(ANSWER)
        rig.kapa.hold(after_pieces=2 if method else 0)
        ts = await rig.slack.say(ADA, GENERAL, "Count")
        await rig.kapa.wait_for(lambda: rig.kapa.held, 15)
        if method:
            await posted(rig, CALLS[streaming]["first"])
        if not is_held:
            await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts))
            rig.slack.fault(method, fault, 5)
            rig.kapa.release()
            await rig.kapa.wait_for(lambda: not rig.kapa.in_flight)
            await rig.slack.wait_for(lambda: rig.called(method))
            await answer_remembered(redis)

    async with rig.bridge(Role.INGRESS), two_workers(rig, doomed, bridge_streaming=streaming):
        await rig.answer(GENERAL, ts, within=15)
        await settled(rig, redis)
        assert list(map(markdown, rig.replies(GENERAL, ts))) == [ANSWER]
    assert len(rig.kapa.asked) == asked


async def answer_remembered(redis: Redis) -> None:
    async def is_noted() -> bool:
        return any([await redis.hexists(key, "answer") for key in await redis.keys(f"{TAG}:question:notes:*")])

    await eventually(is_noted)


@pytest.mark.parametrize("fault", ["hang", "hang_after"])
async def test_a_worker_is_killed_between_posting_and_remembering(rig: Rig, redis: Redis, fault: str) -> None:
    ts = ""

    async def doomed() -> None:
        nonlocal ts
        rig.kapa.answer_with(ANSWER)
        rig.slack.fault("chat.postMessage", fault)
        ts = await rig.slack.say(ADA, GENERAL, "Count")
        await posted(rig)

    async with rig.bridge(Role.INGRESS), two_workers(rig, doomed, bridge_streaming="off"):
        await rig.answer(GENERAL, ts, within=15)
        await settled(rig, redis)
        assert list(map(markdown, rig.replies(GENERAL, ts))) == [ANSWER]
    # What Kapa said was remembered before it was shown.
    assert len(rig.kapa.asked) == 1


async def test_an_answer_is_remembered_though_its_draft_hangs(rig: Rig, redis: Redis) -> None:
    ts = ""

    async def doomed() -> None:
        nonlocal ts
        rig.kapa.answer_with(ANSWER)
        rig.kapa.hold(after_pieces=2)
        rig.slack.fault("chat.postMessage", "hang")
        ts = await rig.slack.say(ADA, GENERAL, "Count")
        await posted(rig)
        rig.kapa.release()
        await answer_remembered(redis)
        assert len(rig.called("chat.postMessage")) == 1

    async with rig.bridge(Role.INGRESS), two_workers(rig, doomed, bridge_streaming="edit"):
        await rig.answer(GENERAL, ts, within=15)
        await settled(rig, redis)
        assert list(map(markdown, rig.replies(GENERAL, ts))) == [ANSWER]
    assert len(rig.kapa.asked) == 1


async def test_a_worker_that_was_frozen_shows_nothing_more(rig: Rig, redis: Redis) -> None:
    settings: dict[str, Any] = {"bridge_lease_seconds": 1}
    async with rig.bridge(Role.INGRESS), rig.process("--role", "worker", **settings) as process:
        rig.kapa.answer_with("the first " + ANSWER)
        rig.kapa.hold(after_pieces=2)
        ts = await rig.slack.say(ADA, GENERAL, "Count")
        [draft] = await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts), 15)
        process.send_signal(signal.SIGSTOP)
        rig.kapa.answer_with("the second " + ANSWER)
        async with rig.bridge(Role.WORKER, **settings):
            await rig.kapa.wait_for(lambda: len(rig.kapa.asked) == 2)
            rig.kapa.release()
            await rig.answer(GENERAL, ts)
            await settled(rig, redis)
        before = rig.replies(GENERAL, ts)
        process.send_signal(signal.SIGCONT)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 15) == 0
        assert rig.replies(GENERAL, ts) == before
    assert [(answer["ts"], markdown(answer)) for answer in before] == [(draft["ts"], f"the second {ANSWER}")]


@pytest.mark.parametrize("refusal", ["edit_window_closed", "cant_update_message", "message_not_found"])
async def test_a_draft_that_cannot_be_edited_any_more_leaves_nothing_behind(
    rig: Rig, redis: Redis, refusal: str
) -> None:
    async with rig.bridge(bridge_streaming="edit"):
        rig.kapa.answer_with(ANSWER)
        rig.kapa.hold(after_pieces=2)
        ts = await rig.slack.say(ADA, GENERAL, "Count")
        await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts))
        rig.slack.fault("chat.update", refusal)
        rig.kapa.release()
        await settled(rig, redis)
        assert list(map(markdown, rig.replies(GENERAL, ts))) == [ANSWER]


@dataclass
class SlowPost:
    """Slack's first post of a test: it has come (`at_slack`), and is carried out once it may (`go_on`)."""

    at_slack: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
def slow_post(monkeypatch: pytest.MonkeyPatch) -> SlowPost:
    """Let the first post be slow; to be asked for before `rig`, whose Slack is served from the start."""
    handle, post = WebApi.handle, SlowPost()

    async def slowly(api: WebApi, request: web.Request) -> web.StreamResponse:
        if request.match_info["method"] == "chat.postMessage" and not post.at_slack.is_set():
            await request.read()
            post.at_slack.set()
            await post.go_on.wait()
        return await handle(api, request)

    monkeypatch.setattr(WebApi, "handle", slowly)
    monkeypatch.setattr(app, "SLACK_TIMEOUT", aiohttp.ClientTimeout(total=10))
    return post


async def test_a_draft_under_way_at_a_stop_lands_and_is_remembered(slow_post: SlowPost, rig: Rig, redis: Redis) -> None:
    """The answer is there, its journey waits for the draft, and the worker is told to stop: no second message."""
    settings: dict[str, Any] = {"bridge_drain_seconds": 0, "bridge_lease_seconds": 3600, "bridge_streaming": "edit"}
    async with rig.bridge(Role.INGRESS), asyncio.timeout(40):
        async with rig.bridge(Role.WORKER, **settings):
            rig.kapa.answer_with(ANSWER)
            rig.kapa.hold(after_pieces=2)
            ts = await rig.slack.say(ADA, GENERAL, "Count")
            await slow_post.at_slack.wait()
            rig.kapa.release()
            await answer_remembered(redis)
            # So long after the worker was told to stop, Slack carries the post out.
            asyncio.get_running_loop().call_later(1, slow_post.go_on.set)
        async with rig.bridge(Role.WORKER, **settings):
            await rig.answer(GENERAL, ts)
            await settled(rig, redis)
        assert list(map(markdown, rig.replies(GENERAL, ts))) == [ANSWER]


async def test_a_second_copy_that_slack_does_not_let_go_keeps_no_answer_back(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(bridge_streaming="off"):
        rig.kapa.answer_with(ANSWER)
        rig.slack.fault("chat.postMessage", "drop_after")
        rig.slack.fault("conversations.replies", "500")
        rig.slack.fault("chat.delete", "cant_delete_message", 10)
        ts = await rig.slack.say(ADA, GENERAL, "Count")
        await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts))
        workspace = rig.slack.workspace
        [first] = rig.replies(GENERAL, ts)
        copy = {name: first[name] for name in ("text", "blocks", "metadata")}
        workspace.post(BOT.id, workspace.channel(GENERAL), copy, ts)
        await settled(rig, redis)
        assert rig.called("chat.delete")
        assert markdown(rig.replies(GENERAL, ts)[0]) == ANSWER
    assert await DeadLetters(redis).read() == []
