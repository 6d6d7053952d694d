"""A question's way through the whole bridge: what is answered, in which order, how it looks, and what Kapa may do."""

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from bridge import app, display, status
from bridge.dead_letters import DeadLetters
from bridge.messages import Messages
from bridge.playground.kapa import Asked, Pace
from bridge.playground.kapa_rules import KapaRefusalError
from bridge.playground.knowledge import Knowledge, Reply
from bridge.settings import Role
from tests.rig import (
    ADA,
    ALAN,
    BOTH_WAYS,
    ELSEWHERE,
    GENERAL,
    GRACE,
    HELP,
    PAGES,
    PRIVATE,
    Rig,
    count,
    hurry,
    is_draft,
    markdown,
    settled,
    waiting,
)

SAYS = Messages()
BOT_MENTION = "<@U0BRIDGE>"
TS = "1700000000.000100"


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def event(text: str | None, ts: str = TS, kind: str = "message", **more: Any) -> dict[str, Any]:
    """Give a message's event; `None` for a field leaves it as null."""
    given = {"type": kind, "channel": GENERAL, "user": ADA, "text": text, "ts": ts, "event_ts": ts}
    return given | ({"channel_type": "channel"} if kind == "message" else {}) | more


# What goes the whole way


@BOTH_WAYS
async def test_question_follow_up_and_feedback(rig: Rig, http: bool) -> None:
    async with rig.bridge(http=http):
        ts, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        assert "stored in Redis" in markdown(answer)
        assert answer["thread_ts"] == ts
        await rig.slack.react(ADA, GENERAL, answer["ts"], "thumbsup")
        await rig.slack.say(GRACE, GENERAL, "and how are keys rotated?", thread=ts)
        _, second = await rig.answer(GENERAL, ts, 2)
        assert "Rotate keys" in markdown(second)
        await rig.kapa.wait_for(lambda: rig.kapa.feedback)
    one, two = rig.kapa.asked
    assert (one.query, one.is_follow_up) == ("How are threads stored?", False)
    assert (two.query, two.is_follow_up, two.thread_id) == ("and how are keys rotated?", True, one.thread_id)
    assert one.integration_id == rig.kapa.integration_id
    assert one.user == {"unique_client_id": f"slack:T0PLAY:{ADA}"}
    assert one.metadata["origin_url"] == f"https://playground.slack.com/archives/{GENERAL}/p{ts.replace('.', '')}"
    assert two.metadata["origin_url"].endswith(f"?thread_ts={ts}&cid={GENERAL}")
    [vote] = rig.kapa.feedback_log
    assert vote["question_answer"] == one.question_answer_id
    assert (vote["reaction"], vote["user_identifier"]) == ("upvote", f"slack:T0PLAY:{ADA}")
    assert {delivery.way for delivery in rig.slack.deliveries} == {"http" if http else "socket"}


@BOTH_WAYS
@pytest.mark.parametrize("channel", [PRIVATE, "D0ADA"], ids=["private channel", "direct message"])
async def test_private_channels_and_direct_messages_are_answered(rig: Rig, http: bool, channel: str) -> None:
    async with rig.bridge(http=http, bridge_channels=f"{PRIVATE},{HELP}"):
        ts, answer = await rig.ask(ADA, channel, "How are threads stored?")
        await rig.slack.say(ADA, channel, "Really?", thread=ts)
        await rig.answer(channel, ts, 2)
    assert answer["thread_ts"] == ts
    assert len({asked.thread_id for asked in rig.kapa.asked}) == 1


@BOTH_WAYS
async def test_a_mention_is_two_events_and_one_question(rig: Rig, http: bool) -> None:
    async with rig.bridge(http=http, bridge_answer="mention"):
        ts, _ = await rig.ask(ADA, GENERAL, "How are <#C0HELP|help> &amp; threads stored?", mention=True)
        await rig.slack.delivered()
        await rig.slack.say(ADA, GENERAL, "And keys?", thread=ts)
        await rig.answer(GENERAL, ts, 2)
    assert [asked.query for asked in rig.kapa.asked] == ["How are #help & threads stored?", "And keys?"]
    assert [delivery.type for delivery in rig.slack.deliveries].count("app_mention") == 1


async def test_messages_to_a_thread_that_is_not_yet_answered_wait_their_turn(rig: Rig) -> None:
    async with rig.bridge(bridge_answer="mention"):
        rig.kapa.hold()
        ts = await rig.slack.say(ADA, GENERAL, "First", mention=True)
        await rig.slack.delivered()
        await rig.slack.say(GRACE, GENERAL, "Second", thread=ts)
        await rig.slack.say(ADA, GENERAL, "Third", thread=ts)
        await rig.slack.delivered()
        await rig.kapa.wait_for(lambda: rig.kapa.held)
        assert len(rig.kapa.asked) == 1
        rig.kapa.release()
        await rig.answer(GENERAL, ts, 3)
    assert [asked.query for asked in rig.kapa.asked] == ["First", "Second", "Third"]
    assert len({asked.thread_id for asked in rig.kapa.asked}) == 1
    assert rig.kapa.max_in_flight == 1


@BOTH_WAYS
async def test_a_bare_mention_is_helped_once(rig: Rig, http: bool) -> None:
    async with rig.bridge(http=http):
        ts, help_line = await rig.ask(ADA, GENERAL, "", mention=True)
        await rig.slack.delivered()
        # What follows in the line shows that no second help came before it.
        await rig.slack.say(ADA, GENERAL, "How are threads stored?", thread=ts)
        replies = await rig.answer(GENERAL, ts, 2)
    assert markdown(help_line) == SAYS.help
    assert len(replies) == 2
    assert [asked.query for asked in rig.kapa.asked] == ["How are threads stored?"]


@BOTH_WAYS
async def test_forty_quick_replies_over_ten_threads(redis_url: str, tmp_path: Path, http: bool) -> None:
    async with Rig.serving(redis_url, tmp_path, limits=None) as rig, rig.bridge(http=http, kapa_requests_per_minute=0):
        roots = [await rig.slack.say(ADA, GENERAL, f"thread {number}") for number in range(10)]
        for root in roots:
            await rig.answer(GENERAL, root)
        # Answers that all take a moment overlap wherever the bridge lets them.
        rig.kapa.pace = Pace(first_text=0.02)
        rig.kapa.answer_with(lambda asked: f"You said: {asked.query}")
        said = {root: [f"thread {n} reply {m}" for m in range(4)] for n, root in enumerate(roots)}
        for m in range(4):
            for root in roots:
                await rig.slack.say(GRACE, GENERAL, said[root][m], thread=root)
        answers = {root: (await rig.answer(GENERAL, root, 5, within=30))[1:] for root in roots}
        assert rig.kapa.max_in_flight > 1
        assert rig.kapa.max_in_flight_per_thread == 1
        asked = defaultdict(list)
        for one in list(rig.kapa.asked)[10:]:
            asked[one.thread_id].append(one.query)
        assert sorted(asked.values()) == sorted(said.values())
        for root in roots:
            assert [markdown(answer) for answer in answers[root]] == [f"You said: {text}" for text in said[root]]


# What is asked once, and what is not asked


@BOTH_WAYS
@pytest.mark.parametrize("order", [("message", "app_mention"), ("app_mention", "message")])
async def test_both_events_of_a_mention_in_any_order(
    rig: Rig, redis: Redis, http: bool, order: tuple[str, str]
) -> None:
    async with rig.bridge(Role.INGRESS, http=http):
        for kind in order:
            rig.slack.deliver(event(f"{BOT_MENTION} how?", kind=kind))
            await rig.slack.delivered()
        assert [question.text for question in await waiting(redis)] == ["how?"]


@BOTH_WAYS
async def test_an_ignored_twin_does_not_block_the_mention(rig: Rig, redis: Redis, http: bool) -> None:
    async with rig.bridge(Role.INGRESS, http=http) as bridge:
        rig.slack.deliver(event("how?", "1700000000.000200", thread_ts=TS))
        await rig.slack.delivered()
        assert await waiting(redis) == []
        rig.slack.deliver(event(f"{BOT_MENTION} how?", "1700000000.000200", "app_mention", thread_ts=TS))
        await rig.slack.delivered()
        assert [question.text for question in await waiting(redis)] == ["how?"]
        assert count(bridge, "events_total", result="unknown_thread") == 1


async def test_a_mention_that_is_edited_into_a_message_is_answered(rig: Rig) -> None:
    async with rig.bridge(bridge_answer="mention"):
        ts = await rig.slack.say(ADA, GENERAL, "How are threads stored?")
        await rig.slack.delivered()
        await rig.slack.edit(ADA, GENERAL, ts, f"{BOT_MENTION} How are threads stored?")
        [answer] = await rig.answer(GENERAL, ts)
        assert "stored in Redis" in markdown(answer)


@BOTH_WAYS
async def test_what_is_delivered_twice_is_asked_once(rig: Rig, redis: Redis, http: bool) -> None:
    async with rig.bridge(Role.INGRESS, http=http) as bridge:
        ts = await rig.slack.say(ADA, GENERAL, "How?", client_msg_id="one-and-the-same")
        await rig.slack.delivered()
        rig.slack.redeliver(rig.slack.deliveries[-1].event_id)
        rig.slack.deliver(event("How?", ts))
        rig.slack.deliver(event("How?", "1700000000.000900", client_msg_id="one-and-the-same"))
        await rig.slack.delivered()
        assert [question.id for question in await waiting(redis)] == [ts]
        # The same id from another person, or in another channel, is another message.
        rig.slack.deliver(event("How?", "1700000001.000100", user=GRACE, client_msg_id="one-and-the-same"))
        rig.slack.deliver(event("How?", "1700000002.000100", channel=HELP, client_msg_id="one-and-the-same"))
        await rig.slack.delivered()
        assert len(await waiting(redis)) == 3
        assert count(bridge, "events_total", result="duplicate") == 3


NOT_ANSWERED = {
    "an edit": event("", subtype="message_changed", message={"text": "How?"}, previous_message={"text": "Ho?"}),
    "a deletion": event(None, subtype="message_deleted", deleted_ts=TS),
    "a join": event(f"<@{ADA}> has joined the channel", subtype="channel_join"),
    "a bot": event("Build 7 is red", bot_id="B0BUILDS"),
    "a bot of the old kind": event("Build 7 is red", subtype="bot_message", user=None, bot_id="B0BUILDS"),
    "itself": event("I am the bridge", user="U0BRIDGE", bot_id="B0BRIDGE"),
    "Slackbot": event("Reminder: drink.", user="USLACKBOT"),
    "nobody": event("How?", user=None),
    "no text": event(""),
    "null text": event(None),
    "white space": event(" \n\t "),
    "someone else": event(f"<@{GRACE}> could you look?"),
    "someone else with a name": event(f"  <@{GRACE}|grace>: could you look?"),
    "a reply where the bridge is not": event("How?", thread_ts="1600000000.000100"),
    "a text of another kind": event(["How?"]),  # type: ignore[arg-type] # hostile on purpose
    "a ts of another kind": event("How?", "soon"),
    "a channel of another kind": event("How?", channel={"id": GENERAL}),
}


@BOTH_WAYS
async def test_what_is_not_answered(rig: Rig, redis: Redis, http: bool) -> None:
    async with rig.bridge(Role.INGRESS, http=http):
        for number, (name, given) in enumerate(NOT_ANSWERED.items()):
            rig.slack.deliver({**given, "ts": given["ts"].replace("00100", f"{number:05d}")}, event_id=f"Ev{number}")
            await rig.slack.delivered()
            assert await waiting(redis) == [], name
        assert all(delivery.is_acknowledged for delivery in rig.slack.deliveries)
        assert len(rig.slack.deliveries) == len(NOT_ANSWERED)


ANSWERED = {
    "a shared file": event("How?", subtype="file_share"),
    "a broadcast": event(f"{BOT_MENTION} How?", subtype="thread_broadcast", thread_ts="1600000000.000100"),
    "someone else and the bridge": event(f"<@{GRACE}> ask {BOT_MENTION}: How?"),
    "someone else further on": event(f"How does <@{GRACE}> do it?"),
    "no authorizations": event("How?"),
    "lone surrogates": event("How \ud800 so\udfff?"),
    "an odd client id": event("How?", client_msg_id=7),
    "a surrogate for a client id": event("How?", client_msg_id="\ud800"),
}


@BOTH_WAYS
@pytest.mark.parametrize("name", ANSWERED)
async def test_what_is_answered_all_the_same(rig: Rig, redis: Redis, http: bool, name: str) -> None:
    async with rig.bridge(Role.INGRESS, http=http):
        rig.slack.deliver(ANSWERED[name], **({"authorizations": []} if name == "no authorizations" else {}))
        await rig.slack.delivered()
        [question] = await waiting(redis)
        assert question.text.startswith(("How", "@U0GRACE ask"))
        assert question.text.encode("utf-8")


RULES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["general", "help", "help, mentioned"]),
    ({"bridge_answer": "mention"}, ["help, mentioned"]),
    ({"bridge_channels": HELP}, ["help", "help, mentioned"]),
    ({"bridge_channels": HELP, "bridge_answer": "mention"}, ["help, mentioned"]),
    ({"bridge_channels": GENERAL}, ["general"]),
]


@pytest.mark.parametrize(("settings", "answered"), RULES)
async def test_which_messages_are_answered_is_a_setting(
    rig: Rig, redis: Redis, settings: dict[str, Any], answered: list[str]
) -> None:
    async with rig.bridge(Role.INGRESS, **settings):
        await rig.slack.say(ADA, GENERAL, "general")
        await rig.slack.say(ADA, HELP, "help")
        await rig.slack.say(ADA, HELP, "help, mentioned", mention=True)
        await rig.slack.say(ADA, ELSEWHERE, "elsewhere")
        await rig.slack.say(ALAN, rig.slack.dm(ALAN), "direct")
        await rig.slack.delivered()
        assert [question.text for question in await waiting(redis)] == [*answered, "direct"]


# How long things go


@BOTH_WAYS
async def test_forty_thousand_characters_are_asked_whole(rig: Rig, http: bool) -> None:
    text = "How? " * 7_999 + "end. "
    async with rig.bridge(http=http):
        rig.kapa.answer_with("Briefly.")
        await rig.ask(ADA, GENERAL, text)
    assert [asked.query for asked in rig.kapa.asked] == [text.strip()]


async def test_a_long_answer_goes_on_in_a_second_message(rig: Rig) -> None:
    text = "\n\n".join(f"Paragraph {number}" + " of some words" * 20 for number in range(60))
    async with rig.bridge():
        rig.kapa.answer_with(text)
        ts = await rig.slack.say(ADA, GENERAL, "Tell me everything")
        first, second = await rig.answer(GENERAL, ts, 2)
    assert "\n\n".join([markdown(first), markdown(second)]) == text
    assert 5_000 < len(markdown(first)) <= 11_500
    for call in [*rig.called("chat.postMessage"), *rig.called("chat.update")]:
        assert len(call["text"]) <= 3_900
        assert call["unfurl_links"] is call["unfurl_media"] is False
    assert not rig.slack.rate_limited


async def test_a_source_is_shown_once_and_below_the_last_message(rig: Rig) -> None:
    found = tuple(Knowledge(PAGES).search("threads are stored in redis"))
    text = "word " * 3_000
    async with rig.bridge():
        rig.kapa.answer_with(Reply(text, found * 3))
        ts = await rig.slack.say(ADA, GENERAL, "How are threads stored?")
        first, second = await rig.answer(GENERAL, ts, 2)
    assert [block["type"] for block in first["blocks"]] == ["markdown"]
    assert [block["type"] for block in second["blocks"]] == ["markdown", "context", "context_actions"]
    shown = second["blocks"][1]["elements"][0]["text"]
    assert shown.startswith(SAYS.sources)
    for url in {section.url for section in found}:
        assert shown.count(f"<{url}|") == 1


# How it grows


async def test_a_draft_shows_before_the_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    # Both pieces are in the draft, however far apart they come.
    monkeypatch.setattr(display, "GATHER_SECONDS", 0.5)
    async with rig.bridge(bridge_streaming="edit"):
        rig.kapa.answer_with("one two three four five six seven eight nine")
        rig.kapa.hold(after_pieces=2)
        ts = await rig.slack.say(ADA, GENERAL, "Count")
        [draft] = await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts))
        assert markdown(draft) == "one two three four five six …"
        assert rig.slack.status(GENERAL, ts) == {}
        rig.kapa.release()
        [answer] = await rig.answer(GENERAL, ts)
    assert answer["ts"] == draft["ts"]
    assert markdown(answer) == "one two three four five six seven eight nine"
    assert len(rig.called("chat.postMessage")) == 1


async def test_a_status_shows_until_the_first_text(rig: Rig) -> None:
    async with rig.bridge():
        rig.kapa.hold()
        ts = await rig.slack.say(ADA, GENERAL, "Count")
        status = await rig.slack.wait_for(lambda: rig.slack.status(GENERAL, ts))
        assert status["status"] == SAYS.thinking
        rig.kapa.release()
        await rig.answer(GENERAL, ts)
        await rig.slack.wait_for(lambda: not rig.slack.status(GENERAL, ts))


async def test_drafts_share_a_budget_of_edits_and_leave_half_of_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "EDITS_PER_MINUTE", 4)
    rig.kapa.pace = Pace(between_pieces=0.02)
    text = "one two three " * 20
    async with rig.bridge(bridge_streaming="edit"):
        rig.kapa.answer_with(text)
        ts, answer = await rig.ask(ADA, GENERAL, "Count")
        other, _ = await rig.ask(ADA, HELP, "Count")
    assert markdown(answer) == text.strip()
    assert len(rig.called("chat.postMessage")) == 2
    # One draft was posted and one edited; the rest of the budget was the final edit's, and the other had no draft.
    assert [is_draft(call) for call in rig.called("chat.update")] == [True, False]
    assert [is_draft(call) for call in rig.called("chat.postMessage")] == [True, False]
    assert rig.called("chat.postMessage")[1]["thread_ts"] == other != ts


async def test_without_streaming_an_answer_is_posted_once(rig: Rig) -> None:
    rig.kapa.pace = Pace(between_pieces=0.02)
    async with rig.bridge(bridge_streaming="off"):
        await rig.ask(ADA, GENERAL, "How are threads stored?")
    assert [asked.is_streamed for asked in rig.kapa.asked] == [False]
    assert len(rig.called("chat.postMessage")) == 1
    assert rig.called("chat.update") == []


@pytest.mark.parametrize("fault", ["hang", "500", "429"])
async def test_no_slack_call_stands_before_the_request_to_kapa(
    rig: Rig, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A status line is shown beside the request, and might come first where that is slow.
    monkeypatch.setattr(status, "STATUS_AFTER_SECONDS", 2.0)
    async with rig.bridge(bridge_drain_seconds=0):
        started = len(rig.slack.calls)
        rig.slack.fault("assistant.threads.setStatus", fault, 5)
        rig.kapa.hold()
        ts = await rig.slack.say(ADA, GENERAL, "How are threads stored?", mention=True)
        await rig.slack.wait_for(lambda: rig.called("assistant.threads.setStatus"), 10)
        [asked] = rig.kapa.asked
        assert all(asked.at <= call.at for call in list(rig.slack.calls)[started:])
        rig.kapa.release()
        [answer] = await rig.answer(GENERAL, ts)
        assert "stored in Redis" in markdown(answer)


# What Kapa may do


@pytest.mark.parametrize(
    "fault", ["500", "502html", "garbage", "drop_before", "truncate", "error_record", "drop_midway"]
)
async def test_a_failure_of_kapa_is_tried_again(rig: Rig, redis: Redis, fault: str) -> None:
    async with rig.bridge():
        rig.kapa.fault(fault, 2)
        ts, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        assert "stored in Redis" in markdown(answer)
        assert len(rig.replies(GENERAL, ts)) == 1
    assert await DeadLetters(redis).read() == []


async def test_kapas_pause_is_kept_and_is_everyones(rig: Rig) -> None:
    async with rig.bridge() as bridge:
        rig.kapa.fault("429", retry_after="1")
        ts = await rig.slack.say(ADA, GENERAL, "How are threads stored?")
        await rig.kapa.wait_for(lambda: rig.kapa.refused[429])
        await asyncio.gather(rig.ask(GRACE, HELP, "How are keys rotated?"), rig.answer(GENERAL, ts))
    assert count(bridge, "work_total", kind="question", result="answered") == 2
    assert rig.kapa.refused[429] == 1


async def test_a_pause_too_long_is_told(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.fault("429", retry_after="600")
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        assert markdown(answer) == SAYS.busy.format(minutes=10)
    assert len(await DeadLetters(redis).read()) == 1


async def test_a_forgotten_thread_is_replaced_once(rig: Rig) -> None:
    async with rig.bridge():
        ts, _ = await rig.ask(ADA, GENERAL, "How are threads stored?")
        rig.kapa.fault("forget_thread")
        for turn, text in enumerate(("And keys?", "And the rest?"), start=2):
            await rig.slack.say(ADA, GENERAL, text, thread=ts)
            await rig.answer(GENERAL, ts, turn)
    one, two, three = rig.kapa.asked
    assert (two.query, two.is_follow_up) == ("And keys?", False)
    assert one.thread_id != two.thread_id == three.thread_id


@pytest.mark.parametrize("wrong", ["KAPA_API_KEY", "KAPA_PROJECT_ID", ""], ids=["key", "project", "revoked key"])
async def test_a_wrong_setup_is_told_and_kept_for_the_operator(rig: Rig, redis: Redis, wrong: str) -> None:
    def revoked(asked: Asked) -> str:
        raise KapaRefusalError(401, {"detail": "Invalid token."})

    settings: dict[str, Any] = {wrong: "wrong"} if wrong else {}
    async with rig.bridge(**settings):
        rig.kapa.answer_with(revoked)
        ts, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        assert markdown(answer) == SAYS.misconfigured
        assert len(rig.replies(GENERAL, ts)) == 1
    [letter] = await DeadLetters(redis).read()
    assert letter.reason.startswith("kapa: ")
    assert "wrong" not in letter.reason


async def test_what_kapa_refuses_is_told_in_one_sentence(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(kapa_integration_id="unknown"):
        ts, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        assert markdown(answer) == SAYS.refused
        assert len(rig.replies(GENERAL, ts)) == 1
    # Asking again would not help, so there is nothing to retry.
    assert await DeadLetters(redis).read() == []


@pytest.mark.parametrize(("status", "sentence"), [(400, SAYS.refused), (413, SAYS.too_long), (422, SAYS.refused)])
async def test_a_question_that_kapa_does_not_take_is_told(rig: Rig, status: int, sentence: str) -> None:
    def refuse(asked: Asked) -> str:
        raise KapaRefusalError(status, {"query": [f"Ensure this has fewer than {len(asked.query)} characters."]})

    async with rig.bridge():
        rig.kapa.answer_with(refuse)
        _, answer = await rig.ask(ADA, GENERAL, "How? " * 7_999)
    assert markdown(answer) == sentence
    assert len(rig.kapa.asked) == 1


async def test_after_all_attempts_one_sentence_and_on_retry_the_answer_in_its_place(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.fault("500", 5)
        ts, sorry = await rig.ask(ADA, GENERAL, "How are threads stored?")
        assert markdown(sorry) == SAYS.unavailable
        await settled(rig, redis)
        letters = DeadLetters(redis)
        [letter] = await letters.read()
        assert letter.item.line == f"T0PLAY:{GENERAL}:{ts}"
        await rig.slack.react(ADA, GENERAL, sorry["ts"], "x")
        await settled(rig, redis)
        await letters.retry([letter.id])
        await rig.slack.wait_for(lambda: "stored in Redis" in markdown(rig.replies(GENERAL, ts)[0]))
        [answer] = rig.replies(GENERAL, ts)
        assert answer["ts"] == sorry["ts"]
        assert await letters.read() == []
        await rig.slack.react(GRACE, GENERAL, answer["ts"], "+1")
        [vote] = await rig.kapa.wait_for(lambda: list(rig.kapa.feedback_log))
        # A vote on the sentence was none on the answer.
        assert vote["user_identifier"] == f"slack:T0PLAY:{GRACE}"


async def test_what_broke_off_every_time_is_shown_and_marked(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.answer_with("one two three four five six")
        rig.kapa.fault("truncate", 5)
        ts, answer = await rig.ask(ADA, GENERAL, "Count")
        assert markdown(answer) == f"one two three\n\n{SAYS.cut_off}"
        assert len(rig.replies(GENERAL, ts)) == 1
    assert len(await DeadLetters(redis).read()) == 1


async def test_an_uncertain_answer_says_so(rig: Rig) -> None:
    async with rig.bridge():
        rig.kapa.fault("uncertain")
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
    assert markdown(answer).endswith(SAYS.uncertain)


async def test_a_fault_over_one_question_leaves_the_others_alone(rig: Rig) -> None:
    def answering(asked: Asked) -> str:
        return "<!channel> all of you" if "all" in asked.query else "Fine."

    async with rig.bridge(bridge_drain_seconds=0):
        rig.kapa.answer_with(answering)
        rig.kapa.fault("hang")
        await rig.slack.say(ADA, GENERAL, "I hang")
        await rig.slack.wait_for(lambda: rig.called("assistant.threads.setStatus"))
        _, answer = await rig.ask(GRACE, HELP, "Call all")
        assert "<!channel>" not in markdown(answer)
        assert "<!channel>" not in answer["text"]


async def test_a_status_that_hangs_holds_nobody_up(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.slack.fault("assistant.threads.setStatus", "hang")
        rig.kapa.hold()
        ts = await rig.slack.say(ADA, GENERAL, "First?")
        await rig.slack.say(ADA, GENERAL, "Second?", thread=ts)
        await rig.slack.wait_for(lambda: rig.called("assistant.threads.setStatus") or rig.kapa.in_flight, 10)
        await asyncio.sleep(0.2)  # longer than the bridge waits before it shows a status
        rig.kapa.release()
        # Far less than it takes to give a hanging call up.
        assert len(await rig.answer(GENERAL, ts, 2, within=10)) == 2


async def test_a_status_goes_away_when_an_attempt_posts_nothing(
    rig: Rig, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    async with rig.bridge():
        rig.kapa.fault("500", 5)
        ts, sorry = await rig.ask(ADA, GENERAL, "First?")
        await settled(rig, redis)
        rig.kapa.hold()
        letters = DeadLetters(redis)
        await letters.retry([letter.id for letter in await letters.read()])
        await rig.slack.wait_for(lambda: rig.slack.status(GENERAL, ts).get("status"), 10)
        rig.kapa.release()
        await settled(rig, redis)
        await rig.slack.wait_for(lambda: not rig.slack.status(GENERAL, ts).get("status"), 10)
        assert [reply["ts"] for reply in rig.replies(GENERAL, ts)] == [sorry["ts"]]
