"""The simulated Slack streams as Slack does: what grows, how it ends, and every refusal."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from slack_sdk.web.async_client import AsyncWebClient

from bridge.playground.slack import ELSEWHERE, HELP, SHARED, STRANGER, SimulatedSlack
from bridge.playground.slack_rules import SlackError
from bridge.playground.slack_streams import STREAM_SECONDS
from tests.test_playground_slack import ADA, BOT, GRACE, METADATA, app_serving, client_of, error_of
from tests.waiting import Clock, Naps

MARKDOWN = {"type": "markdown", "text": "x" * 6_000}
DIVIDER = {"type": "divider"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def slack(clock: Clock) -> AsyncIterator[SimulatedSlack]:
    async with SimulatedSlack(limits=None, sleep=Naps(), clock=clock).serve() as served_slack:
        yield served_slack


@pytest.fixture
def client(slack: SimulatedSlack) -> AsyncWebClient:
    return client_of(slack)


async def start(client: AsyncWebClient, thread: str, text: str = "", channel: str = HELP, **args: Any) -> str:
    recipient = {"recipient_team_id": "T0PLAY", "recipient_user_id": ADA} | args
    body = {"channel": channel, "thread_ts": thread, "markdown_text": text, **recipient}
    reply = await client.api_call("chat.startStream", json=body)
    assert reply["channel"] == channel
    return str(reply["ts"])


def message(slack: SimulatedSlack, ts: str, channel: str = HELP) -> dict[str, Any]:
    return next(one for one in slack.messages(channel) if one["ts"] == ts)


# Growing


async def test_an_answer_grows_and_ends_with_its_blocks(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    async with app_serving() as app:
        slack.subscribe(app.url)
        question = await slack.say(ADA, HELP, "how?")
        await client.assistant_threads_setStatus(channel_id=HELP, thread_ts=question, status="is thinking…")
        ts = await start(client, question, metadata=METADATA)
        assert slack.status(HELP, question) == {}
        empty = message(slack, ts)
        assert (empty["text"], empty["thread_ts"], empty["streaming_state"]) == ("", question, "in_progress")
        assert not {"blocks", "metadata"} & empty.keys()
        await slack.delivered()
        told = len(app.events)
        changes = slack.subscribe_changes()
        for text in ("**Like", " so**"):
            await client.chat_appendStream(channel=HELP, ts=ts, markdown_text=text)
        assert message(slack, ts)["blocks"] == [{"type": "markdown", "text": "**Like so**"}]
        await client.chat_stopStream(channel=HELP, ts=ts, markdown_text=".", blocks=[DIVIDER], metadata=METADATA)
        ended = message(slack, ts)
        assert ended["blocks"] == [{"type": "markdown", "text": "**Like so**."}, DIVIDER]
        assert (ended["text"], ended["metadata"], ended["user"]) == ("**Like so**.", METADATA, BOT)
        assert (ended["streaming_state"], "edited" in ended) == ("completed", False)
        seen = [await anext(changes) for _ in range(3)]
        assert [(one["type"], one["message"]["text"]) for one in seen] == [
            ("changed", "**Like"), ("changed", "**Like so**"), ("changed", "**Like so**."),
        ]  # fmt: skip
        await slack.delivered()
        assert (told, len(app.events)) == (2, 2)


async def test_an_answer_can_be_complete_at_once_and_empty_at_the_end(
    slack: SimulatedSlack, client: AsyncWebClient
) -> None:
    question = await slack.say(ADA, HELP, "how?")
    whole = await start(client, question, "So.")
    await client.chat_stopStream(channel=HELP, ts=whole, metadata={})
    assert message(slack, whole)["blocks"] == [{"type": "markdown", "text": "So."}]
    assert "metadata" not in message(slack, whole)
    empty = await start(client, question)
    await client.chat_stopStream(channel=HELP, ts=empty)
    assert (message(slack, empty)["text"], "blocks" in message(slack, empty)) == ("", False)


async def test_direct_messages_need_no_recipient(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    dm = slack.dm(ADA)
    question = await slack.say(ADA, dm, "psst")
    reply = await client.api_call("chat.startStream", json={"channel": dm, "thread_ts": question})
    assert message(slack, str(reply["ts"]), dm)["thread_ts"] == question


async def test_a_stream_can_answer_a_tombstone(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    question = await slack.say(ADA, HELP, "how?")
    await slack.say(GRACE, HELP, "so", thread=question)
    await slack.delete(ADA, HELP, question)
    ts = await start(client, question)
    posted = await client.chat_postMessage(channel=HELP, thread_ts=question, text="so")
    assert [one["ts"] for one in slack.thread(HELP, question)][2:] == [ts, posted["ts"]]
    stone = message(slack, question)
    assert (stone["subtype"], stone["reply_count"]) == ("tombstone", 3)


async def test_a_post_into_a_thread_that_is_gone_makes_a_reply_all_the_same(
    slack: SimulatedSlack, client: AsyncWebClient
) -> None:
    async with app_serving() as app:
        slack.subscribe(app.url)
        question = await slack.say(ADA, HELP, "how?")
        await slack.delivered()
        await slack.delete(ADA, HELP, question)
        await slack.delivered()
    assert (app.events[-1]["subtype"], app.events[-1]["deleted_ts"]) == ("message_deleted", question)
    posted = await client.chat_postMessage(channel=HELP, thread_ts=question, text="so")
    assert message(slack, str(posted["ts"]))["thread_ts"] == question


# Refusals


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({"channel": None}, "invalid_arguments"),
        ({"thread_ts": None}, "invalid_arguments"),
        ({"channel": "C404"}, "channel_not_found"),
        ({"channel": ELSEWHERE}, "not_in_channel"),
        ({"recipient_team_id": None}, "missing_recipient_team_id"),
        ({"recipient_user_id": None}, "missing_recipient_user_id"),
        ({"recipient_user_id": "U404"}, "invalid_arguments"),
        ({"recipient_user_id": STRANGER.id, "recipient_team_id": STRANGER.team}, "invalid_arguments"),
        ({"recipient_team_id": "T404"}, "invalid_arguments"),
        ({"recipient_user_id": 5}, "invalid_arguments"),
        ({"recipient_team_id": ["T0PLAY"]}, "invalid_arguments"),
        ({"thread_ts": "1.1"}, "thread_not_found"),
        ({"markdown_text": "x" * 12_001}, "msg_too_long"),
        ({"markdown_text": 5}, "invalid_arguments"),
    ],
)
async def test_no_stream_starts(
    slack: SimulatedSlack, client: AsyncWebClient, args: dict[str, Any], error: str
) -> None:
    question = await slack.say(ADA, HELP, "how?")
    whole = {"channel": HELP, "thread_ts": question, "recipient_team_id": "T0PLAY", "recipient_user_id": ADA} | args
    body = {key: value for key, value in whole.items() if value is not None}
    assert await error_of(client.api_call("chat.startStream", json=body)) == error
    assert len(slack.messages(HELP)) == 1


async def test_streams_need_the_scope_and_can_be_refused_at_will(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    question = await slack.say(ADA, HELP, "how?")
    for slack.stream_refusal in ("channel_type_not_supported", "unknown_method"):
        assert await error_of(start(client, question)) == slack.stream_refusal
    slack.stream_refusal = None
    ts = await start(client, question)
    slack.scopes.discard("chat:write")
    assert await error_of(start(client, question)) == "missing_scope"
    assert await error_of(client.chat_appendStream(channel=HELP, ts=ts, markdown_text="x")) == "missing_scope"
    assert await error_of(client.chat_stopStream(channel=HELP, ts=ts)) == "missing_scope"


@pytest.mark.parametrize(
    ("method", "args", "error"),
    [
        ("append", {}, "invalid_arguments"),
        ("append", {"markdown_text": "x" * 12_001}, "msg_too_long"),
        ("append", {"markdown_text": "x" * 11_998}, "msg_too_long"),
        ("append", {"ts": "1.1", "markdown_text": "x"}, "message_not_found"),
        ("append", {"channel": "C404", "markdown_text": "x"}, "channel_not_found"),
        ("stop", {"ts": "1.1"}, "message_not_found"),
        ("stop", {"markdown_text": "x" * 11_998}, "msg_too_long"),
        ("stop", {"blocks": [DIVIDER] * 50}, "invalid_blocks"),
        ("stop", {"blocks": [DIVIDER] * 51}, "invalid_blocks"),
        ("stop", {"blocks": [{"type": "marquee"}]}, "invalid_blocks"),
        ("stop", {"blocks": "none"}, "invalid_blocks"),
        ("stop", {"blocks": [MARKDOWN, MARKDOWN]}, "msg_blocks_too_long"),
        ("stop", {"metadata": {"event_type": 1}}, "invalid_metadata_format"),
    ],
)
async def test_what_does_not_fit_changes_nothing(
    slack: SimulatedSlack, client: AsyncWebClient, method: str, args: dict[str, Any], error: str
) -> None:
    ts = await start(client, await slack.say(ADA, HELP, "how?"), "So:")
    before = message(slack, ts)
    body = {"channel": HELP, "ts": ts} | args
    assert await error_of(client.api_call(f"chat.{method}Stream", json=body)) == error
    assert message(slack, ts) == before
    longest = "x" * (12_000 - len("So:"))
    await client.chat_stopStream(channel=HELP, ts=ts, markdown_text=longest, blocks=[DIVIDER] * 49)
    assert message(slack, ts)["text"] == f"So:{longest}"


# Ends

End = Callable[[SimulatedSlack, AsyncWebClient, Clock, str], Awaitable[object]]


async def _complete(_: SimulatedSlack, client: AsyncWebClient, __: Clock, ts: str) -> None:
    await client.chat_stopStream(channel=HELP, ts=ts)


async def _press_stop(slack: SimulatedSlack, _: AsyncWebClient, __: Clock, ts: str) -> None:
    slack.stop_stream(HELP, ts)


async def _grow_old(_: SimulatedSlack, __: AsyncWebClient, clock: Clock, ___: str) -> None:
    clock.now += STREAM_SECONDS


async def _expire(slack: SimulatedSlack, _: AsyncWebClient, __: Clock, ___: str) -> None:
    slack.expire_streams()


@pytest.mark.parametrize(
    ("end", "error", "state"),
    [
        (_complete, "message_not_in_streaming_state", "completed"),
        (_press_stop, "stopped_by_user", "stopped"),
        (_grow_old, "message_not_in_streaming_state", "expired"),
        (_expire, "message_not_in_streaming_state", "expired"),
    ],
)
async def test_after_its_end_a_stream_can_only_be_updated(
    slack: SimulatedSlack, client: AsyncWebClient, clock: Clock, end: End, error: str, state: str
) -> None:
    ts = await start(client, await slack.say(ADA, HELP, "how?"), "So")
    clock.now += STREAM_SECONDS - 1
    assert await error_of(client.chat_update(channel=HELP, ts=ts, text="x")) == "streaming_state_conflict"
    clock.now -= STREAM_SECONDS - 1
    await end(slack, client, clock, ts)
    assert await error_of(client.chat_appendStream(channel=HELP, ts=ts, markdown_text="x")) == error
    assert await error_of(client.chat_stopStream(channel=HELP, ts=ts)) == error
    with pytest.raises(SlackError, match=error):
        slack.stop_stream(HELP, ts)
    assert (message(slack, ts)["text"], message(slack, ts)["streaming_state"]) == ("So", state)
    await client.chat_update(channel=HELP, ts=ts, text="So it is.")
    assert (message(slack, ts)["text"], "streaming_state" in message(slack, ts)) == ("So it is.", False)
    assert await error_of(client.chat_stopStream(channel=HELP, ts=ts)) == "message_not_in_streaming_state"


async def test_age_counts_from_the_start_whatever_comes_in(
    slack: SimulatedSlack, client: AsyncWebClient, clock: Clock
) -> None:
    ts = await start(client, await slack.say(ADA, HELP, "how?"))
    clock.now += STREAM_SECONDS - 1
    await client.chat_appendStream(channel=HELP, ts=ts, markdown_text="x")
    clock.now += 1
    await client.chat_update(channel=HELP, ts=ts, text="y")
    assert message(slack, ts)["text"] == "y"


async def test_other_messages_do_not_grow(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    question = await slack.say(ADA, HELP, "how?")
    posted = str((await client.chat_postMessage(channel=HELP, text="so"))["ts"])
    for ts, error in ((question, "message_not_owned_by_app"), (posted, "message_not_in_streaming_state")):
        assert await error_of(client.chat_appendStream(channel=HELP, ts=ts, markdown_text="x")) == error
        assert await error_of(client.chat_stopStream(channel=HELP, ts=ts)) == error


async def test_a_streaming_message_can_be_deleted(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    question = await slack.say(ADA, HELP, "how?")
    ts = await start(client, question)
    await client.chat_delete(channel=HELP, ts=ts)
    slack.expire_streams()
    assert [one["ts"] for one in slack.messages(HELP)] == [question]
    assert await error_of(client.chat_appendStream(channel=HELP, ts=ts, markdown_text="x")) == "message_not_found"


# Channels shared with another company


async def test_events_of_a_shared_channel_say_so_and_whose_they_are(
    slack: SimulatedSlack, client: AsyncWebClient
) -> None:
    async with app_serving() as app:
        slack.subscribe(app.url)
        ts = await slack.say(STRANGER.id, SHARED, "how?", mention=True)
        await slack.react(STRANGER.id, SHARED, ts, "eyes")
        await slack.unreact(STRANGER.id, SHARED, ts, "eyes")
        await slack.edit(STRANGER.id, SHARED, ts, "never mind")
        await slack.say(ADA, SHARED, "so")
        await slack.delivered()
        await slack.say(ADA, HELP, "how?")
        await slack.delivered()
    assert [body["is_ext_shared_channel"] for body in app.bodies] == [True] * 6 + [False]
    assert {body["authorizations"][0]["team_id"] for body in app.bodies} == {"T0PLAY"}
    for body in app.bodies:
        event = body["event"].get("message", body["event"])
        teams = [event.get(name) for name in ("team", "user_team", "source_team")]
        assert teams == (["T0ACME"] * 3 if event["user"] == STRANGER.id else ["T0PLAY", None, None])


async def test_a_stranger_is_known_as_one(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    slack.scopes.update({"channels:read", "users:read"})
    infos = {one: (await client.conversations_info(channel=one))["channel"]["is_ext_shared"] for one in (HELP, SHARED)}
    assert infos == {HELP: False, SHARED: True}
    users = [(await client.users_info(user=one))["user"] for one in (ADA, STRANGER.id)]
    assert [(one["team_id"], one["is_stranger"]) for one in users] == [("T0PLAY", False), ("T0ACME", True)]
    with pytest.raises(SlackError, match="channel_not_found"):
        slack.dm(STRANGER.id)


@pytest.mark.parametrize(
    ("user", "team", "error"),
    [
        (STRANGER.id, STRANGER.team, None),
        (STRANGER.id, "T0PLAY", "invalid_arguments"),
        (ADA, "T0PLAY", None),
        (ADA, STRANGER.team, "invalid_arguments"),
    ],
)
async def test_a_stream_names_the_recipients_own_team(
    slack: SimulatedSlack, client: AsyncWebClient, user: str, team: str, error: str | None
) -> None:
    question = await slack.say(user, SHARED, "how?")
    starting = start(client, question, channel=SHARED, recipient_user_id=user, recipient_team_id=team)
    if error is None:
        assert message(slack, await starting, SHARED)["thread_ts"] == question
    else:
        assert await error_of(starting) == error
