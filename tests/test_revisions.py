"""Questions that people edit or delete: before, while and after they are answered."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from bridge.dead_letters import DeadLetters
from bridge.inbox import FINISHED, TAG, Inbox, Item, Kind, Put, RevisedError
from bridge.kapa.client import KapaClient
from bridge.playground.kapa import Asked
from bridge.settings import Role
from bridge.slack.write import WORDS
from bridge.store import Store
from tests.rig import ADA, BOTH_WAYS, GENERAL, GRACE, Rig, hurry, markdown, settled, waiting
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def echo(asked: Asked) -> str:
    return f"You said: {asked.query}"


def shown(rig: Rig, ts: str) -> list[str]:
    return [markdown(reply) for reply in rig.replies(GENERAL, ts)]


def asked(rig: Rig) -> list[str]:
    return [one.query for one in rig.kapa.asked]


async def done(rig: Rig, redis: Redis) -> None:
    await settled(rig, redis)
    assert [key async for key in redis.scan_iter(f"{TAG}:question:notes:*")] == []


# Edits


@BOTH_WAYS
@pytest.mark.parametrize("streaming", ["auto", "edit", "off"])
async def test_an_edited_question_is_asked_again_and_its_answer_edited_in_place(
    rig: Rig, redis: Redis, http: bool, streaming: str
) -> None:
    async with rig.bridge(http=http, bridge_streaming=streaming):
        rig.kapa.answer_with(echo)
        ts, before = await rig.ask(ADA, GENERAL, "Wich one?")
        await rig.slack.edit(ADA, GENERAL, ts, "Which one?")
        await rig.slack.wait_for(lambda: shown(rig, ts) == ["You said: Which one?"], 10)
        await done(rig, redis)
        [after] = rig.replies(GENERAL, ts)
        await rig.slack.react(GRACE, GENERAL, after["ts"], "+1")
        await rig.kapa.wait_for(lambda: rig.kapa.feedback)
        # The conversation goes on from the new question.
        await rig.slack.say(ADA, GENERAL, "And then?", thread=ts)
        await rig.answer(GENERAL, ts, 2)
    assert after["ts"] == before["ts"]
    first, second, third = rig.kapa.asked
    assert not second.is_follow_up
    assert third.thread_id == second.thread_id != first.thread_id
    assert [vote["question_answer"] for vote in rig.kapa.feedback_log] == [second.question_answer_id]


async def test_a_shorter_answer_leaves_no_part_of_the_longer_one(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with("long words " * 2_000)
        ts = await rig.slack.say(ADA, GENERAL, "All?")
        await rig.answer(GENERAL, ts, 2)
        await settled(rig, redis)
        rig.kapa.answer_with("Short.")
        await rig.slack.edit(ADA, GENERAL, ts, "Briefly?")
        await rig.slack.wait_for(lambda: shown(rig, ts) == ["Short."], 10)
        await done(rig, redis)
        assert shown(rig, ts) == ["Short."]


async def test_an_edited_reply_goes_on_in_the_same_conversation(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, _ = await rig.ask(ADA, GENERAL, "First")
        reply = await rig.slack.say(ADA, GENERAL, "Secnd", thread=ts)
        await rig.answer(GENERAL, ts, 2)
        await settled(rig, redis)
        await rig.slack.edit(ADA, GENERAL, reply, "Second")
        await rig.slack.wait_for(lambda: shown(rig, ts) == ["You said: First", "You said: Second"], 10)
    assert len({one.thread_id for one in rig.kapa.asked}) == 1


async def test_what_is_no_edit_of_a_question_changes_nothing(rig: Rig, redis: Redis) -> None:
    """An unfurl, an edit after an hour, to the same words, to another's attention, of what was never a question."""
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, _ = await rig.ask(ADA, GENERAL, "See https://example.com")
        await settled(rig, redis)
        workspace = rig.slack.workspace
        message = workspace.channel(GENERAL).messages[ts]
        event = {"type": "message", "subtype": "message_changed", "channel": GENERAL, "channel_type": "channel"}
        unfurled = {**message, "attachments": [{"id": 1, "title": "Example"}]}
        now = workspace.next_ts()
        rig.slack.deliver({**event, "ts": now, "event_ts": now, "message": unfurled, "previous_message": message})
        late = f"{float(ts) + 3_601:.6f}"
        edited = {**message, "text": "Later?", "edited": {"user": ADA, "ts": late}}
        rig.slack.deliver({**event, "ts": late, "event_ts": late, "message": edited, "previous_message": message})
        for text in (message["text"], f"<@{GRACE}> could you look?"):
            await rig.slack.edit(ADA, GENERAL, ts, text)
        aside = await rig.slack.say(ADA, GENERAL, f"<@{GRACE}> hello")
        await rig.slack.edit(ADA, GENERAL, aside, "Hello, all?")
        await done(rig, redis)
        assert shown(rig, ts) == ["You said: See https://example.com"]
        assert asked(rig) == ["See https://example.com"]


async def test_an_answer_that_someone_replied_to_stays(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, _ = await rig.ask(ADA, GENERAL, "First")
        await settled(rig, redis)
        # Not for the bridge, and yet a reply.
        await rig.slack.say(GRACE, GENERAL, f"<@{ADA}> I think so too", thread=ts)
        await rig.slack.edit(ADA, GENERAL, ts, "Something else")
        await done(rig, redis)
        assert shown(rig, ts) == ["You said: First"]
        assert asked(rig) == ["First"]


@BOTH_WAYS
async def test_an_edit_while_it_is_answered_drops_the_running_answer(rig: Rig, redis: Redis, http: bool) -> None:
    async with rig.bridge(http=http):
        rig.kapa.answer_with(echo)
        rig.kapa.hold(after_pieces=1)
        ts = await rig.slack.say(ADA, GENERAL, "Wich one is it?")
        [draft] = await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts), 10)
        await rig.slack.edit(ADA, GENERAL, ts, "Which one is it?")
        await rig.kapa.wait_for(lambda: len(rig.kapa.asked) == 2, 10)
        rig.kapa.release()
        await rig.slack.wait_for(lambda: shown(rig, ts) == ["You said: Which one is it?"], 10)
        await done(rig, redis)
        [answer] = rig.replies(GENERAL, ts)
    assert answer["ts"] == draft["ts"]
    assert answer.get("streaming_state") in {None, "completed"}
    assert asked(rig) == ["Wich one is it?", "Which one is it?"]


async def test_many_edits_come_to_the_last_one(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        rig.kapa.hold()
        ts = await rig.slack.say(ADA, GENERAL, "Version 0")
        await rig.kapa.wait_for(lambda: rig.kapa.held, 10)
        for number in range(1, 6):
            await rig.slack.edit(ADA, GENERAL, ts, f"Version {number}")
            await rig.slack.delivered()
        rig.kapa.release()
        await rig.slack.wait_for(lambda: shown(rig, ts) == ["You said: Version 5"], 10)
        await done(rig, redis)
        assert shown(rig, ts) == ["You said: Version 5"]


async def test_a_question_that_waits_its_turn_is_asked_as_it_is_by_then(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        rig.kapa.hold()
        ts = await rig.slack.say(ADA, GENERAL, "First")
        await rig.kapa.wait_for(lambda: rig.kapa.held, 10)
        second = await rig.slack.say(ADA, GENERAL, "Secnd", thread=ts)
        await rig.slack.say(ADA, GENERAL, "Third", thread=ts)
        await rig.slack.delivered()
        await rig.slack.edit(ADA, GENERAL, second, "Second")
        await rig.slack.delivered()
        rig.kapa.release()
        await rig.answer(GENERAL, ts, 3)
        await done(rig, redis)
    assert asked(rig) == ["First", "Second", "Third"]


async def test_an_edit_that_is_delivered_twice_is_asked_once(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, _ = await rig.ask(ADA, GENERAL, "Wich one?")
        await settled(rig, redis)
        await rig.slack.edit(ADA, GENERAL, ts, "Which one?")
        await rig.slack.delivered()
        edits = [delivery.event_id for delivery in rig.slack.deliveries]
        await done(rig, redis)
        for event_id in edits:
            rig.slack.redeliver(event_id)
        await done(rig, redis)
    assert asked(rig) == ["Wich one?", "Which one?"]


async def test_the_old_answer_stays_where_there_is_no_new_one(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, _ = await rig.ask(ADA, GENERAL, "First")
        await settled(rig, redis)
        rig.kapa.fault("500", 20)
        await rig.slack.edit(ADA, GENERAL, ts, "Second")
        await settled(rig, redis)
        assert shown(rig, ts) == ["You said: First"]


async def test_a_vote_on_the_old_answer_is_none_on_the_new_one(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, answer = await rig.ask(ADA, GENERAL, "First")
        await rig.slack.react(GRACE, GENERAL, answer["ts"], "+1")
        await settled(rig, redis)
        await rig.slack.edit(ADA, GENERAL, ts, "Second")
        await settled(rig, redis)
        await rig.slack.react(GRACE, GENERAL, answer["ts"], "heart")
        await settled(rig, redis)
    told = [vote["question_answer"] for vote in rig.kapa.feedback_log]
    assert told == [one.question_answer_id for one in rig.kapa.asked]


async def test_what_a_dead_worker_was_answering_is_asked_as_it_was_edited(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(Role.INGRESS):
        rig.kapa.answer_with(echo)
        rig.kapa.hold(after_pieces=1)
        async with rig.process("--role", "worker", bridge_lease_seconds=1) as worker:
            ts = await rig.slack.say(ADA, GENERAL, "Wich one is it?")
            await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts), 20)
            worker.kill()
            await worker.wait()
        await rig.slack.edit(ADA, GENERAL, ts, "Which one is it?")
        await rig.slack.delivered()
        rig.kapa.release()
        async with rig.process("--role", "worker", bridge_lease_seconds=1):
            await rig.slack.wait_for(lambda: shown(rig, ts) == ["You said: Which one is it?"], 20)
            await done(rig, redis)
    assert asked(rig) == ["Wich one is it?", "Which one is it?"]


async def test_an_answer_that_stays_can_still_be_voted_on(rig: Rig, redis: Redis) -> None:
    """Somebody replied, or Kapa had no new one, or the question is gone and somebody else had voted."""
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, answer = await rig.ask(ADA, GENERAL, "First")
        await settled(rig, redis)
        await rig.slack.react(GRACE, GENERAL, answer["ts"], "+1")
        await rig.slack.say(GRACE, GENERAL, f"<@{ADA}> I think so too", thread=ts)
        await rig.slack.edit(ADA, GENERAL, ts, "Second")
        await settled(rig, redis)
        await rig.slack.react(ADA, GENERAL, answer["ts"], "-1")
        await settled(rig, redis)
        await rig.slack.delete(ADA, GENERAL, ts)
        await settled(rig, redis)
        await rig.slack.give_feedback(ADA, GENERAL, answer["ts"], positive=True)
        await settled(rig, redis)
        other, reply = await rig.ask(ADA, GENERAL, "Third")
        await settled(rig, redis)
        rig.kapa.fault("500", 20)
        await rig.slack.edit(ADA, GENERAL, other, "Fourth")
        await settled(rig, redis)
        await rig.slack.react(GRACE, GENERAL, reply["ts"], "+1")
        await settled(rig, redis)
    first, third = rig.kapa.asked
    told = [(vote["question_answer"], vote["reaction"]) for vote in rig.kapa.feedback_log]
    assert told == [
        *((first.question_answer_id, reaction) for reaction in ("upvote", "downvote", "upvote")),
        (third.question_answer_id, "upvote"),
    ]


async def test_what_is_said_of_an_answer_is_told_of_that_answer(rig: Rig, redis: Redis) -> None:
    """The modal is open, or the emoji is put on, while the question is edited and answered anew."""
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, answer = await rig.ask(ADA, GENERAL, "First")
        await settled(rig, redis)
        await rig.slack.give_feedback(GRACE, GENERAL, answer["ts"], positive=False)
        [modal] = await rig.slack.wait_for(lambda: rig.slack.views(GRACE), 10)
        await settled(rig, redis)
        rig.kapa.hold()
        await rig.slack.edit(ADA, GENERAL, ts, "Second")
        await rig.kapa.wait_for(lambda: rig.kapa.held, 10)
        # The old answer is on the screen.
        await rig.slack.react(ADA, GENERAL, answer["ts"], "-1")
        await rig.kapa.wait_for(lambda: len(rig.kapa.feedback_log) == 2, 10)
        rig.kapa.release()
        await settled(rig, redis)
        await rig.slack.submit(GRACE, modal["id"], {WORDS: "The first is wrong"})
        await settled(rig, redis)
        await rig.slack.react(GRACE, GENERAL, answer["ts"], "+1")
        await settled(rig, redis)
    first, second = (one.question_answer_id for one in rig.kapa.asked)
    told = [(vote["question_answer"], vote["reaction"]) for vote in rig.kapa.feedback_log]
    assert told == [(first, "downvote"), (first, "downvote"), (first, "downvote"), (second, "upvote")]
    assert rig.kapa.feedback_log[2]["comment"]["issue"] == "The first is wrong"
    # What was said of the other answer is no part of this vote.
    assert "comment" not in rig.kapa.feedback_log[3]


async def test_a_vote_does_not_bring_an_answer_back_that_was_replaced_meanwhile(
    rig: Rig, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert, is_told, goes_on = KapaClient.upsert_feedback, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **options: Any) -> None:
        await upsert(*args, **options)
        is_told.set()
        await goes_on.wait()

    monkeypatch.setattr(KapaClient, "upsert_feedback", slow)
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, answer = await rig.ask(ADA, GENERAL, "First")
        await settled(rig, redis)
        await rig.slack.react(ADA, GENERAL, answer["ts"], "-1")
        await is_told.wait()
        await rig.slack.edit(ADA, GENERAL, ts, "Second")
        await rig.slack.wait_for(lambda: shown(rig, ts) == ["You said: Second"], 10)
        await eventually_no_question(redis)
        goes_on.set()
        await settled(rig, redis)
        await rig.slack.react(GRACE, GENERAL, answer["ts"], "+1")
        await settled(rig, redis)
    first, second = (one.question_answer_id for one in rig.kapa.asked)
    told = [(vote["question_answer"], vote["reaction"]) for vote in rig.kapa.feedback_log]
    assert told == [(first, "downvote"), (second, "upvote")]


async def test_a_vote_that_kapa_is_away_for_keeps_its_answer(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, answer = await rig.ask(ADA, GENERAL, "First")
        await settled(rig, redis)
        rig.kapa.fault("500", 100, endpoint="feedback")
        await rig.slack.react(GRACE, GENERAL, answer["ts"], "-1")
        await rig.kapa.wait_for(lambda: rig.kapa.refused[500], 10)
        await rig.slack.delete(ADA, GENERAL, ts)
        await rig.slack.delivered()
        await eventually_no_question(redis)
        rig.kapa.clear_faults()
        await settled(rig, redis)
        assert shown(rig, ts) == ["You said: First"]
    assert [vote["reaction"] for vote in rig.kapa.feedback_log] == ["downvote"]


async def eventually_no_question(redis: Redis) -> None:
    async def nothing_waits() -> bool:
        return not [key async for key in redis.scan_iter(f"{TAG}:question:line:*")]

    await eventually(nothing_waits)


@pytest.mark.parametrize("change", ["edit", "delete"])
async def test_a_dead_letter_undoes_no_edit_and_answers_no_question_that_is_gone(
    rig: Rig, redis: Redis, change: str
) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, _ = await rig.ask(ADA, GENERAL, "First")
        await settled(rig, redis)
        rig.kapa.fault("500", 5)
        reply = await rig.slack.say(ADA, GENERAL, "Second", thread=ts)
        await rig.answer(GENERAL, ts, 2)
        await settled(rig, redis)
        letters = DeadLetters(redis)
        [letter] = await letters.read()
        rig.kapa.clear_faults()
        if change == "edit":
            await rig.slack.edit(ADA, GENERAL, reply, "Third")
        else:
            await rig.slack.delete(ADA, GENERAL, reply)
        await settled(rig, redis)
        after = shown(rig, ts)
        assert await letters.retry([letter.id]) == []
        await settled(rig, redis)
        assert shown(rig, ts) == after
        assert await letters.read() == []
    assert after == ["You said: First", "You said: Third"][: 2 if change == "edit" else 1]


async def test_an_edit_that_overtakes_its_question_is_what_is_asked(rig: Rig, redis: Redis) -> None:
    """The question's first delivery failed, and Slack sends it again after the edit."""
    async with rig.bridge(Role.INGRESS):
        ts = await rig.slack.say(ADA, GENERAL, "Wich one?")
        await rig.slack.delivered()
        question = rig.slack.deliveries[-1].event_id
        await redis.flushdb()
        await rig.slack.edit(ADA, GENERAL, ts, "Which one?")
        await rig.slack.delivered()
        assert await waiting(redis) == []
        rig.slack.redeliver(question)
        await rig.slack.delivered()
        assert [one.text for one in await waiting(redis)] == ["Which one?"]


async def test_what_is_edited_to_be_no_question_is_not_answered(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        rig.kapa.hold(after_pieces=1)
        ts = await rig.slack.say(ADA, GENERAL, "Where is it then?")
        await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts), 10)
        await rig.slack.edit(ADA, GENERAL, ts, f"<@{GRACE}> where is it?")
        await rig.slack.wait_for(lambda: not rig.replies(GENERAL, ts), 10)
        rig.kapa.release()
        await done(rig, redis)
        assert shown(rig, ts) == []


async def test_an_edit_into_a_mention_is_asked_once(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(bridge_answer="mention"):
        rig.kapa.answer_with(echo)
        rig.kapa.hold()
        ts = await rig.slack.say(ADA, GENERAL, "How?")
        await rig.slack.delivered()
        await rig.slack.edit(ADA, GENERAL, ts, "<@U0BRIDGE> How?")
        await rig.kapa.wait_for(lambda: rig.kapa.held, 10)
        await rig.slack.delivered()
        rig.kapa.release()
        await rig.answer(GENERAL, ts)
        await done(rig, redis)
    assert asked(rig) == ["How?"]


async def test_an_interrupted_stream_gives_its_place_back(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(bridge_streaming="native"):
        rig.kapa.answer_with(echo)
        rig.kapa.hold(after_pieces=1)
        ts = await rig.slack.say(ADA, GENERAL, "Wich one is it?")
        # The next attempt knows of the stream by then.
        await eventually(lambda: redis.hexists(f"{TAG}:question:notes:T0PLAY:{GENERAL}:{ts}", "posts"))
        await rig.slack.edit(ADA, GENERAL, ts, "Which one is it?")
        await rig.kapa.wait_for(lambda: len(rig.kapa.asked) == 2, 10)
        rig.kapa.release()
        await rig.answer(GENERAL, ts)
        await done(rig, redis)
        seconds, _ = await redis.time()
        assert await redis.zcount(f"{TAG}:streams:T0PLAY", "-inf", (seconds + 62) * 1000) == 1
        assert await redis.zcard(f"{TAG}:streams:T0PLAY") == 1


async def test_edits_that_come_late_undo_nothing(rig: Rig, redis: Redis) -> None:
    """Slack sends an edit again that it had no answer to, when a newer one, or the deletion, was taken in."""
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, _ = await rig.ask(ADA, GENERAL, "First")
        reply = await rig.slack.say(ADA, GENERAL, "Version 0", thread=ts)
        await rig.answer(GENERAL, ts, 2)
        await settled(rig, redis)
        workspace = rig.slack.workspace
        message = workspace.channel(GENERAL).messages[reply]
        at = workspace.next_ts()
        late: dict[str, Any] = {"type": "message", "subtype": "message_changed", "channel": GENERAL, "ts": at}
        edited = {**message, "text": "Version 1", "edited": {"user": ADA, "ts": at}}
        late |= {"event_ts": at, "channel_type": "channel", "message": edited, "previous_message": dict(message)}
        await rig.slack.edit(ADA, GENERAL, reply, "Version 2")
        await settled(rig, redis)
        rig.slack.deliver(late)
        await settled(rig, redis)
        assert shown(rig, ts) == ["You said: First", "You said: Version 2"]
        await rig.slack.delete(ADA, GENERAL, reply)
        await settled(rig, redis)
        rig.slack.deliver(late)
        await settled(rig, redis)
        assert shown(rig, ts) == ["You said: First"]


async def test_a_vote_on_what_shows_of_the_new_answer_waits_for_it(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, answer = await rig.ask(ADA, GENERAL, "First")
        await settled(rig, redis)
        rig.kapa.answer_with("many words " * 1_500)
        rig.slack.fault("chat.postMessage", "429", 1, retry_after="2")
        await rig.slack.edit(ADA, GENERAL, ts, "Second")
        await rig.slack.wait_for(lambda: "many words" in shown(rig, ts)[0], 10)
        await rig.slack.react(GRACE, GENERAL, answer["ts"], "+1")
        await rig.answer(GENERAL, ts, 2, within=20)
        await settled(rig, redis)
    assert [vote["question_answer"] for vote in rig.kapa.feedback_log] == [rig.kapa.asked[1].question_answer_id]


async def test_nothing_of_a_longer_draft_stays_below_a_shorter_answer(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(bridge_streaming="edit"):
        rig.kapa.answer_with("long words " * 2_000)
        rig.kapa.hold(after_pieces=1_000)
        ts = await rig.slack.say(ADA, GENERAL, "All?")
        await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts), 10)
        rig.slack.fault("chat.postMessage", "drop_after")
        rig.kapa.release()
        rig.kapa.hold(after_pieces=1_500)
        await rig.slack.wait_for(lambda: len(rig.replies(GENERAL, ts)) == 2, 20)
        rig.kapa.answer_with("Short.")
        await rig.slack.edit(ADA, GENERAL, ts, "Briefly?")
        await rig.slack.delivered()
        rig.kapa.release()
        await done(rig, redis)
        assert shown(rig, ts) == ["Short."]


async def test_an_answer_stays_where_its_question_is_edited_to_be_none(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, _ = await rig.ask(ADA, GENERAL, "First")
        await settled(rig, redis)
        rig.kapa.hold()
        await rig.slack.edit(ADA, GENERAL, ts, "Second")
        await rig.kapa.wait_for(lambda: rig.kapa.held, 10)
        await rig.slack.edit(ADA, GENERAL, ts, f"<@{GRACE}> could you look?")
        await rig.slack.delivered()
        await done(rig, redis)
        rig.kapa.release()
        assert shown(rig, ts) == ["You said: First"]


# Deletions


@BOTH_WAYS
@pytest.mark.parametrize("answer", ["Here it is.", "long words " * 2_000], ids=["short", "in two messages"])
async def test_a_deleted_question_takes_its_answer_along(rig: Rig, redis: Redis, http: bool, answer: str) -> None:
    async with rig.bridge(http=http):
        rig.kapa.answer_with(answer)
        ts = await rig.slack.say(ADA, GENERAL, "Where?")
        await rig.answer(GENERAL, ts, len(answer) // 11_500 + 1)
        await rig.slack.delete(ADA, GENERAL, ts)
        await rig.slack.wait_for(lambda: not rig.slack.thread(GENERAL, ts), 10)
        await done(rig, redis)
    assert [message for message in rig.slack.messages(GENERAL) if message.get("bot_id")] == []


async def test_a_deleted_reply_takes_only_its_own_answer_along(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, _ = await rig.ask(ADA, GENERAL, "First")
        reply = await rig.slack.say(ADA, GENERAL, "Second", thread=ts)
        await rig.answer(GENERAL, ts, 2)
        await rig.slack.say(ADA, GENERAL, "Third", thread=ts)
        await rig.answer(GENERAL, ts, 3)
        await rig.slack.delete(ADA, GENERAL, reply)
        await done(rig, redis)
        assert shown(rig, ts) == ["You said: First", "You said: Third"]


@pytest.mark.parametrize("by", ["emoji", "button"])
async def test_an_answer_that_was_voted_on_stays(rig: Rig, redis: Redis, by: str) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, answer = await rig.ask(ADA, GENERAL, "First")
        if by == "emoji":
            await rig.slack.react(GRACE, GENERAL, answer["ts"], "+1")
        else:
            await rig.slack.give_feedback(GRACE, GENERAL, answer["ts"], positive=True)
        await settled(rig, redis)
        await rig.slack.delete(ADA, GENERAL, ts)
        await done(rig, redis)
        assert shown(rig, ts) == ["You said: First"]


@BOTH_WAYS
@pytest.mark.parametrize("pieces", [0, 1], ids=["before the first words", "after them"])
async def test_no_answer_comes_to_a_question_that_is_deleted_meanwhile(
    rig: Rig, redis: Redis, http: bool, pieces: int
) -> None:
    async with rig.bridge(http=http):
        rig.kapa.answer_with(echo)
        rig.kapa.hold(after_pieces=pieces)
        ts = await rig.slack.say(ADA, GENERAL, "Where is it?")
        await rig.kapa.wait_for(lambda: rig.kapa.held, 10)
        if pieces:
            await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts), 10)
        await rig.slack.delete(ADA, GENERAL, ts)
        await done(rig, redis)
        rig.kapa.release()
        await rig.kapa.wait_for(lambda: not rig.kapa.in_flight, 10)
        await rig.slack.wait_for(lambda: not rig.slack.thread(GENERAL, ts), 10)
        await rig.slack.wait_for(lambda: rig.slack.status(GENERAL, ts) == {})
    assert rig.called("chat.postMessage") == []


async def test_a_question_that_is_deleted_while_it_waits_is_not_asked(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        rig.kapa.hold()
        ts = await rig.slack.say(ADA, GENERAL, "First")
        await rig.kapa.wait_for(lambda: rig.kapa.held, 10)
        second = await rig.slack.say(ADA, GENERAL, "Second", thread=ts)
        await rig.slack.say(ADA, GENERAL, "Third", thread=ts)
        await rig.slack.delivered()
        await rig.slack.delete(ADA, GENERAL, second)
        await rig.slack.delivered()
        rig.kapa.release()
        await rig.answer(GENERAL, ts, 2)
        await done(rig, redis)
    assert asked(rig) == ["First", "Third"]


async def test_a_question_that_is_gone_before_it_is_delivered_is_not_answered(rig: Rig, redis: Redis) -> None:
    """Its first delivery failed, and Slack sends it again after the news of its deletion."""
    async with rig.bridge(Role.INGRESS):
        ts = await rig.slack.say(ADA, GENERAL, "Where?")
        await rig.slack.delivered()
        question = rig.slack.deliveries[-1].event_id
        assert len(await waiting(redis)) == 1
        await redis.flushdb()
        await rig.slack.delete(ADA, GENERAL, ts)
        await rig.slack.delivered()
        rig.slack.redeliver(question)
        await rig.slack.delivered()
        assert await waiting(redis) == []


async def test_what_nobody_asked_is_deleted_without_a_word(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, _ = await rig.ask(ADA, GENERAL, "First")
        aside = await rig.slack.say(GRACE, GENERAL, f"<@{ADA}> me too", thread=ts)
        await rig.slack.delete(GRACE, GENERAL, aside)
        other = await rig.slack.say(GRACE, GENERAL, f"<@{ADA}> hello")
        await rig.slack.delete(GRACE, GENERAL, other)
        await done(rig, redis)
        assert shown(rig, ts) == ["You said: First"]
        assert rig.called("conversations.replies") == []


@pytest.mark.parametrize("fault", ["500", "429", "drop_after"])
@pytest.mark.parametrize("method", ["conversations.replies", "chat.delete"])
async def test_a_deletion_that_slack_does_not_do_at_once_is_done_later(
    rig: Rig, redis: Redis, method: str, fault: str
) -> None:
    async with rig.bridge():
        rig.kapa.answer_with(echo)
        ts, _ = await rig.ask(ADA, GENERAL, "First")
        await settled(rig, redis)
        rig.slack.fault(method, fault)
        await rig.slack.delete(ADA, GENERAL, ts)
        await done(rig, redis)
        assert rig.slack.thread(GENERAL, ts) == []


# The inbox alone


@pytest.fixture
async def inbox(redis: Redis) -> Inbox:
    inbox = Inbox(redis, Kind.QUESTION, worker="a")
    await inbox.open()
    return inbox


def item(order: str, name: str = "1") -> Item:
    return Item(f"t:c:{name}", "t:c:1", order, order)


async def put(inbox: Inbox, *names: str) -> None:
    for name in names:
        assert await inbox.put(item(name, name), seen=[f"t:c:{name}"], thread_seconds=100) is Put.ACCEPTED


async def revise(inbox: Inbox, order: str, name: str = "1", **more: Any) -> Put:
    return await inbox.revise(item(order, name), message=f"t:c:{name}", **{"is_gone": False, **more})


async def finish_one(inbox: Inbox) -> None:
    [ticket] = await inbox.take(5, wait_seconds=0.01)
    await inbox.finish(ticket)


async def test_a_ticket_that_nobody_has_taken_yet_carries_the_new_words(inbox: Inbox) -> None:
    await put(inbox, "1")
    assert await revise(inbox, "2") is Put.REVISED
    [ticket] = await inbox.take(5, wait_seconds=0.01)
    assert ticket.item.payload == "2"
    await inbox.finish(ticket)


async def test_what_is_done_about_the_old_words_is_refused(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, "1")
    [ticket] = await inbox.take(5, wait_seconds=0.01)
    await inbox.remember(ticket, {"answer": "old", "posts": "[]"})
    assert await inbox.revised([ticket]) == set()
    assert await revise(inbox, "2") is Put.REVISED
    assert await inbox.revised([ticket]) == {ticket.id}
    for late in (inbox.begin(ticket), inbox.remember(ticket, {"answer": "old"}), inbox.finish(ticket)):
        with pytest.raises(RevisedError):
            await late
    again = await inbox.reread(ticket)
    assert (again.id, again.item.payload, again.notes) == (ticket.id, "2", {"posts": "[]"})
    assert await inbox.revised([again]) == set()
    await inbox.finish(again)
    assert await redis.exists(f"{TAG}:question:line:t:c:1") == 0


async def test_revisions_count_by_their_time(inbox: Inbox) -> None:
    await put(inbox, "1")
    assert await revise(inbox, "3") is Put.REVISED
    assert await revise(inbox, "2") is Put.DUPLICATE
    assert await revise(inbox, "3") is Put.DUPLICATE
    assert await revise(inbox, "4") is Put.REVISED
    [ticket] = await inbox.take(5, wait_seconds=0.01)
    assert ticket.item.payload == "4"


async def test_the_newest_edit_waits_for_the_message_that_it_overtook(inbox: Inbox) -> None:
    await put(inbox, "1")
    await finish_one(inbox)
    for order in ("4", "3"):
        assert await revise(inbox, order, "2") is Put.UNKNOWN_QUESTION
    assert await inbox.put(item("2", "2"), seen=["t:c:2"], thread_seconds=100) is Put.ACCEPTED
    [ticket] = await inbox.take(5, wait_seconds=0.01)
    assert ticket.item.payload == "4"
    await inbox.finish(ticket)
    # Sent again, it is not asked again.
    assert await revise(inbox, "4", "2") is Put.DUPLICATE


async def test_a_revised_item_keeps_its_place_in_line(inbox: Inbox) -> None:
    await put(inbox, "1", "2", "3")
    assert await revise(inbox, "9", "2") is Put.REVISED
    seen = []
    while tickets := await inbox.take(5, wait_seconds=0.01):
        seen += [ticket.item.payload for ticket in tickets]
        await inbox.finish(tickets[0])
    assert seen == ["1", "9", "3"]


async def test_a_finished_item_comes_again_with_a_note(inbox: Inbox) -> None:
    await put(inbox, "1")
    await finish_one(inbox)
    assert await revise(inbox, "2") is Put.ACCEPTED
    [again] = await inbox.take(5, wait_seconds=0.01)
    assert (again.item.payload, again.notes) == ("2", {FINISHED: "1"})
    # An edit of the edit knows it too.
    assert await revise(inbox, "3") is Put.REVISED
    assert (await inbox.reread(again)).notes == {FINISHED: "1"}


@pytest.mark.parametrize(("is_gone", "age"), [(False, 0), (False, 10**6), (True, 0)])
async def test_what_was_never_put_is_not_revised(inbox: Inbox, is_gone: bool, age: float) -> None:
    await put(inbox, "1")
    await finish_one(inbox)
    assert await revise(inbox, "3", "2", is_gone=is_gone, age_seconds=age) is Put.UNKNOWN_QUESTION
    late = await inbox.put(item("2", "2"), seen=["t:c:2"], thread_seconds=100)
    assert late is (Put.DUPLICATE if is_gone else Put.ACCEPTED)


async def test_an_old_question_can_still_be_deleted(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, "1")
    await finish_one(inbox)
    await redis.delete(f"{TAG}:seen:t:c:1")
    assert await revise(inbox, "9", is_gone=True, age_seconds=10**6) is Put.ACCEPTED
    await redis.delete(f"{TAG}:thread:t:c:1")
    assert await revise(inbox, "99", "7", is_gone=True, age_seconds=10**6) is Put.UNKNOWN_THREAD


async def test_nothing_is_left_of_revisions_for_ever(inbox: Inbox, redis: Redis) -> None:
    store = Store(redis, ttl_seconds=100)
    await put(inbox, "1")
    await revise(inbox, "2")
    [ticket] = await inbox.take(5, wait_seconds=0.01)
    await inbox.finish(ticket, store.vote("t:c:1", "u", "x"))
    await revise(inbox, "3", is_gone=True)
    work = tuple(f"{TAG}:question:{part}" for part in ("line", "ready", "out", "unfinished"))
    for key in [key async for key in redis.scan_iter(f"{TAG}:*")]:
        assert key.startswith(work) or await redis.ttl(key) > 0, key


async def test_whenever_an_edit_comes_only_the_newest_words_are_finished_last(redis: Redis) -> None:
    inbox = Inbox(redis, Kind.QUESTION, worker="a")
    await inbox.open()
    for pause in range(12):
        name = f"t:c:{pause + 100}"
        await inbox.put(Item(name, name, "1", "1"), seen=[name], thread_seconds=100)
        [ticket] = await inbox.take(5, wait_seconds=0.01)

        async def edit(name: str = name, pause: int = pause) -> Put:
            for _ in range(pause):
                await asyncio.sleep(0)
            return await inbox.revise(Item(name, name, "2", "2"), message=name, is_gone=False)

        put, finished = await asyncio.gather(edit(), inbox.finish(ticket), return_exceptions=True)
        if isinstance(finished, RevisedError):
            assert put is Put.REVISED
            await inbox.finish(await inbox.reread(ticket))
        else:
            assert (put, finished) == (Put.ACCEPTED, None)
            [again] = await inbox.take(5, wait_seconds=0.01)
            assert again.item.payload == "2"
            await inbox.finish(again)
        assert await inbox.take(5, wait_seconds=0.001) == []
