"""Feedback by buttons and by the modal: what people press, what Kapa hears of it, and what they hear back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from bridge.dead_letters import DeadLetters
from bridge.messages import Messages
from bridge.models import Feedback, Reaction, Reason
from bridge.playground.serving import Json
from bridge.settings import Role
from bridge.slack.interactions import Pressed, WantsToExplain, about, interaction
from bridge.slack.read import Identity, Ignored
from bridge.slack.write import EXPLAIN, REASONS, WORDS
from tests.rig import ADA, BOTH_WAYS, GENERAL, GRACE, Rig, count, hurry, settled
from tests.waiting import eventually

SAYS = Messages()
NOTHING = {"issue": "", "incorrect": False, "irrelevant": False, "unaddressed": False}


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@dataclass(slots=True)
class Booth:
    """An answered question, and the means to say what one thinks of the answer."""

    rig: Rig
    redis: Redis
    thread: str
    answer: str

    async def told(self) -> list[Json]:
        """Give what Kapa was told about this answer once all work is done, without the ids."""
        await settled(self.rig, self.redis)
        kept = ("reaction", "user_identifier", "comment")
        return [{name: vote[name] for name in kept if name in vote} for vote in self.rig.kapa.feedback_log]

    async def press(self, positive: bool, user: str = GRACE) -> None:
        await self.rig.slack.give_feedback(user, GENERAL, self.answer, positive=positive)

    async def whispers(self, count: int) -> list[Json]:
        await self.rig.slack.wait_for(lambda: len(self.rig.slack.ephemerals(GENERAL)) >= count, 10)
        return self.rig.slack.ephemerals(GENERAL)

    async def modal(self, user: str = GRACE) -> Json:
        return (await self.rig.slack.wait_for(lambda: self.rig.slack.views(user), 10))[-1]


@pytest.fixture(params=[True, False], ids=["http", "socket"])
async def booth(rig: Rig, redis: Redis, request: pytest.FixtureRequest) -> AsyncIterator[Booth]:
    async with rig.bridge(http=request.param):
        ts, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        await settled(rig, redis)
        yield Booth(rig, redis, ts, answer["ts"])


def vote(reaction: str, comment: Json | None = None, user: str = GRACE) -> Json:
    found: Json = {"reaction": reaction, "user_identifier": f"slack:T0PLAY:{user}"}
    return found if comment is None else found | {"comment": comment}


# Buttons


async def test_a_good_answer_is_an_upvote_and_a_quiet_thank_you(booth: Booth) -> None:
    await booth.press(positive=True)
    assert await booth.told() == [vote("upvote")]
    [whisper] = await booth.whispers(1)
    assert (whisper["to"], whisper["text"], whisper["thread_ts"]) == (GRACE, SAYS.thanks, booth.thread)
    assert booth.rig.slack.views(GRACE) == []
    [feedback] = booth.rig.kapa.feedback_log
    assert feedback["question_answer"] == booth.rig.kapa.asked[0].question_answer_id


async def test_a_bad_answer_opens_the_modal_and_counts_without_it(booth: Booth) -> None:
    await booth.press(positive=False)
    modal = await booth.modal()
    booth.rig.slack.dismiss(GRACE, modal["id"])
    assert await booth.told() == [vote("downvote")]
    [whisper] = await booth.whispers(1)
    assert whisper["text"] == SAYS.sorry


async def test_the_modal_brings_reasons_and_words_in_one_upsert(booth: Booth) -> None:
    await booth.press(positive=False)
    modal = await booth.modal()
    # Whispers wait for nobody, not for each other either.
    await booth.whispers(1)
    said = {REASONS: ["incorrect", "unaddressed"], WORDS: "It says *nothing* of <keys> & more"}
    assert (await booth.rig.slack.submit(GRACE, modal["id"], said)).is_acknowledged
    assert booth.rig.slack.views(GRACE) == []
    comment = {**NOTHING, "incorrect": True, "unaddressed": True, "issue": said[WORDS]}
    assert await booth.told() == [vote("downvote"), vote("downvote", comment)]
    assert [whisper["text"] for whisper in await booth.whispers(2)] == [SAYS.sorry, SAYS.thanks]


async def test_an_empty_modal_is_the_plain_downvote(booth: Booth) -> None:
    await booth.press(positive=False)
    modal = await booth.modal()
    await booth.rig.slack.submit(GRACE, modal["id"], {WORDS: "  "})
    assert await booth.told() == [vote("downvote")]


async def test_the_last_word_of_each_person_counts(booth: Booth) -> None:
    await booth.press(positive=False)
    await booth.told()
    await booth.press(positive=True)
    await booth.press(positive=False, user=ADA)
    assert await booth.told() == [vote("downvote"), vote("upvote"), vote("downvote", user=ADA)]
    # Unselected, the widget says nothing, and the vote stays.
    await booth.press(positive=True)
    assert len(await booth.told()) == 3


async def test_emoji_and_buttons_are_one_persons_one_vote(booth: Booth) -> None:
    slack = booth.rig.slack
    await booth.press(positive=False)
    await booth.told()
    await slack.react(GRACE, GENERAL, booth.answer, "+1")
    await booth.told()
    # A button cannot be taken away: it counts again where the emoji is gone.
    await slack.unreact(GRACE, GENERAL, booth.answer, "+1")
    assert await booth.told() == [vote("downvote"), vote("upvote"), vote("downvote")]


async def test_a_changed_mind_clears_what_was_said(booth: Booth) -> None:
    await booth.press(positive=False)
    modal = await booth.modal()
    await booth.rig.slack.submit(GRACE, modal["id"], {WORDS: "Wrong."})
    await booth.told()
    await booth.press(positive=True)
    assert (await booth.told())[-1] == vote("upvote", NOTHING)


async def test_buttons_under_the_last_message_are_about_the_whole_answer(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with("some words " * 1_500)
        ts = await rig.slack.say(ADA, GENERAL, "Tell me everything")
        first, second = await rig.answer(GENERAL, ts, 2)
        await rig.slack.react(GRACE, GENERAL, first["ts"], "+1")
        await settled(rig, redis)
        await rig.slack.give_feedback(GRACE, GENERAL, second["ts"], positive=False)
        await settled(rig, redis)
    assert [feedback["reaction"] for feedback in rig.kapa.feedback_log] == ["upvote", "downvote"]
    assert len(rig.kapa.feedback) == 1


# Emoji


async def test_who_votes_down_by_an_emoji_may_say_why(booth: Booth) -> None:
    await booth.rig.slack.react(GRACE, GENERAL, booth.answer, "-1")
    assert await booth.told() == [vote("downvote")]
    [whisper] = await booth.whispers(1)
    assert (whisper["to"], whisper["text"], whisper["thread_ts"]) == (GRACE, SAYS.sorry, booth.thread)
    assert (await booth.rig.slack.press(GRACE, GENERAL, whisper["ts"], EXPLAIN)).is_acknowledged
    modal = await booth.modal()
    await booth.rig.slack.submit(GRACE, modal["id"], {REASONS: ["irrelevant"], WORDS: ""})
    assert await booth.told() == [vote("downvote"), vote("downvote", NOTHING | {"irrelevant": True})]


async def test_thanks_are_said_once_for_what_is_news(booth: Booth) -> None:
    slack = booth.rig.slack
    for emoji in ("+1", "heart", "tada"):
        await slack.react(GRACE, GENERAL, booth.answer, emoji)
    await booth.told()
    assert [whisper["text"] for whisper in await booth.whispers(1)] == [SAYS.thanks]
    await slack.react(GRACE, GENERAL, booth.answer, "x")
    await booth.told()
    assert [whisper["text"] for whisper in await booth.whispers(2)] == [SAYS.thanks, SAYS.sorry]


# Whatever happens


async def test_no_thanks_for_what_kapa_never_got(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        rig.kapa._answers.clear()
        await rig.slack.give_feedback(GRACE, GENERAL, answer["ts"], positive=True)
        await settled(rig, redis)
        assert rig.slack.ephemerals(GENERAL) == []
        assert len(await DeadLetters(redis).read()) == 1


@pytest.mark.parametrize("fault", ["500", "hang", "drop_after", "channel_not_found"])
async def test_a_vote_counts_though_the_thank_you_fails(booth: Booth, fault: str) -> None:
    booth.rig.slack.fault("chat.postEphemeral", fault)
    await booth.press(positive=True)
    assert await booth.told() == [vote("upvote")]


@pytest.mark.parametrize("fault", ["500", "drop_before", "429", "hang", "expired_trigger_id"])
async def test_a_vote_counts_though_the_modal_does_not_open(booth: Booth, fault: str) -> None:
    booth.rig.slack.fault("views.open", fault)
    await booth.press(positive=False)
    assert await booth.told() == [vote("downvote")]
    assert booth.rig.slack.views(GRACE) == []


async def test_a_modal_that_does_not_open_is_counted(rig: Rig) -> None:
    called = {"method": "views.open", "outcome": "refused"}
    async with rig.bridge() as bridge:
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        rig.slack.fault("views.open", "expired_trigger_id")
        await rig.slack.give_feedback(GRACE, GENERAL, answer["ts"], positive=False)
        await eventually(lambda: count(bridge, "slack_call_seconds_count", **called) == 1)


@BOTH_WAYS
async def test_the_modal_opens_at_once_though_nobody_works(rig: Rig, redis: Redis, http: bool) -> None:
    """Questions wait, votes wait, no worker is there: the modal and its answer need none."""
    async with rig.bridge(Role.WORKER), rig.bridge(Role.INGRESS, http=http):
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        await settled(rig, redis)
    async with rig.bridge(Role.INGRESS, http=http):
        for number in range(30):
            await rig.slack.say(ADA, GENERAL, f"Question {number}")
        await rig.slack.give_feedback(GRACE, GENERAL, answer["ts"], positive=False)
        [modal] = await rig.slack.wait_for(lambda: rig.slack.views(GRACE), 10)
        delivery = await rig.slack.submit(GRACE, modal["id"], {WORDS: "Wrong."})
        assert delivery.is_acknowledged
        assert rig.kapa.feedback == {}
    async with rig.bridge(Role.WORKER):
        await rig.kapa.wait_for(lambda: rig.kapa.feedback_log and rig.kapa.feedback_log[-1].get("comment"), 10)
    assert rig.kapa.feedback_log[-1]["comment"]["issue"] == "Wrong."


@BOTH_WAYS
async def test_what_cannot_be_kept_is_not_acknowledged(rig: Rig, redis: Redis, http: bool) -> None:
    """Slack shows the person that it failed, and keeps the modal open with what they wrote."""
    async with rig.bridge(http=http):
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        await settled(rig, redis)
        await rig.slack.give_feedback(GRACE, GENERAL, answer["ts"], positive=False)
        [modal] = await rig.slack.wait_for(lambda: rig.slack.views(GRACE), 10)
        await settled(rig, redis)
        await redis.config_set("maxmemory", "1")
        await redis.config_set("maxmemory-policy", "noeviction")
        delivery = await rig.slack.submit(GRACE, modal["id"], {WORDS: "Wrong."})
        assert not delivery.is_acknowledged
        assert rig.slack.views(GRACE) == [modal]
        await redis.config_set("maxmemory", "0")
        assert (await rig.slack.submit(GRACE, modal["id"], {WORDS: "Wrong."})).is_acknowledged
        await rig.kapa.wait_for(lambda: rig.kapa.feedback_log[-1].get("comment"), 10)


@pytest.mark.parametrize("fault", ["500", "429", "drop_after"])
async def test_a_vote_outlasts_an_outage_of_kapas(booth: Booth, fault: str) -> None:
    booth.rig.kapa.fault(fault, 12, endpoint="feedback", retry_after="0")
    await booth.press(positive=True)
    assert (await booth.told())[-1] == vote("upvote")


# Payloads

BRIDGE = Identity(team="T111", user="U0BRIDGE", bot="B0BRIDGE", url="https://acme.slack.com/")
CLICK: dict[str, Any] = {
    "type": "block_actions",
    "trigger_id": "111.222.x",
    "user": {"id": "U222", "team_id": "T111"},
    "team": {"id": "T111", "domain": "acme"},
    "container": {
        "type": "message",
        "message_ts": "1610241750.000100",
        "channel_id": "C111",
        "is_ephemeral": False,
        "thread_ts": "1610241741.000200",
    },
    "actions": [
        {
            "type": "feedback_buttons",
            "action_id": "kapa_feedback",
            "block_id": "b1",
            "value": "downvote",
            "action_ts": "1610241760.194939",
        }
    ],
}
SUBMISSION: dict[str, Any] = {
    "type": "view_submission",
    "user": {"id": "U222"},
    "view": {
        "callback_id": "kapa_why",
        "private_metadata": '{"channel":"C111","message":"1610241750.000100","at":"1610241760.194939"}',
        "state": {
            "values": {
                REASONS: {REASONS: {"type": "checkboxes", "selected_options": [{"value": "irrelevant"}]}},
                WORDS: {WORDS: {"type": "plain_text_input", "value": " No. "}},
            }
        },
    },
}
DOWN = Feedback(
    "T111", "C111", "1610241750.000100", "U222", "1610241760.194939", Reaction.DOWNVOTE, thread="1610241741.000200"
)


def with_action(**fields: object) -> dict[str, Any]:
    return {**CLICK, "actions": [{**CLICK["actions"][0], **fields}]}


def with_view(**fields: object) -> dict[str, Any]:
    return {**SUBMISSION, "view": {**SUBMISSION["view"], **fields}}


def test_payloads_are_read() -> None:
    assert interaction(CLICK, BRIDGE) == Pressed(DOWN, "111.222.x")
    explain = with_action(action_id="kapa_explain", value="1610241750.000100")
    assert interaction(explain, BRIDGE) == WantsToExplain(about(DOWN), "111.222.x")
    said = interaction(SUBMISSION, BRIDGE)
    assert isinstance(said, Feedback)
    assert (said.reasons, said.words, said.at, said.thread) == ((Reason.IRRELEVANT,), "No.", DOWN.at, "")


IGNORED: list[tuple[Any, str]] = [
    (with_action(action_id="other"), "other_action"),
    (with_view(callback_id="other"), "other_view"),
    ({"type": "shortcut"}, "other_interaction"),
    (with_action(value="maybe"), "malformed"),
    (with_action(action_ts="now"), "malformed"),
    ({**CLICK, "actions": []}, "malformed"),
    ({**CLICK, "user": None}, "malformed"),
    ({**CLICK, "container": {"channel_id": "../x", "message_ts": "1.2"}}, "malformed"),
    (with_view(private_metadata="{"), "malformed"),
    (with_view(private_metadata='{"channel":"C111","message":"x:y","at":"1.2"}'), "malformed"),
    (with_view(state=None), "malformed"),
    (with_view(state={"values": {WORDS: {WORDS: {"value": "x" * 3_001}}}}), "malformed"),
    ({}, "malformed"),
    (None, "malformed"),
]


@pytest.mark.parametrize(("body", "reason"), IGNORED)
def test_other_payloads_are_ignored(body: Any, reason: str) -> None:
    assert interaction(body, BRIDGE) == Ignored(reason)


@BOTH_WAYS
async def test_odd_interactions_are_taken_in_without_a_trace(rig: Rig, redis: Redis, http: bool) -> None:
    async with rig.bridge(Role.INGRESS, http=http):
        odd = [body for body, _ in IGNORED if isinstance(body, dict) and body.get("type") in {"block_actions"}]
        for body in odd:
            await rig.slack.interact(body)
        await asyncio.sleep(0)
        assert [key async for key in redis.scan_iter("{bridge}:vote:*")] == []
