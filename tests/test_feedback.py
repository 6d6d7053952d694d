"""Votes: which emoji reach Kapa, as what, for whom and on which answer, and which cost no call."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from bridge import feedback
from bridge.app import Bridge
from bridge.dead_letters import DeadLetters
from bridge.playground.slack_events import reaction_event
from tests.rig import ADA, ALAN, BOTH_WAYS, GENERAL, GRACE, HELP, Rig, count, hurry, settled
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@dataclass
class Ballot:
    """One answered question, and the means to vote on it."""

    rig: Rig
    redis: Redis
    bridge: Bridge
    question: str
    answer: str

    async def put(self, emoji: str, user: str = ADA) -> None:
        await self.rig.slack.react(user, GENERAL, self.answer, emoji)
        await settled(self.rig, self.redis)

    async def take(self, emoji: str, user: str = ADA) -> None:
        await self.rig.slack.unreact(user, GENERAL, self.answer, emoji)
        await settled(self.rig, self.redis)

    def event(self, kind: str, emoji: str, ts: str, **more: Any) -> dict[str, Any]:
        message = {"user": "U0BRIDGE", "ts": self.answer}
        return reaction_event(f"reaction_{kind}", ADA, emoji, message, GENERAL, ts) | more

    async def tell(self, *events: dict[str, Any], **envelope: Any) -> None:
        for event in events:
            self.rig.slack.deliver(event, **envelope)
            await settled(self.rig, self.redis)

    @property
    def told(self) -> list[str]:
        """The reactions of all upserts that reached Kapa, oldest first."""
        return [body["reaction"] for body in self.rig.kapa.feedback_log]


@pytest.fixture
async def ballot(rig: Rig, redis: Redis) -> AsyncIterator[Ballot]:
    async with rig.bridge() as bridge:
        ts, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        await settled(rig, redis)
        yield Ballot(rig, redis, bridge, ts, answer["ts"])


UP = ["+1", "thumbsup", "heart", "tada", "100", "white_check_mark", "heavy_check_mark", "raised_hands"]
DOWN = ["-1", "thumbsdown"]
REASONS = {
    "incorrect": ["x", "no_entry", "no_entry_sign"],
    "irrelevant": ["shrug"],
    "unaddressed": ["question", "grey_question"],
}


@pytest.mark.parametrize(
    "emoji",
    [*UP, *DOWN, *(name for names in REASONS.values() for name in names), "+1::skin-tone-2", "thumbsdown::skin-tone-6"],
)
async def test_each_emoji_is_its_vote(ballot: Ballot, emoji: str) -> None:
    await ballot.put(emoji)
    [body] = ballot.rig.kapa.feedback_log
    [asked] = ballot.rig.kapa.asked
    reason = next((reason for reason, names in REASONS.items() if emoji in names), None)
    assert body["reaction"] == ("upvote" if emoji.partition("::")[0] in UP else "downvote")
    assert body["question_answer"] == asked.question_answer_id
    assert body["user_identifier"] == f"slack:T0PLAY:{ADA}"
    comment = body.get("comment") or {}
    assert {name for name in REASONS if comment.get(name)} == ({reason} if reason else set())


async def test_a_reason_has_kapas_shape(ballot: Ballot) -> None:
    await ballot.put("x")
    [body] = ballot.rig.kapa.feedback_log
    assert body["comment"]["incorrect"] is True
    assert body["comment"].get("irrelevant", False) is body["comment"].get("unaddressed", False) is False
    assert body["comment"].get("issue", "") == ""


@BOTH_WAYS
async def test_other_emoji_and_other_messages_cost_no_call(rig: Rig, redis: Redis, http: bool) -> None:
    async with rig.bridge(http=http) as bridge:
        ts, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        other = await rig.slack.say(GRACE, HELP, f"<@{ALAN}> lunch?")
        _, help_line = await rig.ask(GRACE, GENERAL, "", mention=True)
        await rig.slack.react(ADA, GENERAL, answer["ts"], "eyes")
        await rig.slack.react(ADA, GENERAL, ts, "+1")
        await rig.slack.react(ADA, HELP, other, "+1")
        await rig.slack.react(ADA, GENERAL, help_line["ts"], "+1")
        await rig.slack.react("U0BRIDGE", GENERAL, answer["ts"], "+1")
        rig.slack.deliver(
            {"type": "reaction_added", "user": ADA, "reaction": "+1", "event_ts": "1.0", "item": {"type": "file"}}
        )
        await settled(rig, redis)
        assert count(bridge, "events_total", result="no_vote") == 1
        assert count(bridge, "events_total", result="elsewhere") == 2
        await counted(bridge, "no_answer")
    assert list(rig.kapa.feedback_log) == []
    assert all(delivery.is_acknowledged for delivery in rig.slack.deliveries)


async def test_a_message_of_ours_that_is_no_answer_is_let_go_after_some_looks(ballot: Ballot) -> None:
    ballot.answer = "1600000000.000100"
    await ballot.tell(ballot.event("added", "+1", "1700000000.000100"))
    assert ballot.told == []
    # Redis knows that it is done a moment before the worker has counted it.
    await eventually(lambda: count(ballot.bridge, "work_total", kind="vote", result="elsewhere") == 1)
    assert count(ballot.bridge, "work_total", kind="vote", result="again") == feedback.LOOKS_FOR_ANSWER


async def test_a_message_without_an_author_is_looked_up(ballot: Ballot) -> None:
    event = ballot.event("added", "+1", "1700000000.000100")
    del event["item_user"]
    await ballot.tell(event)
    assert ballot.told == ["upvote"]


async def test_changed_minds(ballot: Ballot) -> None:
    await ballot.put("+1")
    await ballot.put("-1")
    assert ballot.told == ["upvote", "downvote"]
    await ballot.take("-1")
    assert ballot.told == ["upvote", "downvote", "upvote"]
    # The last vote stays when none is left, and what says the same again costs nothing.
    await ballot.take("+1")
    await ballot.put("heart")
    await ballot.take("heart")
    assert ballot.told == ["upvote", "downvote", "upvote"]
    await ballot.put("-1")
    assert ballot.told[3:] == ["downvote"]
    [standing] = ballot.rig.kapa.feedback.values()
    assert standing["reaction"] == "downvote"


async def test_a_reason_that_is_taken_back_is_cleared(ballot: Ballot) -> None:
    await ballot.put("-1")
    await ballot.put("x")
    await ballot.take("x")
    assert ballot.told == ["downvote"] * 3
    [standing] = ballot.rig.kapa.feedback.values()
    assert not any((standing.get("comment") or {}).get(reason) for reason in REASONS)


async def test_an_alias_and_a_skin_tone_are_the_same_vote(ballot: Ballot) -> None:
    await ballot.tell(
        ballot.event("added", "thumbsup", "1700000000.000100"),
        ballot.event("added", "+1", "1700000000.000100"),
        ballot.event("added", "thumbsup::skin-tone-3", "1700000001.000100"),
        ballot.event("removed", "+1", "1700000002.000100"),
    )
    assert ballot.told == ["upvote"]


async def test_a_vote_counts_though_the_news_that_it_was_taken_away_came_first(ballot: Ballot) -> None:
    await ballot.tell(
        ballot.event("removed", "x", "1700000000.000200"), ballot.event("added", "x", "1700000000.000100")
    )
    assert ballot.told == ["downvote"]
    await ballot.tell(ballot.event("added", "x", "1700000000.000100"))
    assert ballot.told == ["downvote"]


async def test_events_count_by_their_time_and_not_by_their_arrival(ballot: Ballot) -> None:
    await ballot.tell(
        ballot.event("added", "+1", "1700000001.000100"),
        ballot.event("removed", "-1", "1700000005.000100"),
        ballot.event("added", "-1", "1700000004.000100"),
    )
    assert ballot.told == ["upvote"]
    await ballot.tell(ballot.event("added", "-1", "1700000000.000100"), ballot.event("added", "x", "1700000000.000200"))
    # Older than the upvote that is there.
    assert ballot.told == ["upvote"]


async def test_an_event_that_is_delivered_twice_counts_once(ballot: Ballot) -> None:
    await ballot.tell(ballot.event("added", "+1", "1700000001.000100"), event_id="Ev1")
    ballot.rig.slack.redeliver("Ev1")
    await ballot.tell(ballot.event("added", "+1", "1700000001.000100"))
    assert ballot.told == ["upvote"]
    assert count(ballot.bridge, "events_total", result="duplicate") == 2


async def test_each_person_has_a_vote_on_each_answer(ballot: Ballot) -> None:
    await ballot.rig.slack.say(GRACE, GENERAL, "And keys?", thread=ballot.question)
    _, second = await ballot.rig.answer(GENERAL, ballot.question, 2)
    await ballot.put("+1", ADA)
    await ballot.put("-1", GRACE)
    ballot.answer = second["ts"]
    await ballot.put("shrug", ADA)
    one, two = ballot.rig.kapa.asked
    votes = {key: body["reaction"] for key, body in ballot.rig.kapa.feedback.items()}
    assert votes == {
        (one.question_answer_id, f"slack:T0PLAY:{ADA}"): "upvote",
        (one.question_answer_id, f"slack:T0PLAY:{GRACE}"): "downvote",
        (two.question_answer_id, f"slack:T0PLAY:{ADA}"): "downvote",
    }


async def counted(bridge: Bridge, result: str) -> None:
    """Wait until a vote is counted, which is after Redis has settled it."""
    await eventually(lambda: count(bridge, "work_total", kind="vote", result=result) == 1)


async def test_a_vote_on_a_draft_waits_for_the_answer(rig: Rig, redis: Redis) -> None:
    async with rig.bridge() as bridge:
        rig.kapa.answer_with("one two three four five six seven eight nine")
        rig.kapa.hold(after_pieces=2)
        ts = await rig.slack.say(ADA, GENERAL, "Count")
        [draft] = await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts))
        await rig.slack.react(ADA, GENERAL, draft["ts"], "+1")

        async def has_looked() -> bool:
            return count(bridge, "work_total", kind="vote", result="again") > 0

        await eventually(has_looked)
        assert not rig.kapa.feedback_log
        rig.kapa.release()
        await rig.kapa.wait_for(lambda: rig.kapa.feedback_log)
        await settled(rig, redis)
        await counted(bridge, "upvote")
    [body] = rig.kapa.feedback_log
    assert body["question_answer"] == rig.kapa.asked[0].question_answer_id


async def test_a_vote_on_the_second_message_of_an_answer(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with("word " * 3_000)
        ts = await rig.slack.say(ADA, GENERAL, "Tell")
        _, second = await rig.answer(GENERAL, ts, 2)
        await settled(rig, redis)
        await rig.slack.react(GRACE, GENERAL, second["ts"], "+1")
        await settled(rig, redis)
    assert [body["question_answer"] for body in rig.kapa.feedback_log] == [rig.kapa.asked[0].question_answer_id]


async def test_votes_on_all_messages_of_an_answer_are_one_persons_vote(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with("word " * 3_000)
        ts = await rig.slack.say(ADA, GENERAL, "Tell")
        first, second = await rig.answer(GENERAL, ts, 2)
        await settled(rig, redis)
        # The upvote is told late: the newer downvote on the other message must have the last word all the same.
        rig.kapa.fault("500", 1, endpoint="feedback")
        await rig.slack.react(GRACE, GENERAL, first["ts"], "+1")
        await rig.slack.react(GRACE, GENERAL, second["ts"], "-1")
        await settled(rig, redis)
        [body] = rig.kapa.feedback.values()
        assert body["reaction"] == "downvote"
        # The same emoji on both is taken away from one: the other is still there.
        await rig.slack.react(GRACE, GENERAL, second["ts"], "+1")
        await rig.slack.unreact(GRACE, GENERAL, second["ts"], "-1")
        await rig.slack.unreact(GRACE, GENERAL, second["ts"], "+1")
        await settled(rig, redis)
        [body] = rig.kapa.feedback.values()
        assert body["reaction"] == "upvote"


async def test_a_vote_lets_its_answer_live_on(ballot: Ballot) -> None:
    key = f"{{bridge}}:answer:T0PLAY:{GENERAL}:{ballot.answer}"
    await ballot.redis.expire(key, 100)
    await ballot.put("+1")
    assert await ballot.redis.ttl(key) > 80 * 86_400


@pytest.mark.parametrize("fault", ["500", "502html", "drop_before", "drop_after", "429"])
async def test_a_vote_that_fails_is_told_again(ballot: Ballot, fault: str) -> None:
    ballot.rig.kapa.fault(fault, 2, endpoint="feedback", retry_after=None)
    await ballot.put("+1")
    assert set(ballot.told) == {"upvote"}
    assert len(ballot.rig.kapa.feedback) == 1
    assert await DeadLetters(ballot.redis).read() == []


async def test_a_vote_that_kapa_never_takes_is_a_dead_letter(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        await settled(rig, redis)
        rig.kapa.answer_with(None)
        rig.kapa._answers.clear()  # Kapa forgot the answer
        await rig.slack.react(ADA, GENERAL, answer["ts"], "+1")
        await settled(rig, redis)
    [letter] = await DeadLetters(redis).read()
    assert letter.kind == "vote"
    assert letter.reason.startswith("kapa: ")


async def test_the_map_of_emoji_is_a_setting(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(bridge_reactions="rocket=upvote,poop=downvote:incorrect,thumbsdown=downvote"):
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        await settled(rig, redis)
        for emoji in ("+1", "rocket", "poop", "-1"):
            await rig.slack.react(ADA, GENERAL, answer["ts"], emoji)
            await settled(rig, redis)
    assert [body["reaction"] for body in rig.kapa.feedback_log] == ["upvote", "downvote", "downvote"]
    assert rig.kapa.feedback_log[1]["comment"]["incorrect"] is True


async def test_in_a_shared_channel_the_team_is_the_one_that_installed_the_bridge(rig: Rig, redis: Redis) -> None:
    there = {
        "team_id": "T0OTHER",
        "context_team_id": "T0OTHER",
        "authorizations": [{"team_id": "T0PLAY", "user_id": "U0BRIDGE"}],
    }
    ts = "1700000000.000100"
    asked = {
        "type": "message",
        "channel": GENERAL,
        "user": "U0OUTSIDE",
        "text": "How?",
        "ts": ts,
        "event_ts": ts,
        "team": "T0OTHER",
    }
    async with rig.bridge():
        rig.slack.deliver(asked, **there)
        [answer] = await rig.answer(GENERAL, ts)
        await settled(rig, redis)
        message = {"user": "U0BRIDGE", "ts": answer["ts"]}
        rig.slack.deliver(
            reaction_event("reaction_added", "U0OUTSIDE", "+1", message, GENERAL, "1700000009.000100"), **there
        )
        await settled(rig, redis)
    assert rig.kapa.asked[0].user["unique_client_id"] == "slack:T0PLAY:U0OUTSIDE"
    assert [body["user_identifier"] for body in rig.kapa.feedback_log] == ["slack:T0PLAY:U0OUTSIDE"]


async def test_without_authorizations_the_team_is_the_envelopes(rig: Rig) -> None:
    ts = "1700000000.000100"
    asked = {"type": "message", "channel": GENERAL, "user": ADA, "text": "How?", "ts": ts, "event_ts": ts}
    async with rig.bridge():
        rig.slack.deliver(asked, team_id="T0ENVELOPE", authorizations=[])
        await rig.answer(GENERAL, ts)
    assert rig.kapa.asked[0].user["unique_client_id"] == f"slack:T0ENVELOPE:{ADA}"
