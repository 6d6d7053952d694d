"""Under the bonnet: what is told of a question, a reply, a vote and an edit, on each side of the bridge."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from bridge import display, redis_client
from bridge.embedded_redis import EmbeddedRedis
from bridge.inbox import Inbox, Item, Kind
from bridge.playground.bonnet import Bonnet
from bridge.playground.redis_watch import RedisWatch
from bridge.playground.redis_words import command_of
from bridge.playground.slack_page import Page
from bridge.playground.slack_rules import SlackError
from tests.rig import ADA, GENERAL, GRACE, HELP, Rig, hurry, settled
from tests.waiting import eventually

Json = dict[str, Any]


@dataclass
class Under:
    """A bridge between two worlds, and the bonnet over it."""

    rig: Rig
    redis: Redis
    bonnet: Bonnet

    async def rows(self, thread: str, channel: str = GENERAL) -> list[Json]:
        rows: list[Json] = (await self.bonnet.look(channel, thread))["rows"]
        return rows

    async def shown(self, thread: str, lane: str) -> list[tuple[str, str]]:
        return [(row["label"], row["outcome"]) for row in await self.rows(thread) if row["lane"] == lane]

    async def ask(self, text: str = "How are threads stored?", **more: Any) -> tuple[str, Json]:
        ts, answer = await self.rig.ask(ADA, GENERAL, text, **more)
        await settled(self.rig, self.redis)
        return ts, answer


@pytest.fixture
async def under(rig: Rig, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Under]:
    hurry(monkeypatch)
    # An answer that is not held is shown whole, however slow the machine is.
    monkeypatch.setattr(display, "GATHER_SECONDS", 0.5)
    watch = RedisWatch(redis, concurrency=32)
    async with watch.watching(), rig.bridge():
        yield Under(rig, redis, Bonnet(rig.slack, rig.kapa, watch, redis))


async def test_a_question_is_seen_on_all_sides_in_order_and_in_time(under: Under) -> None:
    ts, answer = await under.ask()
    seen = await under.bonnet.look(GENERAL, ts)
    [asked] = under.rig.kapa.asked
    assert seen["thread"] == {"slack": ts, "kapa": asked.thread_id}
    assert seen["answers"] == [{"message": answer["ts"], "question_answer_id": asked.question_answer_id}]
    rows = seen["rows"]
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(0 <= row["seconds"] < 5 and row["at"] <= seen["now"] for row in rows)
    assert await under.shown(ts, "events") == [("message", "ok"), ("message", "ok")]
    life = await under.shown(ts, "redis")
    assert life[:3] == [("put", "accepted"), ("take", "ok"), ("begin", "ok")]
    assert life[-1] == ("finish", "ok")
    assert await under.shown(ts, "kapa") == [("chat (stream)", "ok")]
    assert ("chat.postMessage", "ok") in await under.shown(ts, "slack")


async def test_a_row_says_what_went_over_the_wire(under: Under) -> None:
    ts, answer = await under.ask()
    first = {lane: next(row["detail"] for row in await under.rows(ts) if row["lane"] == lane) for lane in (
        "events", "redis", "kapa")}  # fmt: skip
    assert first["events"]["event"]["text"] == "How are threads stored?"
    assert (first["events"]["attempt"], first["events"]["status"]) == (0, 200)
    item = f"T0PLAY:{GENERAL}:{ts}"
    assert (first["redis"]["line"], first["redis"]["item"], first["redis"]["kind"]) == (item, item, "question")
    [asked] = under.rig.kapa.asked
    assert first["kapa"]["request"]["query"] == "How are threads stored?"
    assert first["kapa"]["question_answer_id"] == asked.question_answer_id
    assert 0 <= first["kapa"]["first_text_after"] <= first["kapa"]["whole_answer_after"]
    post = next(row["detail"] for row in await under.rows(ts) if row["label"] == "chat.postMessage")
    assert (post["args"]["thread_ts"], post["ts"]) == (ts, answer["ts"])


async def test_replies_votes_and_modals_belong_to_their_thread_and_to_no_other(under: Under) -> None:
    ts, answer = await under.ask()
    other, _ = await under.ask("Where are the keys?")
    before = await under.rows(other)
    await under.rig.slack.say(ADA, GENERAL, "And keys?", thread=ts)
    await under.rig.answer(GENERAL, ts, 2)
    await under.rig.slack.react(GRACE, GENERAL, answer["ts"], "+1")
    await under.rig.slack.give_feedback(ADA, GENERAL, answer["ts"], positive=False)
    view = (await under.rig.slack.wait_for(lambda: under.rig.slack.views(ADA), 10))[0]
    await under.rig.slack.submit(ADA, view["id"], {"kapa_words": "no"})
    await settled(under.rig, under.redis)
    await under.rig.slack.wait_for(lambda: len(under.rig.slack.ephemerals(GENERAL)) >= 2, 10)
    events = await under.shown(ts, "events")
    assert {("reaction_added", "ok"), ("block_actions", "ok"), ("view_submission", "ok")} <= set(events)
    assert [label for label, _ in await under.shown(ts, "kapa")] == [
        "chat (stream)", "chat (stream)", "feedback upsert", "feedback upsert", "feedback upsert",
    ]  # fmt: skip
    votes = [row for row in await under.rows(ts) if row["detail"].get("kind") == "vote"]
    assert [row["label"] for row in votes].count("put") == 3
    assert [row["label"] for row in votes].count("take") == 3
    assert [row["label"] for row in votes].count("finish") == 3
    assert {"views.open", "chat.postEphemeral"} <= {label for label, _ in await under.shown(ts, "slack")}
    assert len((await under.bonnet.look(GENERAL, ts))["answers"]) == 2
    assert await under.rows(other) == before
    assert await under.rows(ts, HELP) == []


async def test_an_edit_and_a_deletion_are_revisions(under: Under) -> None:
    ts, _ = await under.ask()
    await under.rig.slack.edit(ADA, GENERAL, ts, "Where are the keys?")
    await settled(under.rig, under.redis)
    await eventually(lambda: len(under.rig.kapa.asked) == 2)
    await settled(under.rig, under.redis)
    await under.rig.slack.delete(ADA, GENERAL, ts)
    await settled(under.rig, under.redis)
    await eventually(lambda: under.rig.replies(GENERAL, ts) == [])
    await settled(under.rig, under.redis)
    revisions = [outcome for label, outcome in await under.shown(ts, "redis") if label == "revise"]
    assert revisions == ["accepted", "accepted"]
    assert ("message_changed", "ok") in await under.shown(ts, "events")
    assert len(await under.shown(ts, "kapa")) == 2
    assert [label for label, _ in await under.shown(ts, "slack")].count("chat.delete") == 1


async def test_what_failed_and_was_tried_again_is_seen(under: Under) -> None:
    under.rig.kapa.fault("500")
    under.rig.slack.fault("chat.postMessage", "drop_after")
    under.rig.slack.is_doubling = True
    ts, _ = await under.ask()
    assert await under.shown(ts, "kapa") == [("chat (stream)", "500"), ("chat (stream)", "ok")]
    life = await under.shown(ts, "redis")
    assert ("retry", "ok") in life
    assert [label for label, _ in life].count("take") == [label for label, _ in life].count("retry") + 1
    assert ("put", "duplicate") in life
    assert ("chat.postMessage", "drop_after") in await under.shown(ts, "slack")


async def test_a_stream_is_seen_as_it_grows(under: Under) -> None:
    under.rig.kapa.hold(after_pieces=20)
    ts = await under.rig.slack.say(ADA, GENERAL, "How are threads stored?")
    await eventually(lambda: bool(under.rig.called("chat.startStream")))
    under.rig.kapa.release()
    await under.rig.answer(GENERAL, ts)
    calls = await under.shown(ts, "slack")
    assert {("chat.startStream", "ok"), ("chat.stopStream", "ok")} <= set(calls)


async def test_what_goes_on_has_no_end_yet(under: Under) -> None:
    under.rig.kapa.hold(after_pieces=1)
    ts = await under.rig.slack.say(ADA, GENERAL, "How are threads stored?")
    await under.rig.kapa.wait_for(lambda: under.rig.kapa.held, 10)
    [row] = [row for row in await under.rows(ts) if row["lane"] == "kapa"]
    assert (row["seconds"], row["outcome"], row["detail"]["whole_answer_after"]) == (None, "", None)
    assert row["detail"]["first_text_after"] is not None
    assert (await under.bonnet.look(GENERAL, ts))["thread"]["kapa"] is None
    under.rig.kapa.release()
    await under.rig.answer(GENERAL, ts)


async def test_long_texts_are_cut_and_only_the_newest_rows_are_told(under: Under) -> None:
    ts, _ = await under.ask("x" * 30_000)
    longest = max(len(json.dumps(row)) for row in await under.rows(ts))
    assert longest < 20_000
    for number in range(450):
        await under.rig.slack.react(ADA, GENERAL, ts, f"e{number}")
    await under.rig.slack.delivered()
    rows = await under.rows(ts)
    assert len(rows) == 400
    assert rows[-1]["detail"]["event"]["reaction"] == "e449"


async def test_a_thread_that_there_is_not_has_no_rows_and_a_channel_is_refused(under: Under) -> None:
    seen = await under.bonnet.look(GENERAL, "1.1")
    assert (seen["thread"], seen["answers"], seen["rows"]) == ({"slack": "1.1", "kapa": None}, [], [])
    with pytest.raises(SlackError, match="channel_not_found"):
        await under.bonnet.look("C404", "1.1")


async def test_the_page_tells_it(under: Under) -> None:
    ts, _ = await under.ask()
    async with (
        Page(under.rig.slack, look=under.bonnet.look).serve() as page,
        aiohttp.ClientSession(page.url) as session,
    ):
        async with session.get("/bonnet", params={"channel": GENERAL, "thread": ts}) as reply:
            seen = await reply.json()
        async with session.get("/bonnet", params={"channel": "C404", "thread": ts}) as reply:
            assert (reply.status, await reply.json()) == (400, {"error": "channel_not_found"})
    assert seen["rows"] == await under.rows(ts)


async def test_with_a_real_kapa_the_rest_is_seen(under: Under) -> None:
    ts, _ = await under.ask()
    bonnet = Bonnet(under.rig.slack, None, RedisWatch(under.redis, concurrency=32), under.redis)
    seen = await bonnet.look(GENERAL, ts)
    assert {row["lane"] for row in seen["rows"]} == {"events", "slack"}
    assert len(seen["answers"]) == 1


# Redis


async def labels_of(watch: RedisWatch, count: int) -> list[tuple[str, str]]:
    await eventually(lambda: len(watch.steps) >= count)
    return [(step.label, step.outcome) for step in sorted(watch.steps, key=lambda step: step.at)]


def item(number: int) -> Item:
    return Item(f"item-{number}", "T0PLAY:C0HELP:1.1", str(number), 'ünï"\\\n')


async def test_the_whole_life_of_a_ticket_is_followed(redis: Redis) -> None:
    watch = RedisWatch(redis, concurrency=32)
    first = Inbox(redis, Kind.QUESTION, worker="first", lease_seconds=0.01)
    second = Inbox(redis, Kind.QUESTION, worker="second", lease_seconds=0.01)
    async with watch.watching():
        await first.open()
        assert await first.put(item(1), seen=["a"]) == "accepted"
        await first.put(item(1), seen=["a"])
        [ticket] = await first.take(1, wait_seconds=1)
        await first.begin(ticket)
        await first.remember(ticket, {"message": "7"})
        [taken_over] = await eventually(lambda: second.take_over(1))
        await second.retry(taken_over, wait_seconds=0)
        [again] = await second.take(1, wait_seconds=1)
        await second.finish(again, dead_reason="too hard")
        steps = await labels_of(watch, 10)
    assert steps == [
        ("put", "accepted"),
        ("put", "duplicate"),
        ("take", "ok"),
        ("begin", "ok"),
        ("remember", "ok"),
        ("take over", "ok"),
        ("death", "ok"),
        ("retry", "ok"),
        ("take", "ok"),
        ("finish", "ok"),
    ]
    assert {step.line for step in watch.steps} == {"T0PLAY:C0HELP:1.1"}
    assert {step.detail["item"] for step in watch.steps} == {"item-1"}
    details = {step.label: step.detail for step in watch.steps}
    assert details["remember"]["notes"] == ["message"]
    assert (details["retry"]["wait_seconds"], details["retry"]["is_failure"]) == (0, True)
    assert details["finish"]["gave_up"] == "too hard"
    assert (details["begin"]["worker"], details["take over"]["worker"]) == ("first", "second")


async def test_who_no_longer_owns_its_ticket_is_seen_to_be_refused(redis: Redis) -> None:
    watch = RedisWatch(redis, concurrency=32)
    inbox = Inbox(redis, Kind.QUESTION, worker="one")
    async with watch.watching():
        await inbox.open()
        await inbox.put(item(1), seen=["a"], must_know_thread=True)
        await inbox.put(item(2), seen=["b"])
        [ticket] = await inbox.take(1, wait_seconds=1)
        await inbox.finish(ticket)
        with pytest.raises(Exception, match="item-2"):
            await inbox.finish(ticket)
        steps = await labels_of(watch, 5)
    assert [step for step in steps if step[0] == "put"] == [("put", "early"), ("put", "accepted")]
    assert [step for step in steps if step[0] == "finish"] == [("finish", "ok"), ("finish", "lost")]


async def test_the_watch_outlives_a_redis_that_goes_and_comes(tmp_path: Path) -> None:
    url = EmbeddedRedis(tmp_path).url
    client = redis_client.connect(url)
    watch = RedisWatch(client, concurrency=32)
    inbox = Inbox(client, Kind.QUESTION)

    async def heard() -> bool:
        await inbox.put(item(len(watch.steps)), seen=[])
        return bool(watch.steps)

    async with EmbeddedRedis(tmp_path).own(), watch.watching():
        await eventually(heard)
        watch.steps.clear()
    async with watch.watching():
        async with EmbeddedRedis(tmp_path).own():
            await eventually(heard)
            watch.steps.clear()
        async with EmbeddedRedis(tmp_path).own():
            await eventually(heard)
    await client.aclose()


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_words_are_read_as_they_were_sent(words: list[str]) -> None:
    def escaped(word: str) -> str:
        raw = word.encode("utf-8", "replace")
        return "".join(
            f"\\{chr(byte)}" if chr(byte) in '"\\' else chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}"
            for byte in raw
        )

    line = "1700000000.5 [0 unix:/a/b.sock] " + " ".join(f'"{escaped(word)}"' for word in words)
    command = command_of(line)
    assert command is not None
    assert command.words == [word.encode("utf-8", "replace").decode() for word in words]
    assert (command.at, command.is_inside) == (1_700_000_000.5, False)


@pytest.mark.parametrize("line", ["", "OK", "1.0 [0 lua]", 'x [0 lua] "GET"', "1.5 [0 lua] GET"])
def test_what_is_no_line_of_monitor_is_left_alone(line: str) -> None:
    assert command_of(line) is None
