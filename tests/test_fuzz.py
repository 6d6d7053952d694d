"""Whatever comes in from outside ends in a clean refusal or in work: never in a fault, and never in silence."""

import hashlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import web
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bridge import messages
from bridge.admin import serving
from bridge.chat import ChatError, Found
from bridge.messages import Messages, MessagesError
from bridge.models import Place, Question
from bridge.pauses import Pauses
from bridge.settings import SECRETS, Role, Settings, SettingsError, load, unknown
from bridge.slack import chat, write
from bridge.slack.chat import SlackChat
from bridge.slack.read import Identity
from bridge.slack.web_api import Account, account, identify, refusal, web_client
from tests.rig import ADA, GENERAL, Rig

# One server serves all examples of a test; how long each takes is the machine's affair.
THROUGH_A_DOOR = settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
ODD_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(10**18), 2**63, 1e308, 0.1])
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | ODD_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_TEXT, inner, max_size=3),
    max_leaves=6,
)
WELLS = st.sampled_from([1, 50, 300, 900, 990, 5_000])

MESSAGE: dict[str, Any] = {
    "type": "message",
    "channel": GENERAL,
    "channel_type": "channel",
    "user": ADA,
    "text": "How are <https://x.y|threads> stored, <@U0BRIDGE>?",
    "ts": "1700000000.000100",
    "event_ts": "1700000000.000100",
    "thread_ts": "1600000000.000100",
    "client_msg_id": "c1",
    "blocks": [{"type": "rich_text", "elements": [{"type": "text", "text": "How?"}]}],
}
REACTION: dict[str, Any] = {
    "type": "reaction_added",
    "user": ADA,
    "reaction": "+1",
    "item_user": "U0BRIDGE",
    "item": {"type": "message", "channel": GENERAL, "ts": "1700000000.000200"},
    "event_ts": "1700000001.000100",
}
CLICK: dict[str, Any] = {
    "type": "block_actions",
    "team": {"id": "T0PLAY", "domain": "playground"},
    "enterprise": None,
    "user": {"id": ADA, "team_id": "T0PLAY"},
    "container": {"type": "message", "message_ts": "1700000000.000200", "channel_id": GENERAL},
    "channel": {"id": GENERAL},
    "response_url": "https://hooks.slack.com/actions/T0PLAY/1/x",
    "actions": [{"type": "button", "action_id": "up", "block_id": "votes", "value": "1"}],
    "view": {"id": "V1", "callback_id": "c", "state": {"values": {}}},
}
VOTE: dict[str, Any] = {
    **CLICK,
    "trigger_id": "1.2.x",
    "actions": [{"action_id": "kapa_feedback", "value": "downvote", "action_ts": "1700000000.000300"}],
}
SUBMISSION: dict[str, Any] = {
    "type": "view_submission",
    "team": {"id": "T0PLAY"},
    "user": {"id": ADA, "team_id": "T0PLAY"},
    "view": {
        "id": "V1",
        "callback_id": "kapa_why",
        "private_metadata": '{"channel":"C0GENERAL","message":"1700000000.000200","at":"1700000000.000300"}',
        "state": {
            "values": {
                "kapa_reasons": {"kapa_reasons": {"selected_options": [{"value": "incorrect"}]}},
                "kapa_words": {"kapa_words": {"value": "No."}},
            }
        },
    },
}
COMMAND = {"command": "/ask", "text": "How?", "team_id": "T0PLAY", "user_id": ADA, "channel_id": GENERAL}


def envelope(event: Any) -> dict[str, Any]:
    authorization = {"team_id": "T0PLAY", "user_id": "U0BRIDGE", "is_bot": True, "enterprise_id": None}
    return {"type": "event_callback", "team_id": "T0PLAY", "event_id": "Ev1", "event_time": 1_700_000_000} | {
        "event": event,
        "authorizations": [authorization],
    }


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Name every place inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, one in inner for found in [(*path, key), *places(one, (*path, key))]]


@st.composite
def mutated(draw: st.DrawFn, base: Any) -> Any:
    """Give a real payload in which up to four places are gone, or hold anything else."""
    changed = deepcopy(base)
    for _ in range(draw(st.integers(1, 4))):
        *way, last = draw(st.sampled_from(places(changed)))
        target = changed
        for key in way:
            target = target[key]
        if draw(st.booleans()) and isinstance(target, dict):
            del target[last]
        else:
            target[last] = draw(JSON)
        if not places(changed):
            break
    return changed


def well(base: dict[str, Any], depth: int) -> bytes:
    """Give a payload in which one field is that many lists deep: more than Python's own encoder would write."""
    return json.dumps(base)[:-1].encode() + b', "well": ' + b"[" * depth + b"]" * depth + b"}"


BODIES = st.one_of(
    JSON.map(lambda value: json.dumps(value).encode()),
    mutated(envelope(MESSAGE)).map(lambda value: json.dumps(value).encode()),
    mutated(envelope(REACTION)).map(lambda value: json.dumps(value).encode()),
    st.tuples(st.sampled_from([envelope(MESSAGE), CLICK]), WELLS).map(lambda pair: well(*pair)),
    WELLS.map(lambda depth: json.dumps(envelope("?")).encode().replace(b'"?"', b'{"a":' * depth + b"1" + b"}" * depth)),
    st.binary(max_size=200),
)
FORMS = st.one_of(
    *(
        mutated(payload).map(lambda value: urlencode({"payload": json.dumps(value)}).encode())
        for payload in (CLICK, VOTE, SUBMISSION)
    ),
    st.tuples(
        st.sampled_from(["view_submission", "view_closed", "shortcut", "message_action", "block_suggestion"])
    ).map(lambda kind: urlencode({"payload": json.dumps({**CLICK, "type": kind[0]})}).encode()),
    JSON.map(lambda value: urlencode({"payload": json.dumps(value)}).encode()),
    st.tuples(st.just(CLICK), WELLS).map(lambda pair: urlencode({"payload": well(*pair)}).encode()),
    st.dictionaries(st.sampled_from([*COMMAND, "payload", "ssl_check", "type"]), st.text(max_size=20)).map(
        lambda fields: urlencode(COMMAND | fields, errors="replace").encode()
    ),
    st.binary(max_size=200),
)
KINDS = st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain", "x", ""])


class Door:
    """The HTTP door of a running bridge, and what its log says of faults."""

    def __init__(self, session: aiohttp.ClientSession, url: str, secret: str, caplog: pytest.LogCaptureFixture) -> None:
        self._session, self._url, self._secret, self._caplog = session, url, secret.encode(), caplog

    async def takes(self, body: bytes, kind: str) -> int:
        """Post a signed body; gives the status, and sees that nothing was logged as a fault."""
        timestamp = str(int(time.time()))
        digest = hmac.new(self._secret, f"v0:{timestamp}:".encode() + body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": kind, "X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": f"v0={digest}"}
        with capture_logs() as logs:
            async with self._session.post(self._url, data=body, headers=headers) as reply:
                text = await reply.text()
        faults = [line for line in logs if line["log_level"] in {"error", "critical"} or "exc_info" in line]
        assert faults == []
        assert [record for record in self._caplog.records if record.levelno >= logging.ERROR] == []
        assert "Traceback" not in text
        return reply.status


@pytest.fixture
async def door(rig: Rig, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Door]:
    """Give the door of a bridge that only takes in."""
    async with rig.bridge(Role.INGRESS, http=True) as bridge, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{bridge.ports['events']}/slack/events"
        yield Door(session, url, rig.slack.signing_secret, caplog)


@THROUGH_A_DOOR
@given(BODIES, KINDS)
async def test_any_body_is_taken_or_refused(door: Door, body: bytes, kind: str) -> None:
    assert await door.takes(body, kind) in {200, 400, 401, 413}


@THROUGH_A_DOOR
@given(BODIES)
async def test_any_event_is_taken_or_refused(door: Door, body: bytes) -> None:
    assert await door.takes(body, "application/json") in {200, 400, 401, 413}


@THROUGH_A_DOOR
@given(FORMS)
async def test_any_form_is_taken_or_refused(door: Door, body: bytes) -> None:
    assert await door.takes(body, "application/x-www-form-urlencoded") in {200, 400, 401, 413}


# Slack's Web API

PLACE = Place("T0PLAY", GENERAL, "1600000000.000100")
QUESTION = Question(PLACE, "1700000000.000100", ADA, "How?", "https://playground.slack.com/x")
POSTED: dict[str, Any] = {
    "ok": True,
    "messages": [
        {
            "ts": "1700000000.000300",
            "user": "U0BRIDGE",
            "bot_id": "B0BRIDGE",
            "metadata": write.metadata(QUESTION.id, 0),
        },
        {"ts": "1700000000.000400", "user": ADA, "text": "Hm"},
    ],
    "response_metadata": {"next_cursor": ""},
    "team_id": "T0PLAY",
    "user_id": "U0BRIDGE",
    "bot_id": "B0BRIDGE",
    "url": "https://playground.slack.com/",
    "error": "internal_error",
}


@pytest.fixture
async def stand_in(
    rig: Rig, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[SlackChat, Any, list[web.Response]]]:
    """Give the bridge's side of a Slack that answers every call with what the list holds."""
    monkeypatch.setattr(chat, "PAUSE_SECONDS", 0.001)
    given: list[web.Response] = []

    async def answer(_: web.Request) -> web.Response:
        return given.pop() if given else web.Response(status=500)

    server = web.Application()
    server.router.add_route("*", "/api/{method}", answer)
    timeout = aiohttp.ClientTimeout(total=5)
    async with serving(server, "127.0.0.1", 0) as port, aiohttp.ClientSession(timeout=timeout) as session:
        client = web_client("xoxb-1", f"http://127.0.0.1:{port}/api/", session)
        yield (
            SlackChat(
                client,
                Identity("T0PLAY", "U0BRIDGE", "B0BRIDGE", "https://x/"),
                pauses=Pauses(redis, "T0PLAY"),
                says=Messages(),
            ),
            client,
            given,
        )


REPLIES = st.one_of(
    mutated(POSTED), mutated({"ok": True} | POSTED["messages"][0]), mutated({**POSTED, "ok": False}), JSON
)


@THROUGH_A_DOOR
@example({**POSTED, "response_metadata": ["next"]}, 200, "find")
@example({**POSTED, "response_metadata": {"next_cursor": {"a": 1}}}, 200, "find")
@example({**POSTED, "messages": [{**POSTED["messages"][0], "ts": None}, None, 7]}, 200, "find")
@example({**POSTED, "bot_id": 7, "url": ["x"]}, 200, "who")
@given(REPLIES, st.sampled_from([200, 200, 200, 400, 429, 503]), st.sampled_from(["find", "post", "who", "whose"]))
async def test_any_reply_of_slack_s_is_read_or_a_chat_error(
    stand_in: tuple[SlackChat, Any, list[web.Response]], reply: Any, status: int, what: str
) -> None:
    chat, client, given = stand_in
    given[:] = [web.Response(status=status, text=json.dumps(reply), content_type="application/json")]
    calls: dict[str, Callable[[], Any]] = {
        "find": lambda: chat.find(QUESTION),
        "post": lambda: chat.delete(PLACE, "1700000000.000300"),
        "who": lambda: identify(client),
        "whose": lambda: account(client),
    }
    try:
        found = await calls[what]()
    except ChatError as error:
        found = error.reason
    kinds = {"find": Found, "post": type(None), "who": Identity, "whose": Account}
    assert isinstance(found, str | kinds[what])
    if isinstance(found, Found):
        assert all(isinstance(ts, str) for posted in (*found.parts.values(), found.unnamed) for ts in posted)
    if isinstance(found, Identity):
        assert all(isinstance(part, str) for part in (found.team, found.user, found.bot, found.url))


@example(503, {}, {"error": "x" * 10_000})
@given(st.integers(100, 599), st.dictionaries(st.sampled_from(["Retry-After", "x"]), ODD_TEXT), JSON | mutated(POSTED))
def test_any_refusal_of_slack_s_is_a_chat_error(status: int, headers: dict[str, str], data: Any) -> None:
    error = refusal(status, headers, data)
    assert isinstance(error, ChatError)
    assert len(error.reason) <= 100


# What the operator writes

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)
LIKELY = ["xoxb-", "xapp-", "http://", "https://", "redis://", "127.0.0.1", "localhost", "/api/", ":", "@", "0", "7.5"]
LIKELY += ["-1", "1e9", "inf", "nan", "C0123", ",", "+1=upvote", "all", "mention", "http", "true", "[", "]", "\n", " "]
VALUES = WORDS | st.lists(st.sampled_from(LIKELY), max_size=5).map("".join)


def refused(work: Callable[[], Any]) -> tuple[tuple[str, ...], Any]:
    """Give what is said of it where it is refused, else what comes of it."""
    try:
        return (), work()
    except (SettingsError, MessagesError) as error:
        return tuple(error.problems), None


@given(st.dictionaries(st.sampled_from([*Settings.model_fields]), VALUES, max_size=5))
def test_any_settings_are_taken_or_refused_without_their_secrets(values: dict[str, str]) -> None:
    marked = {name: f"{text}Qx7" if name in SECRETS else text for name, text in values.items()}
    problems, found = refused(lambda: load(overrides=marked))
    assert isinstance(found, Settings) or problems
    assert all("\n" not in problem and problem.split(":")[0].isupper() for problem in problems)
    assert "Qx7" not in repr((problems, found))


LINES = st.one_of(
    WORDS,
    st.tuples(st.sampled_from([name.upper() for name in Settings.model_fields]), VALUES).map("=".join),
    st.sampled_from(
        ["export A=1", "=", "A", "A='", 'KAPA_API_KEY="', "#", "${HOME}", "BRIDGE_PORT=${BRIDGE_PORT}", "'"]
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(LINES, max_size=6).map("\n".join).map(str.encode) | st.binary(max_size=60))
def test_any_env_file_is_taken_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".env").write_bytes(content)
    problems, found = refused(lambda: (load(), unknown()))
    assert found or problems
    assert all("\n" not in problem for problem in problems)


TOML = st.one_of(
    WORDS,
    st.tuples(st.sampled_from(["help", "sources", "failed", "busy", "x", "a.b", '"é"']), VALUES).map(
        lambda pair: f'{pair[0]} = "{pair[1]}"'
    ),
    st.sampled_from(["[table]", "[[tables]]", "help = 1", "help = {a = 1}", "help = 1979-05-27", "help = inf", "= 1"]),
    WELLS.map(lambda depth: "help = " + "[" * depth + "]" * depth),
    WELLS.map(lambda depth: "help = " + "{a = " * depth + "1" + "}" * depth),
    WELLS.map(lambda depth: "a." * depth + "b = 1"),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(TOML, max_size=3).map("\n".join).map(str.encode) | st.binary(max_size=60))
def test_any_file_of_sentences_is_taken_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "messages.toml"
    path.write_bytes(content)
    problems, found = refused(lambda: messages.load(path))
    assert isinstance(found, Messages) or problems
