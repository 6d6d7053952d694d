"""The simulated Slack behaves as Slack does: seen through the real SDK, real HTTP and real WebSockets."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk.errors import SlackApiError
from slack_sdk.signature import SignatureVerifier
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient

from bridge.playground.serving import served
from bridge.playground.slack import ELSEWHERE, GENERAL, HELP, PRIVATE, SimulatedSlack
from bridge.playground.slack_events import rich_text, unescape
from bridge.playground.slack_page import Page, typed
from bridge.playground.slack_rules import SlackError, check_blocks, check_metadata
from tests.waiting import Clock, Naps

ADA, GRACE, BOT = "U0ADA", "U0GRACE", "U0BRIDGE"
METADATA = {"event_type": "answer", "event_payload": {"question": "1"}}


@dataclass
class App:
    """The bridge's end of HTTP delivery: keeps every request, answers with the next of `replies`, else 200."""

    url: str = ""
    replies: list[web.Response] = field(default_factory=list)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((dict(request.headers), await request.read()))
        return self.replies.pop(0) if self.replies else web.Response()

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(raw) for _, raw in self.requests]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [body["event"] for body in self.bodies]


@asynccontextmanager
async def app_serving() -> AsyncIterator[App]:
    app = App()
    server = web.Application()
    server.router.add_post("/slack/events", app.handle)
    async with served(server, "127.0.0.1", 0) as url:
        app.url = f"{url}/slack/events"
        yield app


@pytest.fixture
async def slack() -> AsyncIterator[SimulatedSlack]:
    async with SimulatedSlack(limits=None, sleep=Naps(), ack_seconds=1.0).serve() as served_slack:
        yield served_slack


@pytest.fixture
async def app(slack: SimulatedSlack) -> AsyncIterator[App]:
    async with app_serving() as one:
        slack.subscribe(one.url)
        yield one


def client_of(slack: SimulatedSlack, token: str | None = None) -> AsyncWebClient:
    return AsyncWebClient(token or slack.bot_token, base_url=slack.api_url, retry_handlers=[], timeout=5)


@pytest.fixture
def client(slack: SimulatedSlack) -> AsyncWebClient:
    return client_of(slack)


async def error_of(call: Awaitable[object]) -> str:
    with pytest.raises(SlackApiError) as caught:
        await call
    return str(caught.value.response["error"])


# The Web API


async def test_auth_test_names_the_workspace_and_the_bot(client: AsyncWebClient) -> None:
    reply = await client.auth_test()
    assert reply["url"] == "https://playground.slack.com/"
    assert (reply["team_id"], reply["user_id"], reply["bot_id"]) == ("T0PLAY", BOT, "B0BRIDGE")
    assert "chat:write" in reply.headers["X-OAuth-Scopes"].split(",")


async def test_auth_test_names_the_app_of_an_app_token(slack: SimulatedSlack) -> None:
    reply = await client_of(slack, slack.app_token).auth_test()
    assert (reply["app_id"], reply["app_name"], reply.get("bot_id")) == ("A0BRIDGE", "Bridge", None)
    assert reply.headers["X-OAuth-Scopes"] == "connections:write"


async def test_auth_test_names_no_bot_of_a_user_token(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    slack.workspace.bot = replace(slack.workspace.bot, bot_id=None)
    assert "bot_id" not in (await client.auth_test()).data


@pytest.mark.parametrize(("channel", "scope"), [(HELP, "channels"), (PRIVATE, "groups"), ("D0ADA", "im")])
async def test_each_kind_of_channel_has_its_scope(
    slack: SimulatedSlack, client: AsyncWebClient, channel: str, scope: str
) -> None:
    slack.scopes.discard(f"{scope}:history")
    assert await error_of(client.conversations_history(channel=channel)) == "missing_scope"
    assert await error_of(client.conversations_replies(channel=channel, ts="1")) == "missing_scope"
    slack.scopes.add(f"{scope}:history")
    assert (await client.conversations_history(channel=channel))["messages"] == []


async def test_tokens_and_scopes_are_checked(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    assert await error_of(client_of(slack, "xoxb-wrong").auth_test()) == "invalid_auth"
    assert await error_of(client_of(slack, slack.app_token).chat_postMessage(channel=HELP, text="x")) == (
        "not_allowed_token_type"
    )
    assert await error_of(client.apps_connections_open(app_token=slack.bot_token)) == "not_allowed_token_type"
    slack.scopes.discard("chat:write")
    assert await error_of(client.chat_postMessage(channel=HELP, text="x")) == "missing_scope"
    assert slack.messages(HELP) == []


@pytest.mark.parametrize(
    ("method", "args", "error"),
    [
        ("chat.nonsense", {}, "unknown_method"),
        ("chat.postMessage", {"text": "x"}, "invalid_arguments"),
        ("chat.postMessage", {"channel": "C404", "text": "x"}, "channel_not_found"),
        ("chat.postMessage", {"channel": ELSEWHERE, "text": "x"}, "not_in_channel"),
        ("chat.postMessage", {"channel": HELP}, "no_text"),
        ("chat.postMessage", {"channel": HELP, "text": " "}, "no_text"),
        ("chat.postMessage", {"channel": HELP, "text": "x", "markdown_text": "y"}, "markdown_text_conflict"),
        ("chat.postMessage", {"channel": HELP, "markdown_text": "y" * 12_001}, "msg_too_long"),
        ("chat.postMessage", {"channel": HELP, "text": "x", "metadata": {"event_type": 1}}, "invalid_metadata_format"),
        ("chat.postMessage", {"channel": HELP, "text": "x", "metadata": "{"}, "invalid_metadata_format"),
        ("chat.update", {"channel": HELP, "ts": "1.1", "text": "x"}, "message_not_found"),
        ("chat.delete", {"channel": HELP, "ts": "1.1"}, "message_not_found"),
        ("conversations.replies", {"channel": HELP, "ts": "1.1"}, "thread_not_found"),
        ("conversations.replies", {"channel": HELP, "ts": "1.1", "cursor": "!"}, "thread_not_found"),
        ("conversations.history", {"channel": HELP, "cursor": "!"}, "invalid_cursor"),
        ("conversations.history", {"channel": HELP, "limit": "many"}, "invalid_limit"),
        ("reactions.add", {"channel": HELP, "timestamp": "1.1", "name": "a b"}, "invalid_name"),
        ("users.info", {"user": "U404"}, "user_not_found"),
        ("chat.postEphemeral", {"channel": HELP, "user": "U404", "text": "x"}, "user_not_in_channel"),
    ],
)
async def test_refusals(
    slack: SimulatedSlack, client: AsyncWebClient, method: str, args: dict[str, Any], error: str
) -> None:
    slack.scopes.update({"reactions:write", "users:read"})
    assert await error_of(client.api_call(method, json=args)) == error


@pytest.mark.parametrize("how", ["json", "data", "params"])
async def test_arguments_are_taken_as_json_as_a_form_and_in_the_query(slack: SimulatedSlack, how: str) -> None:
    args: dict[str, Any] = {"channel": HELP, "text": "hello", "metadata": METADATA}
    if how != "json":
        args["metadata"] = json.dumps(METADATA)
    headers = {"Authorization": f"Bearer {slack.bot_token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        sending: dict[str, Any] = {how: args}
        async with session.post(f"{slack.api_url}chat.postMessage", **sending) as reply:
            assert (await reply.json())["ok"] is True
        async with session.get(f"{slack.api_url}auth.test") as reply:
            assert (await reply.json())["ok"] is True
    (message,) = slack.messages(HELP)
    assert (message["text"], message["metadata"]) == ("hello", METADATA)
    assert slack.calls[0].args == {"channel": HELP, "text": "hello", "metadata": METADATA}


async def test_a_token_in_the_arguments_counts_and_is_not_recorded(slack: SimulatedSlack) -> None:
    args = {"token": slack.bot_token}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{slack.api_url}auth.test", data=args) as reply,
    ):
        assert (await reply.json())["ok"] is True
    assert slack.calls[0].args == {}


async def test_an_answer_is_posted_updated_found_again_and_deleted(
    slack: SimulatedSlack, client: AsyncWebClient
) -> None:
    question = await slack.say(ADA, HELP, "how?")
    posted = await client.chat_postMessage(channel=HELP, thread_ts=question, text="a", metadata=METADATA)
    updated = await client.chat_update(channel=HELP, ts=str(posted["ts"]), markdown_text="**b**")
    assert updated["ts"] == posted["ts"]
    found = await client.conversations_replies(channel=HELP, ts=question, include_all_metadata=True)
    root, answer = found["messages"]
    assert (root["ts"], root["reply_count"], root["reply_users"]) == (question, 1, [BOT])
    assert answer["blocks"] == [{"type": "markdown", "text": "**b**"}]
    assert (answer["metadata"], answer["parent_user_id"]) == (METADATA, ADA)
    plain = await client.conversations_replies(channel=HELP, ts=question)
    assert "metadata" not in plain["messages"][1]
    await client.chat_update(channel=HELP, ts=str(posted["ts"]), text="c", metadata={})
    assert "metadata" not in slack.messages(HELP)[1]
    assert "blocks" not in slack.messages(HELP)[1]
    await client.chat_delete(channel=HELP, ts=str(posted["ts"]))
    assert [message["ts"] for message in slack.thread(HELP, question)] == [question]


async def test_only_own_messages_can_be_changed(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    ts = await slack.say(ADA, HELP, "mine")
    assert await error_of(client.chat_update(channel=HELP, ts=ts, text="x")) == "cant_update_message"
    assert await error_of(client.chat_delete(channel=HELP, ts=ts)) == "cant_delete_message"
    with pytest.raises(SlackError, match="cant_update_message"):
        await slack.edit(GRACE, HELP, ts, "not mine")
    assert slack.messages(HELP)[0]["text"] == "mine"


async def test_long_texts(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    ts = str((await client.chat_postMessage(channel=HELP, text="x" * 40_001))["ts"])
    assert len(slack.messages(HELP)[0]["text"]) == 40_000
    assert await error_of(client.chat_update(channel=HELP, ts=ts, text="x" * 4_001)) == "msg_too_long"
    await client.chat_update(channel=HELP, ts=ts, text="x" * 4_000)
    assert len(slack.messages(HELP)[0]["text"]) == 4_000


async def test_replies_come_in_pages(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    root = await slack.say(ADA, HELP, "root")
    sent = [root] + [await slack.say(GRACE, HELP, str(number), thread=root) for number in range(6)]
    seen: list[str] = []
    async for page in await client.conversations_replies(channel=HELP, ts=root, limit=3):
        assert len(page["messages"]) <= 3
        seen += [message["ts"] for message in page["messages"]]
    assert seen == sent
    later = await client.conversations_replies(channel=HELP, ts=root, oldest=sent[4])
    assert [message["ts"] for message in later["messages"]] == [root, *sent[5:]]
    history = await client.conversations_history(channel=HELP)
    assert [message["ts"] for message in history["messages"]] == [root]


async def test_channels_and_people_are_listed(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    slack.scopes.update({"channels:read", "users:read"})
    channels = (await client.conversations_list(types="public_channel,private_channel"))["channels"]
    assert {channel["name"]: channel["is_member"] for channel in channels} == {
        "general": True, "help": True, "secret-plans": True, "elsewhere": False, "with-acme": True,
    }  # fmt: skip
    slack.leave(GENERAL)
    slack.join(ELSEWHERE)
    assert (await client.conversations_info(channel=GENERAL))["channel"]["is_member"] is False
    assert (await client.chat_postMessage(channel=ELSEWHERE, text="x"))["ok"] is True
    assert (await client.chat_postMessage(channel=ADA, text="x"))["channel"] == slack.dm(ADA)
    assert (await client.users_info(user=ADA))["user"]["real_name"] == "Ada Lovelace"


async def test_a_status_goes_with_an_answer_when_cleared_and_after_two_minutes() -> None:
    clock = Clock()
    async with SimulatedSlack(limits=None, clock=clock).serve() as slack:
        client = client_of(slack)
        ts = await slack.say(ADA, HELP, "how?")

        async def set_status(status: str) -> None:
            await client.assistant_threads_setStatus(channel_id=HELP, thread_ts=ts, status=status)

        await set_status("is thinking…")
        assert slack.status(HELP, ts)["status"] == "is thinking…"
        await set_status("")
        assert slack.status(HELP, ts) == {}
        await set_status("is thinking…")
        await client.chat_postMessage(channel=HELP, thread_ts=ts, text="so")
        assert slack.status(HELP, ts) == {}
        await set_status("is thinking…")
        clock.now += 121
        assert slack.status(HELP, ts) == {}


async def test_ephemerals_are_seen_by_one_person_only(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    await client.chat_postEphemeral(channel=HELP, user=ADA, text="thanks")
    assert [(one["to"], one["text"]) for one in slack.ephemerals(HELP)] == [(ADA, "thanks")]
    assert slack.messages(HELP) == []


# What Slack accepts as blocks

PLAIN = {"type": "plain_text", "text": "x"}


@pytest.mark.parametrize(
    "block",
    [
        {"type": "markdown", "text": "x" * 12_000},
        {"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3_000}},
        {"type": "section", "fields": [PLAIN] * 10},
        {"type": "header", "text": {"type": "plain_text", "text": "x" * 150}},
        {"type": "context", "elements": [PLAIN] * 10},
        {"type": "actions", "elements": [{"type": "button", "text": PLAIN}] * 25},
        {
            "type": "context_actions",
            "elements": [
                {"type": "feedback_buttons", "positive_button": {"text": PLAIN}, "negative_button": {"text": PLAIN}}
            ],
        },
        {"type": "divider"},
    ],
    ids=lambda block: block["type"],
)
def test_blocks_within_the_limits_are_taken(block: dict[str, Any]) -> None:
    check_blocks([block])
    with pytest.raises(SlackError):
        check_blocks([block] * 51)


@pytest.mark.parametrize(
    ("block", "error"),
    [
        ({"type": "markdown", "text": "x" * 12_001}, "msg_blocks_too_long"),
        ({"type": "markdown"}, "invalid_blocks"),
        ({"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3_001}}, "invalid_blocks"),
        ({"type": "section"}, "invalid_blocks"),
        ({"type": "section", "fields": [PLAIN] * 11}, "invalid_blocks"),
        ({"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}, "invalid_blocks"),
        ({"type": "header", "text": {"type": "mrkdwn", "text": "x"}}, "invalid_blocks"),
        ({"type": "context", "elements": [PLAIN] * 11}, "invalid_blocks"),
        ({"type": "context", "elements": []}, "invalid_blocks"),
        ({"type": "actions", "elements": [{"type": "button", "text": PLAIN}] * 26}, "invalid_blocks"),
        ({"type": "actions", "elements": [{"type": "button", "text": PLAIN, "value": "x" * 2_001}]}, "invalid_blocks"),
        ({"type": "context_actions", "elements": [{"type": "button", "text": PLAIN}]}, "invalid_blocks"),
        ({"type": "divider", "block_id": "x" * 256}, "invalid_blocks"),
        ({"type": "marquee"}, "invalid_blocks"),
        ("text", "invalid_blocks"),
    ],
)
def test_blocks_beyond_the_limits_are_refused(block: Any, error: str) -> None:
    with pytest.raises(SlackError, match=error):
        check_blocks([block])


def test_markdown_counts_over_all_blocks() -> None:
    half = {"type": "markdown", "text": "x" * 6_000}
    check_blocks([half, half])
    with pytest.raises(SlackError, match="msg_blocks_too_long"):
        check_blocks([half, half, {"type": "markdown", "text": "x"}])


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["section", "actions", "button"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "elements", "fields", "accessory", "value"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(anything)
def test_nothing_but_a_refusal_comes_of_any_blocks_and_metadata(value: Any) -> None:
    for check in (check_blocks, check_metadata):
        try:
            check(value)
        except SlackError as refusal:
            assert refusal.body["ok"] is False  # noqa: PT017 both ways are fine, other errors are not


@given(st.text())
def test_rich_text_keeps_plain_text(text: str) -> None:
    elements = rich_text(text.replace("<", "&lt;"))[0]["elements"][0]["elements"]
    assert "".join(element["text"] for element in elements) == unescape(text.replace("<", "&lt;"))


def test_rich_text_knows_mentions_and_links() -> None:
    (section,) = rich_text(f"<@{BOT}> see <https://a.example/?a=1&amp;b=2|the page> in <#{HELP}|help>")[0]["elements"]
    assert section["elements"] == [
        {"type": "user", "user_id": BOT},
        {"type": "text", "text": " see "},
        {"type": "link", "url": "https://a.example/?a=1&b=2", "text": "the page"},
        {"type": "text", "text": " in "},
        {"type": "channel", "channel_id": HELP},
    ]


@given(st.lists(st.floats(min_value=1e9, max_value=9e9), min_size=2, max_size=30))
async def test_every_ts_is_later_than_the_one_before(times: list[float]) -> None:
    clock = Clock()
    slack = SimulatedSlack(clock=clock)
    seen = []
    for clock.now in times:
        seen.append(slack.workspace.next_ts())
    assert all(re.fullmatch(r"\d{10}\.\d{6}", ts) for ts in seen)
    assert seen == sorted(set(seen))


ARGUMENTS = [
    "channel", "channel_id", "ts", "thread_ts", "timestamp", "user", "name", "text", "markdown_text", "blocks",
    "metadata", "status", "loading_messages", "cursor", "limit", "oldest", "latest", "types", "inclusive",
    "recipient_team_id", "recipient_user_id", "trigger_id", "view",
]  # fmt: skip
arguments = st.dictionaries(
    st.sampled_from(ARGUMENTS),
    anything | st.sampled_from([HELP, ADA, BOT, "1700000000.000000"]),
)


METHODS = [
    "chat.postMessage", "chat.update", "chat.delete", "chat.postEphemeral", "assistant.threads.setStatus",
    "conversations.replies", "conversations.history", "conversations.info", "conversations.list", "users.info",
    "reactions.add", "reactions.remove", "reactions.get", "chat.startStream", "chat.appendStream", "chat.stopStream",
    "views.open",
]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(METHODS), arguments), min_size=5, max_size=20))
async def test_every_method_survives_any_arguments(calls: list[tuple[str, dict[str, Any]]]) -> None:
    headers = {"Authorization": "Bearer xoxb-playground"}
    async with (
        SimulatedSlack(limits=None, clock=Clock()).serve() as slack,
        aiohttp.ClientSession(slack.api_url, headers=headers) as session,
    ):
        await slack.say(ADA, HELP, "how?")
        for method, args in calls:
            async with session.post(method, json=args) as reply:
                assert reply.status == 200
                assert isinstance((await reply.json())["ok"], bool)


# Limits and faults


async def test_limits_are_per_channel_for_posts_and_per_minute_for_the_rest() -> None:
    clock = Clock()
    async with SimulatedSlack(clock=clock).serve() as slack:
        client = client_of(slack)
        posted = [await client.chat_postMessage(channel=HELP, text=str(number)) for number in range(10)]
        with pytest.raises(SlackApiError) as caught:
            await client.chat_postMessage(channel=HELP, text="one too many")
        response = caught.value.response
        assert (response.status_code, response["error"], response.headers["Retry-After"]) == (429, "ratelimited", "1")
        assert (await client.chat_postMessage(channel=GENERAL, text="elsewhere"))["ok"] is True
        clock.now += 1
        assert (await client.chat_postMessage(channel=HELP, text="now"))["ok"] is True
        for number in range(50):
            await client.chat_update(channel=HELP, ts=str(posted[0]["ts"]), text=str(number))
        clock.now += 20
        with pytest.raises(SlackApiError) as caught:
            await client.chat_update(channel=HELP, ts=str(posted[0]["ts"]), text="one too many")
        assert caught.value.response.headers["Retry-After"] == "40"
        clock.now += 40
        assert (await client.chat_update(channel=HELP, ts=str(posted[0]["ts"]), text="now"))["ok"] is True
        assert slack.rate_limited == {"chat.postMessage": 1, "chat.update": 1}
        assert "one too many" not in {message["text"] for message in slack.messages(HELP)}


@pytest.mark.parametrize(("retry_after", "header"), [("30", "30"), (None, None)])
async def test_a_429_on_demand(slack: SimulatedSlack, retry_after: str | None, header: str | None) -> None:
    slack.fault("chat.postMessage", "429", retry_after=retry_after)
    with pytest.raises(SlackApiError) as caught:
        await client_of(slack).chat_postMessage(channel=HELP, text="x")
    assert caught.value.response.status_code == 429
    assert caught.value.response.headers.get("Retry-After") == header


@pytest.mark.parametrize(
    ("action", "error", "is_done"),
    [
        ("500", SlackApiError, False),
        ("502", SlackApiError, False),
        ("garbage", SlackApiError, False),
        ("token_revoked", SlackApiError, False),
        ("drop_before", aiohttp.ClientError, False),
        ("drop_after", aiohttp.ClientError, True),
        ("hang", TimeoutError, False),
    ],
)
async def test_faults_are_shown_once_each(
    slack: SimulatedSlack, action: str, error: type[Exception], is_done: bool
) -> None:
    client = AsyncWebClient(slack.bot_token, base_url=slack.api_url, retry_handlers=[])
    client.timeout = 0.2 if action == "hang" else 5  # type: ignore[assignment]  # the SDK passes fractions on
    slack.fault("chat.postMessage", action)
    with pytest.raises(error):
        await client.chat_postMessage(channel=HELP, text="x")
    assert len(slack.messages(HELP)) == is_done
    client.timeout = 5
    await client.chat_postMessage(channel=HELP, text="y")
    assert [call.outcome for call in slack.calls] == ["ok" if is_done else action, "ok"]


async def test_faults_come_in_order_and_can_be_cleared(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    slack.fault("auth.test", "account_inactive", times=2)
    slack.fault("auth.test", "token_revoked", times=5)
    seen = [await error_of(client.auth_test()) for _ in range(3)]
    slack.clear_faults()
    assert seen == ["account_inactive", "account_inactive", "token_revoked"]
    assert (await client.auth_test())["ok"] is True


# Events over HTTP


async def test_every_call_takes_as_long_as_slack_is_told_to_take(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    slack.latency = 0.05
    await client.auth_test()
    [call] = slack.calls
    # The call is timed by another clock than the one that is slept by.
    assert call.seconds > 0.04


async def test_a_message_arrives_signed_and_in_slacks_envelope(slack: SimulatedSlack, app: App) -> None:
    ts = await slack.say(ADA, HELP, "how &lt;do&gt; I?", client_msg_id="c-1")
    await slack.delivered()
    ((headers, raw),) = app.requests
    assert SignatureVerifier(slack.signing_secret).is_valid_request(raw, headers)
    assert not SignatureVerifier("another").is_valid_request(raw, headers)
    body = json.loads(raw)
    assert (body["type"], body["team_id"], body["api_app_id"]) == ("event_callback", "T0PLAY", "A0BRIDGE")
    assert body["authorizations"][0] | {"user_id": BOT, "is_bot": True} == body["authorizations"][0]
    assert body["event"] == {
        "type": "message",
        "client_msg_id": "c-1",
        "user": ADA,
        "text": "how &lt;do&gt; I?",
        "ts": ts,
        "team": "T0PLAY",
        "blocks": rich_text("how &lt;do&gt; I?"),
        "channel": HELP,
        "event_ts": ts,
        "channel_type": "channel",
    }
    (delivery,) = slack.deliveries
    assert (delivery.event_id, delivery.status, delivery.attempt) == (body["event_id"], 200, 0)


async def test_one_mention_is_two_events(slack: SimulatedSlack, app: App) -> None:
    ts = await slack.say(ADA, HELP, "how?", mention=True)
    await slack.delivered()
    assert {event["type"] for event in app.events} == {"message", "app_mention"}
    assert {event["ts"] for event in app.events} == {ts}
    assert len({body["event_id"] for body in app.bodies}) == 2
    mention = next(event for event in app.events if event["type"] == "app_mention")
    assert mention["text"] == f"<@{BOT}> how?"
    assert "channel_type" not in mention


async def test_direct_messages_threads_and_subtypes(slack: SimulatedSlack, app: App) -> None:
    direct = await slack.say(ADA, slack.dm(ADA), "psst", mention=True)
    root = await slack.say(ADA, HELP, "root")
    await slack.say(GRACE, HELP, "reply", thread=root)
    await slack.say(GRACE, HELP, "to all", thread=root, subtype="thread_broadcast")
    await slack.say(GRACE, HELP, "a file", subtype="file_share")
    await slack.say("U0BUILDS", HELP, "build failed")
    await slack.delivered()
    by_text = {event["text"]: event for event in app.events}
    assert len(app.events) == 6
    assert by_text[f"<@{BOT}> psst"] | {"channel_type": "im", "ts": direct} == by_text[f"<@{BOT}> psst"]
    assert (by_text["reply"]["thread_ts"], by_text["reply"]["parent_user_id"]) == (root, ADA)
    assert "thread_ts" not in by_text["root"]
    assert (by_text["to all"]["subtype"], by_text["to all"]["root"]["ts"]) == ("thread_broadcast", root)
    assert by_text["a file"]["files"][0]["name"] == "notes.txt"
    assert by_text["build failed"]["bot_id"] == "B0BUILDS"


async def test_edits_and_deletions(slack: SimulatedSlack, app: App) -> None:
    root = await slack.say(ADA, HELP, "before")
    reply = await slack.say(GRACE, HELP, "reply", thread=root)
    await slack.edit(ADA, HELP, root, f"<@{BOT}> after")
    await slack.delete(ADA, HELP, root)
    await slack.delete(GRACE, HELP, reply)
    await slack.delivered()
    kinds = [(event["type"], event.get("subtype")) for event in sorted(app.events, key=lambda event: event["event_ts"])]
    assert sorted(kinds[2:4]) == [("app_mention", None), ("message", "message_changed")]
    changes = [event for event in app.events if event.get("subtype") == "message_changed"]
    edited, deleted = sorted(changes, key=lambda event: str(event["event_ts"]))
    assert (edited["previous_message"]["text"], edited["message"]["text"]) == ("before", f"<@{BOT}> after")
    assert edited["message"]["edited"]["user"] == ADA
    assert (deleted["message"]["subtype"], deleted["message"]["ts"]) == ("tombstone", root)
    gone = [event for event in app.events if event.get("subtype") == "message_deleted"]
    assert {event["deleted_ts"] for event in gone} == {root, reply}
    assert slack.messages(HELP) == []


async def test_reactions(slack: SimulatedSlack, app: App, client: AsyncWebClient) -> None:
    slack.scopes.add("reactions:write")
    ts = str((await client.chat_postMessage(channel=HELP, text="so"))["ts"])
    await slack.react(ADA, HELP, ts, "thumbsup::skin-tone-2")
    await client.reactions_add(channel=HELP, timestamp=ts, name="eyes")
    assert await error_of(client.reactions_add(channel=HELP, timestamp=ts, name="eyes")) == "already_reacted"
    shown = (await client.reactions_get(channel=HELP, timestamp=ts))["message"]["reactions"]
    assert {one["name"]: one["users"] for one in shown} == {"thumbsup::skin-tone-2": [ADA], "eyes": [BOT]}
    await slack.unreact(ADA, HELP, ts, "thumbsup::skin-tone-2")
    await slack.delivered()
    own, *reactions = sorted(app.events, key=lambda event: str(event["event_ts"]))
    assert own["bot_id"] == "B0BRIDGE"
    assert [event["type"] for event in reactions] == ["reaction_added", "reaction_added", "reaction_removed"]
    item = {"type": "message", "channel": HELP, "ts": ts}
    assert (reactions[0]["item"], reactions[0]["item_user"], reactions[0]["user"]) == (item, BOT, ADA)


async def test_no_events_of_channels_that_the_bridge_is_not_in(slack: SimulatedSlack, app: App) -> None:
    await slack.say(ADA, ELSEWHERE, "how?", mention=True)
    await slack.delivered()
    assert app.requests == []


async def test_what_is_not_acknowledged_comes_again_on_slacks_schedule() -> None:
    naps = Naps()
    async with SimulatedSlack(sleep=naps).serve() as slack, app_serving() as app:
        slack.subscribe(app.url)
        app.replies = [web.Response(status=500) for _ in range(9)]
        await slack.say(ADA, HELP, "how?")
        await slack.delivered()
        assert naps.asked == [0, 60, 300]
        assert len({body["event_id"] for body in app.bodies}) == 1
        retries = [(h.get("X-Slack-Retry-Num"), h.get("X-Slack-Retry-Reason")) for h, _ in app.requests]
        assert retries == [(None, None), ("1", "http_error"), ("2", "http_error"), ("3", "http_error")]
        assert [one.is_acknowledged for one in slack.deliveries] == [False] * 4


async def test_retries_stop_with_success_and_on_request(slack: SimulatedSlack, app: App) -> None:
    app.replies = [web.Response(status=503), web.Response()]
    await slack.say(ADA, HELP, "how?")
    await slack.delivered()
    assert [one.status for one in slack.deliveries] == [503, 200]
    app.replies = [web.Response(status=500, headers={"x-slack-no-retry": "1"})]
    await slack.say(ADA, HELP, "how?")
    await slack.delivered()
    assert [one.status for one in slack.deliveries] == [503, 200, 500]


async def test_an_app_that_is_away_or_slow_fails_with_slacks_reasons() -> None:
    async def never(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    server = web.Application()
    server.router.add_post("/", never)
    async with SimulatedSlack(sleep=Naps(), ack_seconds=0.1).serve() as slack:
        async with served(server, "127.0.0.1", 0) as url:
            slack.subscribe(url)
            await slack.say(ADA, HELP, "how?")
            await slack.delivered()
        await slack.say(ADA, HELP, "how?")
        await slack.delivered()
    assert [one.problem for one in slack.deliveries] == ["http_timeout"] * 4 + ["connection_failed"] * 4


async def test_raw_events_redelivery_and_malformed_bodies(slack: SimulatedSlack, app: App) -> None:
    event_id = slack.deliver({"type": "tokens_revoked"}, team_id="T0OTHER", event_time=5)
    slack.redeliver(event_id)
    await slack.delivered()
    first, again = app.bodies
    assert first == again
    assert (first["team_id"], first["event_time"], first["event"]) == ("T0OTHER", 5, {"type": "tokens_revoked"})
    app.replies = [web.Response(status=401, text="no")]
    assert await slack.deliver_raw(b"{{{", {"X-Slack-Signature": "v0=bad"}) == (401, "no")
    assert await slack.deliver_raw(b"{{{") == (200, "")
    headers, raw = app.requests[-1]
    assert SignatureVerifier(slack.signing_secret).is_valid_request(raw, headers)


async def test_interactive_payloads_come_as_a_form_and_once(slack: SimulatedSlack, app: App) -> None:
    app.replies = [web.Response(status=500)]
    delivery = await slack.interact({"type": "block_actions", "actions": []})
    assert (delivery.type, delivery.status, len(app.requests)) == ("block_actions", 500, 1)
    assert app.requests[0][1].startswith(b"payload=%7B%22type%22")


async def test_several_request_urls_take_turns(slack: SimulatedSlack, app: App) -> None:
    async with app_serving() as second:
        slack.subscribe(app.url, second.url)
        for number in range(4):
            await slack.say(ADA, HELP, str(number))
        await slack.delivered()
        assert (len(app.requests), len(second.requests)) == (2, 2)


# Socket Mode

Listener = Callable[[AsyncBaseSocketModeClient, SocketModeRequest], Awaitable[None]]


@dataclass
class Ears:
    """A Socket Mode app: keeps what it hears, and acknowledges unless told not to."""

    heard: list[SocketModeRequest] = field(default_factory=list)
    deaf_for: int = 0

    async def listen(self, client: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
        self.heard.append(request)
        if len(self.heard) > self.deaf_for:
            await client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))


@asynccontextmanager
async def connected(slack: SimulatedSlack, ears: Ears) -> AsyncIterator[SocketModeClient]:
    slack.delivery = "socket"
    client = SocketModeClient(slack.app_token, web_client=client_of(slack), ping_interval=0.2)
    client.socket_mode_request_listeners.append(ears.listen)
    await client.connect()  # type: ignore[no-untyped-call]  # the SDK's own gap
    try:
        yield client
    finally:
        await client.close()  # type: ignore[no-untyped-call]  # the SDK's own gap
        await client.aiohttp_client_session.close()


async def test_events_travel_over_a_socket(slack: SimulatedSlack) -> None:
    ears = Ears()
    async with connected(slack, ears):
        await slack.say(ADA, HELP, "how?", mention=True)
        await slack.delivered()
        delivery = await slack.interact({"type": "block_actions"})
        assert delivery.is_acknowledged
    assert [request.type for request in ears.heard] == ["events_api", "events_api", "interactive"]
    assert ears.heard[0].payload["event"]["text"] == f"<@{BOT}> how?"
    assert {one.way for one in slack.deliveries} == {"socket"}


async def test_what_is_not_acknowledged_on_a_socket_comes_again() -> None:
    naps, ears = Naps(), Ears(deaf_for=2)
    async with SimulatedSlack(sleep=naps, ack_seconds=0.5).serve() as slack, connected(slack, ears):
        await slack.say(ADA, HELP, "how?")
        await slack.delivered()
    assert [(one.retry_attempt, one.retry_reason) for one in ears.heard] == [(0, ""), (1, "timeout"), (2, "timeout")]
    assert naps.asked == [0, 60]
    assert [one.status for one in slack.deliveries] == [0, 0, 200]


async def test_events_wait_for_a_socket_as_long_as_the_retries_last() -> None:
    gate = asyncio.Event()

    async def sleep(seconds: float) -> None:
        if seconds:
            await gate.wait()

    ears = Ears()
    async with SimulatedSlack(sleep=sleep).serve() as slack:
        slack.delivery = "socket"
        await slack.say(ADA, HELP, "how?")
        await slack.wait_for(lambda: len(slack.deliveries) == 2)
        async with connected(slack, ears):
            gate.set()
            await slack.delivered()
    assert [one.problem for one in slack.deliveries] == ["no_socket", "no_socket", ""]
    assert [one.retry_attempt for one in ears.heard] == [2]


@pytest.mark.parametrize("how", ["disconnect", "drop"])
async def test_a_client_that_loses_its_socket_comes_back_with_a_new_ticket(slack: SimulatedSlack, how: str) -> None:
    ears = Ears()
    async with connected(slack, ears):
        await slack.wait_for(lambda: slack.sockets == 1)
        if how == "disconnect":
            await slack.send_disconnect("warning")
        else:
            slack.drop_sockets()
            assert slack.sockets == 0
        await slack.wait_for(lambda: sum(call.method == "apps.connections.open" for call in slack.calls) >= 2)
        await slack.wait_for(lambda: slack.sockets == 1)
        await slack.say(ADA, HELP, "how?")
        await slack.delivered()
    assert ears.heard[-1].payload["event"]["text"] == "how?"


async def test_several_sockets_take_turns(slack: SimulatedSlack) -> None:
    first, second = Ears(), Ears()
    async with connected(slack, first), connected(slack, second):
        await slack.wait_for(lambda: slack.sockets == 2)
        for number in range(4):
            await slack.say(ADA, HELP, str(number))
        await slack.delivered()
    assert (len(first.heard), len(second.heard)) == (2, 2)


@asynccontextmanager
async def raw_socket(url: str, **options: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with aiohttp.ClientSession() as session, session.ws_connect(url, **options) as socket:
        assert (await socket.receive_json())["type"] == "hello"
        yield socket


async def url_of(slack: SimulatedSlack) -> str:
    return str((await client_of(slack).apps_connections_open(app_token=slack.app_token))["url"])


async def refusal_of(url: str) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with raw_socket(url):
            pass
    return caught.value.status


async def test_a_ticket_is_good_once_and_for_half_a_minute() -> None:
    clock = Clock()
    async with SimulatedSlack(clock=clock).serve() as slack:
        url = await url_of(slack)
        async with raw_socket(url):
            assert slack.sockets == 1
            assert await refusal_of(url) == 403
        late = await url_of(slack)
        clock.now += 31
        assert await refusal_of(late) == 403
        assert await refusal_of(late.partition("?")[0]) == 403


async def test_refused_upgrades_use_their_ticket_up(slack: SimulatedSlack) -> None:
    slack.refuse_upgrades(1)
    url = await url_of(slack)
    assert await refusal_of(url) == 503
    assert await refusal_of(url) == 403
    async with raw_socket(await url_of(slack)):
        assert slack.sockets == 1


async def test_an_eleventh_socket_is_one_too_many(slack: SimulatedSlack) -> None:
    async with aiohttp.ClientSession() as session:
        sockets = [await session.ws_connect(await url_of(slack)) for _ in range(11)]
        firsts = [await socket.receive_json() for socket in sockets]
        for socket in sockets:
            await socket.close()
    assert [first["type"] for first in firsts] == ["hello"] * 10 + ["disconnect"]
    assert [first.get("num_connections") for first in firsts[:10]] == list(range(1, 11))


async def test_a_silent_socket_stays_open_but_answers_nothing() -> None:
    async with SimulatedSlack(sleep=Naps(), ack_seconds=0.1).serve() as slack:
        slack.delivery = "socket"
        async with raw_socket(await url_of(slack), heartbeat=0.5) as socket:
            slack.silence()
            assert slack.sockets == 1
            await slack.say(ADA, HELP, "how?")
            await slack.wait_for(lambda: slack.deliveries)
            # Without an answer to its ping the client itself gives up: nothing else can end this wait.
            message = await asyncio.wait_for(socket.receive(), 5)
            assert message.type in (aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSED)
    assert slack.deliveries[0].problem == "timeout"


async def test_frames_that_are_no_acknowledgements_are_ignored(slack: SimulatedSlack) -> None:
    slack.delivery = "socket"
    async with raw_socket(await url_of(slack)) as socket:
        await slack.say(ADA, HELP, "how?")
        frame = await socket.receive_json()
        for noise in ("{", "[]", '{"envelope_id": "another"}', "null"):
            await socket.send_str(noise)
        await socket.send_json({"envelope_id": frame["envelope_id"]})
        await slack.delivered()
    assert [one.status for one in slack.deliveries] == [200]


async def test_changes_are_told_in_order(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    changes = slack.subscribe_changes()
    ts = await slack.say(ADA, HELP, "how?")
    await client.assistant_threads_setStatus(channel_id=HELP, thread_ts=ts, status="is thinking…")
    await slack.react(ADA, HELP, ts, "eyes")
    await client.chat_postMessage(channel=HELP, thread_ts=ts, text="so")
    seen = [await anext(changes) for _ in range(5)]
    assert [change["type"] for change in seen] == ["posted", "status", "changed", "status", "posted"]
    assert seen[3]["status"] == {}


# The page


@asynccontextmanager
async def page_of(slack: SimulatedSlack) -> AsyncIterator[tuple[Page, aiohttp.ClientSession]]:
    async with Page(slack).serve() as page, aiohttp.ClientSession(page.url) as session:
        yield page, session


@pytest.mark.parametrize("path", ["/", "/page.js", "/text.js", "/page.css", "/icon.svg", "/state"])
async def test_the_page_is_served_with_a_strict_policy(slack: SimulatedSlack, path: str) -> None:
    async with page_of(slack) as (_, session), session.get(path) as reply:
        assert reply.status == 200
        assert reply.headers["Content-Security-Policy"].startswith("default-src 'self';")
        text = await reply.text()
    assert "innerHTML" not in text
    assert "<script>" not in text
    assert "http:" not in text.replace("http://www.w3.org/2000/svg", "")


async def test_a_person_acts_through_the_page(slack: SimulatedSlack) -> None:
    async with page_of(slack) as (_, session):
        say = {"user": ADA, "channel": HELP, "text": "@bridge is 1 < 2 & see https://a.example/?x=1&y=2"}
        async with session.post("/say", json=say) as reply:
            ts = (await reply.json())["ts"]
        async with session.post("/say", json={**say, "text": "more", "thread": ts}) as reply:
            assert reply.status == 200
        vote = {"user": GRACE, "channel": HELP, "ts": ts, "emoji": "+1"}
        async with session.post("/react", json=vote) as reply:
            assert reply.status == 200
        root, more = slack.messages(HELP)
        assert root["text"] == f"<@{BOT}> is 1 &lt; 2 &amp; see <https://a.example/?x=1&amp;y=2>"
        assert (root["reactions"][0]["users"], more["thread_ts"]) == ([GRACE], ts)
        async with session.post("/unreact", json=vote) as reply:
            assert reply.status == 200
        async with session.post("/edit", json={**say, "ts": ts, "text": "never mind"}) as reply:
            assert reply.status == 200
        async with session.get("/state") as reply:
            shown = {one["id"]: one["messages"] for one in (await reply.json())["channels"]}[HELP]
        assert [(one["text"], one.get("reactions", [])) for one in shown] == [("never mind", []), ("more", [])]
        async with session.post("/delete", json={**say, "ts": more["ts"]}) as reply:
            assert reply.status == 200
    assert len(slack.messages(HELP)) == 1


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"user": BOT}, "user_not_found"),
        ({"user": "U404"}, "user_not_found"),
        ({"user": None}, "user_not_found"),
        ({"channel": "C404"}, "channel_not_found"),
        ({"channel": ["x"]}, "channel_not_found"),
        ({"channel": "D0GRACE"}, "channel_not_found"),
        ({"text": " "}, "no_text"),
        ({"text": 5}, "no_text"),
        ({"thread": "1.1"}, "message_not_found"),
    ],
)
async def test_the_page_refuses_what_a_person_cannot_do(
    slack: SimulatedSlack, fields: dict[str, Any], error: str
) -> None:
    say = {"user": ADA, "channel": HELP, "text": "x"} | fields
    async with page_of(slack) as (_, session), session.post("/say", json=say) as reply:
        assert (reply.status, await reply.json()) == (400, {"error": error})
    assert slack.messages(HELP) == []


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Origin": "http://evil.example"}, "{}", 403),
        ({"Origin": "null"}, "{}", 403),
        ({"Host": "evil.example"}, "{}", 403),
        ({"Content-Type": "text/plain"}, "{}", 403),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "user=U0ADA", 403),
        ({}, "{{{", 400),
        ({}, "[]", 400),
    ],
)
async def test_other_web_sites_cannot_act(
    slack: SimulatedSlack, headers: dict[str, str], body: str, status: int
) -> None:
    sent = {"Content-Type": "application/json"} | headers
    async with page_of(slack) as (_, session), session.post("/say", data=body, headers=sent) as reply:
        assert reply.status == status
    assert slack.messages(HELP) == []


async def test_slacks_api_is_not_on_the_page(slack: SimulatedSlack) -> None:
    async with page_of(slack) as (_, session):
        for path in ("/api/auth.test", "/link", "/../slack.py"):
            async with session.get(path) as reply:
                assert reply.status == 404


async def test_the_page_hears_of_changes(slack: SimulatedSlack) -> None:
    async with page_of(slack) as (_, session), session.get("/changes") as reply:
        assert reply.content_type == "text/event-stream"
        assert await reply.content.readuntil(b"\n\n") == b": hello\n\n"
        await slack.say(ADA, HELP, "how?")
        line = await asyncio.wait_for(reply.content.readuntil(b"\n\n"), 5)
    assert json.loads(line.removeprefix(b"data: "))["message"]["text"] == "how?"


async def test_a_taken_port_is_an_os_error(slack: SimulatedSlack) -> None:
    port = int(slack.base_url.rpartition(":")[2])
    with pytest.raises(OSError, match=str(port)):
        async with Page(slack).serve(port=port):
            pass


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("a < b & c", "a &lt; b &amp; c"),
        ("@Ada, @nobody and ada@ada.example", f"<@{ADA}>, @nobody and ada@ada.example"),
        ("see https://a.example/?x&y&.", "see <https://a.example/?x&amp;y&amp;>."),
        ("<https://a.example|trick>", "&lt;<https://a.example>|trick&gt;"),
        ("<@U0ADA>", "&lt;@U0ADA&gt;"),
    ],
)
def test_typed_text_becomes_slacks(text: str, sent: str) -> None:
    assert typed(text, {"ada": ADA}) == sent


@given(st.text() | st.text(alphabet="<>&@ad:/htps.|! "))
def test_typed_text_cannot_forge_slacks_tokens(text: str) -> None:
    sent = typed(text, {"ada": ADA})
    rest = re.sub(rf"<(@{ADA}|https?://[^<>|]+)>", "", sent)
    assert "<" not in rest
    assert ">" not in rest
    if "@" not in text and "://" not in text:
        assert unescape(sent) == text
