import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from bridge import redis_client
from bridge.chat import ChatBusyError, ChatError, ChatRefusedError, ChatUnclearError, MessageGoneError
from bridge.messages import Messages
from bridge.models import Place, Question, Reply
from bridge.pauses import Pauses
from bridge.playground.serving import served
from bridge.playground.slack import SimulatedSlack
from bridge.rate_limit import RateLimit
from bridge.slack import write
from bridge.slack.chat import PAUSE_SECONDS, SlackChat, is_everywhere, scopes
from bridge.slack.manifest import SCOPES
from bridge.slack.read import Identity
from bridge.slack.web_api import account, identify, refusal, web_client
from bridge.status import Status
from bridge.work import Beside
from tests.rig import ADA, ELSEWHERE, GENERAL, HELP
from tests.waiting import eventually

PATIENT = aiohttp.ClientTimeout(total=10)
IMPATIENT = aiohttp.ClientTimeout(total=0.2)


class Calls:
    """A SlackChat over a simulated Slack, and what it observed."""

    def __init__(self, slack: SimulatedSlack, session: aiohttp.ClientSession, redis: Redis) -> None:
        self.slack = slack
        self.observed: list[tuple[str, str]] = []
        self.client = web_client(slack.bot_token, slack.api_url, session)
        identity = Identity("T0PLAY", "U0BRIDGE", "B0BRIDGE", "https://playground.slack.com/")
        self.chat = SlackChat(
            self.client,
            identity,
            pauses=Pauses(redis, identity.team),
            says=Messages(),
            observe=self._observe,
        )

    def _observe(self, method: str, outcome: str, seconds: float) -> None:
        assert seconds >= 0
        self.observed.append((method, outcome))

    async def ask(self, channel: str = GENERAL) -> Question:
        ts = await self.slack.say(ADA, channel, "How?")
        return question(channel, ts)

    def replies(self, asked: Question) -> list[dict[str, Any]]:
        return self.slack.thread(asked.place.channel, asked.place.thread)[1:]


def question(channel: str, ts: str, thread: str | None = None) -> Question:
    return Question(Place("T0PLAY", channel, thread or ts), ts, ADA, "How?", "https://playground.slack.com/x")


@asynccontextmanager
async def calling(redis: Redis, patience: aiohttp.ClientTimeout = PATIENT) -> AsyncIterator[Calls]:
    async with SimulatedSlack(limits=None).serve() as slack, aiohttp.ClientSession(timeout=patience) as session:
        yield Calls(slack, session, redis)


@pytest.fixture
async def calls(redis: Redis) -> AsyncIterator[Calls]:
    async with calling(redis) as calls:
        yield calls


PART = write.parts(Reply("**An answer**"), Messages())[0]
OTHER = write.parts(Reply("Another answer"), Messages())[0]


# What a failed reply means


@pytest.mark.parametrize(
    ("status", "headers", "data", "expected", "retry_after"),
    [
        (429, {"Retry-After": "30"}, {"ok": False, "error": "ratelimited"}, ChatBusyError, 30.0),
        (429, {"retry-after": " 7 "}, {}, ChatBusyError, 7.0),
        (429, {}, "<html>", ChatBusyError, None),
        (429, {"Retry-After": "soon"}, {}, ChatBusyError, None),
        (429, {"Retry-After": "1.5"}, {}, ChatBusyError, None),
        (429, {"Retry-After": "-1"}, {}, ChatBusyError, None),
        (429, {"Retry-After": "²"}, {}, ChatBusyError, None),
        (429, {"Retry-After": "9" * 400}, {}, ChatBusyError, 3600.0),
        (200, {}, {"ok": False, "error": "ratelimited"}, ChatBusyError, None),
        (200, {"Retry-After": "2"}, {"ok": False, "error": "rate_limited"}, ChatBusyError, 2.0),
        (500, {}, {"ok": False, "error": "channel_not_found"}, ChatUnclearError, None),
        (502, {}, {}, ChatUnclearError, None),
        (503, {}, None, ChatUnclearError, None),
        (200, {}, {"ok": False, "error": "internal_error"}, ChatUnclearError, None),
        (200, {}, {"ok": False, "error": "fatal_error"}, ChatUnclearError, None),
        (200, {}, {"ok": False, "error": "request_timeout"}, ChatUnclearError, None),
        (200, {}, {"ok": False, "error": "service_unavailable"}, ChatUnclearError, None),
        (200, {}, {"ok": False}, ChatUnclearError, None),
        (200, {}, {"ok": False, "error": None}, ChatUnclearError, None),
        (200, {}, {}, ChatUnclearError, None),
        (404, {}, b"bytes", ChatUnclearError, None),
        (200, {}, {"ok": False, "error": "message_not_found"}, MessageGoneError, None),
        (200, {}, {"ok": False, "error": "cant_update_message"}, MessageGoneError, None),
        (200, {}, {"ok": False, "error": "edit_window_closed"}, MessageGoneError, None),
        (200, {}, {"ok": False, "error": "channel_not_found"}, ChatRefusedError, None),
        (200, {}, {"ok": False, "error": "invalid_auth"}, ChatRefusedError, None),
        (403, {}, {"ok": False, "error": "token_revoked"}, ChatRefusedError, None),
        (200, {}, {"ok": False, "error": ["odd"]}, ChatRefusedError, None),
    ],
)
def test_refusals(
    status: int, headers: dict[str, str], data: object, expected: type[ChatError], retry_after: float | None
) -> None:
    error = refusal(status, headers, data)
    assert type(error) is expected
    assert getattr(error, "retry_after", None) == retry_after


def test_a_reason_is_short() -> None:
    assert len(refusal(200, {}, {"error": "x" * 10_000}).reason) <= 100


# Calls that go wrong on the way


@pytest.mark.parametrize(
    ("fault", "expected", "outcome"),
    [
        ("429", ChatBusyError, "busy"),
        ("ratelimited", ChatBusyError, "busy"),
        ("500", ChatUnclearError, "unclear"),
        ("502", ChatUnclearError, "unclear"),
        ("garbage", ChatUnclearError, "unclear"),
        ("drop_before", ChatUnclearError, "unclear"),
        ("drop_after", ChatUnclearError, "unclear"),
        ("internal_error", ChatUnclearError, "unclear"),
        ("is_archived", ChatRefusedError, "refused"),
        ("message_not_found", MessageGoneError, "refused"),
    ],
)
async def test_a_call_that_fails_is_made_once_and_explained(
    calls: Calls, fault: str, expected: type[ChatError], outcome: str
) -> None:
    asked = await calls.ask()
    calls.slack.fault("chat.postMessage", fault, retry_after="17")
    with pytest.raises(ChatError) as raised:
        await calls.chat.post(asked, 0, PART)
    assert type(raised.value) is expected
    assert calls.observed == [("chat.postMessage", outcome)]
    assert [call.method for call in calls.slack.calls] == ["chat.postMessage"]
    assert len(calls.replies(asked)) == (fault == "drop_after")


@pytest.mark.parametrize(
    ("header", "retry_after"),
    [("17", 17.0), ("0", PAUSE_SECONDS), (None, PAUSE_SECONDS), ("soon", PAUSE_SECONDS), ("9" * 20, 3600.0)],
)
async def test_slack_says_how_long_to_wait(calls: Calls, header: str | None, retry_after: float) -> None:
    calls.slack.fault("chat.postMessage", "429", retry_after=header)
    with pytest.raises(ChatBusyError) as raised:
        await calls.chat.post(await calls.ask(), 0, PART)
    assert raised.value.retry_after == retry_after


async def test_slack_s_silence_is_unclear(redis: Redis) -> None:
    async with calling(redis, IMPATIENT) as calls:
        asked = await calls.ask()
        calls.slack.fault("chat.postMessage", "hang")
        with pytest.raises(ChatUnclearError):
            await calls.chat.post(asked, 0, PART)
        assert calls.observed == [("chat.postMessage", "unclear")]


async def test_without_a_connection_nothing_was_done() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        async with aiohttp.ClientSession(timeout=PATIENT) as session:
            client = web_client("xoxb-1", f"http://127.0.0.1:{taken.getsockname()[1]}/api/", session)
            with pytest.raises(ChatBusyError):
                await identify(client)


ODD_REPLIES: list[Callable[[], web.Response]] = [
    lambda: web.Response(text="ok"),
    lambda: web.Response(text="ok", content_type="text/html"),
    lambda: web.Response(text="[]", content_type="application/json"),
    lambda: web.Response(text="[1]", content_type="application/json"),
    lambda: web.Response(text="null", content_type="application/json"),
    lambda: web.Response(text='"ok"', content_type="application/json"),
    lambda: web.Response(text='{"ok": true', content_type="application/json"),
    lambda: web.Response(body=b'{"ok": "\xff"}', content_type="application/json"),
    lambda: web.Response(body=b"ok", content_type="application/gzip"),
    lambda: web.Response(body=b"", content_type="application/json"),
    lambda: web.Response(status=204),
    lambda: web.Response(text='{"ok": true}', content_type="application/json"),
    lambda: web.Response(text='{"ok": true, "team_id": 7, "user_id": null}', content_type="application/json"),
    lambda: web.Response(status=302, headers={"Location": "/elsewhere"}),
]


@pytest.mark.parametrize("reply", ODD_REPLIES, ids=range(len(ODD_REPLIES)))
async def test_whatever_answers_in_slack_s_place_is_unclear(reply: Callable[[], web.Response]) -> None:
    async def answer(_: web.Request) -> web.Response:
        return reply()

    server = web.Application()
    server.router.add_post("/api/auth.test", answer)
    async with served(server, "127.0.0.1", 0) as url, aiohttp.ClientSession(timeout=PATIENT) as session:
        with pytest.raises(ChatUnclearError):
            await identify(web_client("xoxb-1", f"{url}/api/", session))


# Who the bridge is


async def test_slack_says_who_the_bridge_is_and_what_it_may(calls: Calls) -> None:
    assert await identify(calls.client) == Identity("T0PLAY", "U0BRIDGE", "B0BRIDGE", "https://playground.slack.com/")
    assert (await account(calls.client)).scopes == frozenset(SCOPES)
    calls.slack.scopes.discard("chat:write")
    assert (await account(calls.client)).scopes == frozenset(SCOPES) - {"chat:write"}


async def test_a_wrong_token_is_refused(calls: Calls) -> None:
    calls.client.token = "xoxb-wrong"
    for ask in (identify, account):
        with pytest.raises(ChatRefusedError) as raised:
            await ask(calls.client)
        assert raised.value.reason == "invalid_auth"


# Showing


async def test_a_post_names_its_question_and_unfurls_nothing(calls: Calls) -> None:
    asked = await calls.ask()
    ts = await calls.chat.post(asked, 3, PART)
    [shown] = calls.replies(asked)
    assert (shown["ts"], shown["text"], shown["blocks"]) == (ts, PART["text"], PART["blocks"])
    assert write.read_metadata(shown) == (asked.id, 3)
    [call] = calls.slack.calls
    assert (call.args["unfurl_links"], call.args["unfurl_media"]) == (False, False)
    assert "reply_broadcast" not in call.args


async def test_an_edit_replaces_and_keeps_the_metadata(calls: Calls) -> None:
    asked = await calls.ask()
    ts = await calls.chat.post(asked, 0, PART)
    for _ in range(2):
        await calls.chat.edit(asked, 0, ts, OTHER)
    [shown] = calls.replies(asked)
    assert (shown["text"], shown["blocks"]) == (OTHER["text"], OTHER["blocks"])
    assert write.read_metadata(shown) == (asked.id, 0)


async def test_an_edit_of_what_is_gone_says_so(calls: Calls) -> None:
    asked = await calls.ask()
    ts = await calls.chat.post(asked, 0, PART)
    await calls.chat.delete(asked.place, ts)
    with pytest.raises(MessageGoneError):
        await calls.chat.edit(asked, 0, ts, OTHER)
    assert calls.replies(asked) == []


async def test_deleting_twice_is_fine(calls: Calls) -> None:
    asked = await calls.ask()
    ts = await calls.chat.post(asked, 0, PART)
    await calls.chat.delete(asked.place, ts)
    await calls.chat.delete(asked.place, ts)
    assert calls.replies(asked) == []


async def test_a_refused_deletion_is_an_error(calls: Calls) -> None:
    calls.slack.fault("chat.delete", "cant_delete_message")
    with pytest.raises(ChatRefusedError):
        await calls.chat.delete((await calls.ask()).place, "1.2")


@pytest.mark.parametrize("error", ["invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "msg_too_long"])
async def test_blocks_that_slack_finds_fault_with_become_plain_text(calls: Calls, error: str) -> None:
    asked = await calls.ask()
    calls.slack.fault("chat.postMessage", error)
    ts = await calls.chat.post(asked, 0, PART)
    calls.slack.fault("chat.update", error)
    await calls.chat.edit(asked, 0, ts, OTHER)
    [shown] = calls.replies(asked)
    assert shown["text"] == OTHER["text"]
    assert "blocks" not in shown
    assert write.read_metadata(shown) == (asked.id, 0)
    outcomes = [("chat.postMessage", "refused"), ("chat.postMessage", "ok")]
    assert calls.observed == [*outcomes, ("chat.update", "refused"), ("chat.update", "ok")]


async def test_blocks_that_are_really_wrong_become_plain_text(calls: Calls) -> None:
    asked = await calls.ask()
    await calls.chat.post(asked, 0, {"text": "Plain", "blocks": [{"type": "nonsense"}]})
    assert [shown["text"] for shown in calls.replies(asked)] == ["Plain"]


async def test_plain_text_that_is_refused_is_not_tried_again(calls: Calls) -> None:
    calls.slack.fault("chat.postMessage", "msg_too_long", times=2)
    with pytest.raises(ChatRefusedError):
        await calls.chat.post(await calls.ask(), 0, {"text": "Plain"})
    assert len(calls.slack.calls) == 1


async def test_a_channel_that_the_bridge_is_not_in_is_refused(calls: Calls) -> None:
    with pytest.raises(ChatRefusedError) as raised:
        await calls.chat.post(await calls.ask(ELSEWHERE), 0, PART)
    assert raised.value.reason == "not_in_channel"


async def test_the_status_comes_and_goes(calls: Calls) -> None:
    asked = await calls.ask()
    await calls.chat.show_status(asked.place, "is thinking…")
    assert calls.slack.status(GENERAL, asked.place.thread)["status"] == "is thinking…"
    await calls.chat.show_status(asked.place, "")
    assert calls.slack.status(GENERAL, asked.place.thread) == {}


async def test_a_reply_is_divided_under_the_bridge_s_own_heading(calls: Calls) -> None:
    reply = Reply("word " * 4_000)
    assert calls.chat.parts(reply) == write.parts(reply, Messages())


# Finding again


async def test_what_was_posted_is_found_again(calls: Calls) -> None:
    asked = await calls.ask()
    first, again, second = [await calls.chat.post(asked, number, PART) for number in (0, 0, 1)]
    assert (await calls.chat.find(asked)).parts == {0: [first, again], 1: [second]}


async def test_nothing_is_found_where_nothing_is(calls: Calls) -> None:
    assert (await calls.chat.find(await calls.ask())).parts == {}


async def test_a_lost_reply_of_slack_s_is_found(calls: Calls) -> None:
    asked = await calls.ask()
    calls.slack.fault("chat.postMessage", "drop_after")
    with pytest.raises(ChatUnclearError):
        await calls.chat.post(asked, 0, PART)
    [shown] = calls.replies(asked)
    assert (await calls.chat.find(asked)).parts == {0: [shown["ts"]]}


async def test_replies_to_other_questions_of_the_thread_are_not_found(calls: Calls) -> None:
    asked = await calls.ask()
    await calls.chat.post(asked, 0, PART)
    follow_up = question(GENERAL, await calls.slack.say(ADA, GENERAL, "And?", thread=asked.id), asked.id)
    ts = await calls.chat.post(follow_up, 0, PART)
    assert (await calls.chat.find(follow_up)).parts == {0: [ts]}


async def test_a_long_thread_is_searched_page_by_page_and_forgeries_are_not_found(calls: Calls) -> None:
    asked = await calls.ask()
    channel = calls.slack.workspace.channel(GENERAL)
    for number in range(450):
        forged = {"text": f"reply {number}", "metadata": write.metadata(asked.id, 0)}
        calls.slack.workspace.post("U0BUILDS" if number % 2 else ADA, channel, forged, asked.id)
    ts = await calls.chat.post(asked, 0, PART)
    assert (await calls.chat.find(asked)).parts == {0: [ts]}
    pages = [call.args for call in calls.slack.calls if call.method == "conversations.replies"]
    assert len(pages) == 3
    assert {page["oldest"] for page in pages} == {asked.id}


@pytest.mark.parametrize("fault", ["429", "500", "502", "missing_scope"])
async def test_a_search_that_fails_is_an_error(calls: Calls, fault: str) -> None:
    asked = await calls.ask()
    calls.slack.fault("conversations.replies", fault)
    with pytest.raises(ChatError):
        await calls.chat.find(asked)


@pytest.mark.parametrize("method", ["edit", "delete", "show_status"])
async def test_every_call_is_observed_once(calls: Calls, method: str) -> None:
    asked = await calls.ask()
    ts = await calls.chat.post(asked, 0, PART)
    calls.observed.clear()
    works: dict[str, tuple[str, Callable[[], Awaitable[None]]]] = {
        "edit": ("chat.update", lambda: calls.chat.edit(asked, 0, ts, OTHER)),
        "delete": ("chat.delete", lambda: calls.chat.delete(asked.place, ts)),
        "show_status": ("assistant.threads.setStatus", lambda: calls.chat.show_status(asked.place, "x")),
    }
    name, work = works[method]
    await work()
    assert calls.observed == [(name, "ok")]


# What Slack limits is left alone


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("chat.postMessage", ("chat.postMessage", "chat.postMessage C1")),
        ("chat.update", ("chat.update",)),
        ("chat.delete", ("chat.delete",)),
        ("conversations.replies", ("conversations.replies",)),
        ("assistant.threads.setStatus", ("assistant.threads.setStatus",)),
    ],
)
def test_posts_alone_have_a_limit_for_each_channel(method: str, expected: tuple[str, ...]) -> None:
    assert scopes(method, "C1") == expected


@pytest.mark.parametrize(
    ("scope", "paused", "expected"),
    [
        ("chat.postMessage C1", {"chat.postMessage C1"}, False),
        ("chat.postMessage C1", {"chat.postMessage C1", "chat.update"}, False),
        ("chat.postMessage C1", {"chat.postMessage C1", "chat.postMessage"}, False),
        ("chat.postMessage C1", {"chat.postMessage C1", "chat.postMessage C10"}, True),
        ("chat.postMessage C1", {"chat.postMessage C2", "chat.postMessage C1", "chat.postMessage"}, True),
        ("chat.update", {"chat.update", "chat.postMessage C1", "chat.postMessage C2"}, False),
    ],
)
def test_a_limit_that_two_channels_meet_is_everywhere(scope: str, paused: set[str], expected: bool) -> None:
    assert is_everywhere(scope, paused) is expected


WORKS: dict[str, Callable[[SlackChat, Question], Awaitable[object]]] = {
    "chat.postMessage": lambda chat, asked: chat.post(asked, 0, PART),
    "chat.update": lambda chat, asked: chat.edit(asked, 0, "1.2", PART),
    "chat.delete": lambda chat, asked: chat.delete(asked.place, "1.2"),
    "conversations.replies": lambda chat, asked: chat.find(asked),
    "assistant.threads.setStatus": lambda chat, asked: chat.show_status(asked.place, "x"),
}


async def limit(calls: Calls, method: str, asked: Question, retry_after: str | None = "3600") -> None:
    calls.slack.fault(method, "429", retry_after=retry_after)
    with pytest.raises(ChatBusyError):
        await WORKS[method](calls.chat, asked)


@pytest.mark.parametrize("method", WORKS)
async def test_what_was_limited_is_called_by_nobody_and_the_rest_goes_on(
    calls: Calls, redis_url: str, method: str
) -> None:
    asked = await calls.ask()
    await limit(calls, method, asked)
    calls.slack.fault(method, "is_archived", 9)
    async with redis_client.connect(redis_url) as redis, aiohttp.ClientSession(timeout=PATIENT) as session:
        for chat in (calls.chat, Calls(calls.slack, session, redis).chat):
            with pytest.raises(ChatBusyError) as raised:
                await WORKS[method](chat, asked)
            assert 3000 < (raised.value.retry_after or 0) <= 3600
    assert [(call.method, call.outcome) for call in calls.slack.calls] == [(method, "429")]
    assert calls.observed == [(method, "busy")]
    calls.slack.clear_faults()
    for other in WORKS.keys() - {method, "chat.update"}:
        await WORKS[other](calls.chat, asked)
    assert {call.method for call in calls.slack.calls} == WORKS.keys() - {"chat.update"} | {method}


async def test_a_channel_that_is_limited_keeps_no_other_from_getting_posts(calls: Calls) -> None:
    here, there = await calls.ask(GENERAL), await calls.ask(HELP)
    await limit(calls, "chat.postMessage", here)
    assert await calls.chat.post(there, 0, PART)
    # A second channel that is limited meanwhile speaks for a limit of the workspace's.
    await limit(calls, "chat.postMessage", there)
    with pytest.raises(ChatBusyError):
        await calls.chat.post(await calls.ask(ELSEWHERE), 0, PART)
    assert [call.args["channel"] for call in calls.slack.calls] == [GENERAL, HELP, HELP]


async def test_other_workspaces_have_nothing_to_do_with_it(calls: Calls, redis: Redis) -> None:
    asked = await calls.ask()
    await limit(calls, "chat.update", asked)
    assert await Pauses(redis, "T0OTHER").left(scopes("chat.update", GENERAL)) == 0


async def test_plain_text_instead_of_blocks_keeps_pauses_too(calls: Calls) -> None:
    asked = await calls.ask()
    calls.slack.fault("chat.postMessage", "invalid_blocks")
    calls.slack.fault("chat.postMessage", "429", retry_after="3600")
    for _ in range(2):
        with pytest.raises(ChatBusyError):
            await calls.chat.post(asked, 0, PART)
    assert [call.outcome for call in calls.slack.calls] == ["invalid_blocks", "429"]


@pytest.mark.parametrize("fault", ["500", "drop_before", "is_archived"])
async def test_what_is_no_limit_pauses_nothing(calls: Calls, redis: Redis, fault: str) -> None:
    asked = await calls.ask()
    calls.slack.fault("chat.update", fault)
    with pytest.raises(ChatError):
        await calls.chat.edit(asked, 0, "1.2", PART)
    assert await redis.keys() == []


async def test_slack_that_cannot_be_reached_has_limited_nothing(redis: Redis) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        async with calling(redis) as calls:
            calls.client.base_url = f"http://127.0.0.1:{taken.getsockname()[1]}/api/"
            with pytest.raises(ChatBusyError):
                await calls.chat.edit(await calls.ask(), 0, "1.2", PART)
    assert await redis.keys() == []


@asynccontextmanager
async def without_redis(calls: Calls) -> AsyncIterator[SlackChat]:
    """Give a chat that cannot reach its Redis."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        async with (
            redis_client.connect(f"redis://127.0.0.1:{taken.getsockname()[1]}/0") as nobody,
            aiohttp.ClientSession(timeout=PATIENT) as session,
        ):
            yield Calls(calls.slack, session, nobody).chat


@pytest.mark.parametrize("method", WORKS)
async def test_without_redis_slack_is_not_called(calls: Calls, method: str) -> None:
    async with without_redis(calls) as chat:
        with pytest.raises(RedisError):
            await WORKS[method](chat, await calls.ask())
    assert list(calls.slack.calls) == []


async def test_a_status_without_redis_is_nobodys_trouble(calls: Calls, redis: Redis) -> None:
    asked, beside = await calls.ask(), Beside()
    with capture_logs() as logs:

        def failures() -> int:
            return [entry["event"] for entry in logs].count("status_failed")

        async with without_redis(calls) as chat:
            changes = RateLimit(redis, "statuses", limit=10)
            async with Status(chat, asked, "x", changes=changes, has_posted=lambda: False, beside=beside):
                await eventually(lambda: failures() == 1)
            await eventually(lambda: [entry["event"] for entry in logs].count("aside_failed") == 1)
    assert failures() == 1
