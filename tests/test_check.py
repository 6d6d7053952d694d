"""`bridge check` against the simulated Slack and Kapa and a real Redis: every sentence that it has."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic, time
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis
from typer.testing import CliRunner

from bridge import check
from bridge.check import Finding
from bridge.cli import cli
from bridge.kapa.wire import Integration
from bridge.playground.serving import served
from bridge.playground.slack import APP_ID, BOT
from bridge.playground.slack_workspace import Channel
from bridge.settings import Role, Settings, load
from bridge.slack.manifest import SCOPES
from bridge.slack.web_api import Account
from tests.rig import ADA, ELSEWHERE, GENERAL, HELP, PRIVATE, Rig, free_port

BOT_LINES = ["settings", "Slack bot token", "Slack scopes", "Slack channels"]
NAMES = [*BOT_LINES, "Slack app token", "Slack clock", "Kapa", "Kapa integration", "Redis"]
NEEDS_BOT = "not checked: this needs the Slack bot token first"
NO_BOT = "it should be the Bot User OAuth Token, which begins with xoxb-"
NO_APP = "it should be an app-level token with connections:write, which begins with xapp-"
NO_SLACK = "check SLACK_API_URL and the network, or try again later"
NO_KAPA = "KAPA_API_URL: Kapa cannot be asked (the connection to Kapa failed); check KAPA_API_URL and the network"
SECRETS = ("xoxb-playground", "xapp-playground", "xoxb-wrong", "xapp-wrong", "playground-key", "hunter2", "0123abcd")
WIDGET = {"id": "00000000-0000-4000-8000-000000000003", "name": "Docs site", "type": "WIDGET"}
NOBODY = Account(user="", team="", team_id="", bot_id="", app="", app_id="", scopes=None)


def settings_of(rig: Rig, **settings: Any) -> Settings:
    return load(overrides={name.lower(): text for name, text in rig.environment(**settings).items() if text})


async def findings(
    rig: Rig, role: Role = Role.ALL, how: dict[str, Any] | None = None, **settings: Any
) -> list[Finding]:
    found = [finding async for finding in check.run(settings_of(rig, **settings), role, **(how or {}))]
    assert not any(secret in repr(found) for secret in SECRETS)
    assert all(finding.text and finding.text.isprintable() for finding in found)
    return found


def failing(found: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.problem for finding in found if finding.problem is not None}


def skipped(found: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.text for finding in found if finding.ok is None}


def texts(found: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.text for finding in found}


async def test_all_is_well(rig: Rig) -> None:
    found = await findings(rig)
    assert [finding.name for finding in found] == NAMES
    assert [finding.ok for finding in found] == [True] * len(NAMES)
    told = texts(found)
    assert told["Slack bot token"] == "@bridge in Playground (T0PLAY)"
    assert told["Slack scopes"] == "all granted, and no others"
    assert told["Slack app token"] == f"opens connections, of the app Bridge ({APP_ID})"
    assert told["Kapa"] == f"the key opens project {rig.kapa.project_id}"
    assert told["Kapa integration"] == "Slack bridge (API)"


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (Role.ALL, NAMES),
        (Role.INGRESS, [name for name in NAMES if not name.startswith("Kapa")]),
        (Role.WORKER, [name for name in NAMES if name not in {"Slack channels", "Slack app token"}]),
    ],
)
async def test_a_role_is_asked_for_what_it_needs(rig: Rig, role: Role, names: list[str]) -> None:
    unused: dict[str, Any] = (
        {"kapa_api_key": ""} if role is Role.INGRESS else {"slack_app_token": ""} if role is Role.WORKER else {}
    )
    found = await findings(rig, role, bridge_channels=ELSEWHERE if role is Role.WORKER else "", **unused)
    assert [finding.name for finding in found] == names
    assert failing(found) == {}


async def test_everything_is_asked_when_everything_fails(rig: Rig) -> None:
    found = await findings(
        rig,
        how={"unknown": {"BRIDGE_XYZZY": None}},
        slack_bot_token="xoxb-wrong",
        slack_app_token="xapp-wrong",
        bridge_channels=f"{HELP},{PRIVATE}",
        kapa_api_key="wrong",
        redis_url="unix:///there/is/none.sock",
    )
    assert list(failing(found)) == ["settings", "Slack bot token", "Slack app token", "Kapa", "Redis"]
    assert skipped(found) == {
        "Slack scopes": NEEDS_BOT,
        f"Slack channel {HELP}": NEEDS_BOT,
        f"Slack channel {PRIVATE}": NEEDS_BOT,
        "Kapa integration": "not checked: this needs the Kapa project first",
    }
    assert [finding.ok for finding in found if finding.name == "Slack clock"] == [True]


# Settings


def test_every_setting_is_told_and_no_secret(rig: Rig) -> None:
    settings = settings_of(
        rig, redis_url="redis://:hunter2@127.0.0.1/0", bridge_channels=f"{HELP},{GENERAL}", bridge_messages="",
        bridge_reactions="+1=upvote," + ",".join(f"e{number}=downvote" for number in range(30)),
    )  # fmt: skip
    [found] = check.configured(settings, {})
    given, default, unset = found.text.split("; ")
    assert given.startswith("SLACK_BOT_TOKEN set, SLACK_APP_TOKEN set, SLACK_API_URL=http://127.0.0.1:")
    assert "KAPA_API_KEY set, " in given
    assert f"KAPA_PROJECT_ID={rig.kapa.project_id}, " in given
    assert "REDIS_URL set, " in given
    assert f"BRIDGE_CHANNELS={HELP},{GENERAL}, " in given
    assert "BRIDGE_REACTIONS=+1=upvote,e0=downvote,e1=downvote,e2=downvote,e3=downvote,e…, " in given
    assert default.startswith("default: KAPA_REQUESTS_PER_MINUTE, ")
    assert unset == "not set: SLACK_SIGNING_SECRET, BRIDGE_MESSAGES"
    assert not any(secret in found.text for secret in SECRETS)
    told = found.text.replace("=", " ").replace(",", " ").replace(";", " ").split()
    assert all(told.count(name.upper()) == 1 for name in Settings.model_fields)


def test_what_is_no_setting_is_named_with_the_nearest_that_is_one(rig: Rig) -> None:
    found = check.configured(settings_of(rig), {"KAPA_KEY": "KAPA_API_KEY", "BRIDGE_XYZZY": None})
    assert [finding.problem for finding in found] == [
        None,
        "KAPA_KEY: there is no such setting; write KAPA_API_KEY if that is meant, or remove it",
        "BRIDGE_XYZZY: there is no such setting; remove it",
    ]


# Tokens


@pytest.mark.parametrize(
    ("settings", "name", "problem"),
    [
        (
            {"slack_bot_token": "xoxb-wrong"},
            "Slack bot token",
            f"SLACK_BOT_TOKEN: Slack refuses it (invalid_auth); {NO_BOT}",
        ),
        (
            {"slack_app_token": "xapp-wrong"},
            "Slack app token",
            f"SLACK_APP_TOKEN: Slack refuses it (invalid_auth); {NO_APP}",
        ),
    ],
    ids=["bot", "app"],
)
async def test_a_token_that_is_refused(rig: Rig, settings: dict[str, Any], name: str, problem: str) -> None:
    assert failing(await findings(rig, **settings)) == {name: problem}


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("account_inactive", "account_inactive: the app is no longer installed, or its workspace is gone"),
        ("token_expired", "token_expired: the app rotates its tokens, which the bridge does not follow"),
        ("token_revoked", "token_revoked: the app is no longer installed, or the token was revoked"),
        ("missing_scope", "missing_scope"),
    ],
)
@pytest.mark.parametrize(
    ("method", "name", "setting", "should"),
    [
        ("auth.test", "Slack bot token", "SLACK_BOT_TOKEN", NO_BOT),
        ("apps.connections.open", "Slack app token", "SLACK_APP_TOKEN", NO_APP),
    ],
)
async def test_why_a_token_is_refused(
    rig: Rig, code: str, why: str, method: str, name: str, setting: str, should: str
) -> None:
    rig.slack.fault(method, code)
    assert failing(await findings(rig)) == {name: f"{setting}: Slack refuses it ({why}); {should}"}


async def test_a_user_s_token_is_no_bot_s(rig: Rig) -> None:
    rig.slack.workspace.bot = replace(BOT, name="ada", bot_id=None)
    assert failing(await findings(rig)) == {
        "Slack bot token": f"SLACK_BOT_TOKEN: it is the token of a user (@ada); {NO_BOT}"
    }


@pytest.mark.parametrize(
    ("whose", "text"),
    [
        ({"bot_id": "B1", "user": "kapa", "team": "Acme", "team_id": "T1"}, "@kapa in Acme (T1)"),
        ({"bot_id": "B1", "user": "k" * 99, "team": "Acme", "team_id": "T1"}, f"@{'k' * 59}… in Acme (T1)"),
        ({}, f"SLACK_BOT_TOKEN: it is the token of a user (somebody); {NO_BOT}"),
        ({"user": "ada"}, f"SLACK_BOT_TOKEN: it is the token of a user (@ada); {NO_BOT}"),
    ],
)
def test_whose_a_token_is(whose: dict[str, Any], text: str) -> None:
    assert check.token(replace(NOBODY, **whose)).text == text


async def test_an_app_token_that_opens_connections_is_enough(rig: Rig) -> None:
    rig.slack.fault("auth.test", "not_allowed_token_type", times=2)
    found = await findings(rig)
    # The bot's own is the other of the two.
    assert list(failing(found)) == ["Slack bot token"]
    assert texts(found)["Slack app token"] == "opens connections"


async def test_over_http_there_is_no_app_token_to_check(rig: Rig) -> None:
    found = await findings(rig, slack_app_token="", slack_signing_secret="0123abcd")
    assert [finding.name for finding in found] == [name.replace("app token", "signing secret") for name in NAMES]
    assert failing(found) == {}
    assert texts(found)["Slack signing secret"] == "set; only an event of Slack's shows whether it is this app's"
    assert not any(call.method == "apps.connections.open" for call in rig.slack.calls)


async def test_a_slack_that_is_not_there_is_no_fault_of_the_tokens(rig: Rig) -> None:
    found = await findings(rig, slack_api_url=f"http://127.0.0.1:{free_port()}/api/")
    problem = f"SLACK_API_URL: Slack cannot be asked (no connection); {NO_SLACK}"
    assert failing(found) == {"Slack bot token": problem, "Slack app token": problem}
    assert skipped(found) == {
        "Slack scopes": NEEDS_BOT,
        "Slack clock": "not checked: Slack cannot be asked (no connection)",
    }


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("500", "internal_error"),
        ("502", "status 502"),
        ("garbage", "no JSON"),
        ("drop_after", "the connection broke"),
        ("hang", "no answer in time"),
    ],
)
async def test_a_slack_that_fails_is_no_fault_of_the_token(rig: Rig, fault: str, reason: str) -> None:
    rig.slack.fault("apps.connections.open", fault)
    found = failing(await findings(rig, how={"patience": 2.0}))
    assert found == {"Slack app token": f"SLACK_API_URL: Slack cannot be asked ({reason}); {NO_SLACK}"}


async def test_a_slack_that_limits_is_asked_again_later(rig: Rig) -> None:
    rig.slack.fault("apps.connections.open", "429")
    assert failing(await findings(rig)) == {
        "Slack app token": "Slack limits how often it can be asked (ratelimited); try again in a minute"
    }


# Scopes


async def test_scopes_are_compared_with_the_manifest(rig: Rig) -> None:
    rig.slack.scopes.difference_update({"chat:write", "reactions:read"})
    assert failing(await findings(rig)) == {
        "Slack scopes": "add chat:write (to answer, and show that it is at work), reactions:read (to hear votes) under "
        "OAuth & Permissions and reinstall the app"
    }


@pytest.mark.parametrize(
    ("granted", "ok", "text"),
    [
        ([*SCOPES], True, "all granted, and no others"),
        (
            [*SCOPES, "users:read", "channels:read"],
            True,
            "all granted; the bridge does without channels:read, users:read, which can be removed",
        ),
        (
            [*[*SCOPES][1:], "users:read"],
            False,
            "add app_mentions:read (to hear where it is mentioned) under OAuth & Permissions and reinstall the app",
        ),
        (None, None, "not checked: Slack's reply names none"),
    ],
    ids=["exactly", "more", "one missing", "not told"],
)
def test_scopes(granted: list[str] | None, ok: bool | None, text: str) -> None:
    found = check.scopes(granted)
    assert (found.ok, found.text) == (ok, text)
    assert check.scopes([]).ok is False


# Channels


ABSENT = (
    "BRIDGE_CHANNELS: this workspace has no channel {}, or it is private and the bot is not in it; correct the id, "
    "which stands at the end of the channel's details in Slack, or type /invite @bridge there"
)


async def test_each_channel_is_looked_into(rig: Rig) -> None:
    rig.slack.workspace.channels["C0SECRET"] = Channel("C0SECRET", "secret", "group", {ADA})
    room = rig.slack.workspace.channel(GENERAL)
    rig.slack.workspace.post(ADA, room, {"subtype": "channel_archive", "text": "archived the channel"})
    wanted = [HELP, PRIVATE, "D0ADA", ELSEWHERE, "C0NOWHERE", "C0SECRET", GENERAL, HELP]
    found = await findings(rig, bridge_channels=", ".join(wanted))
    channels = {one.name.removeprefix("Slack channel "): one for one in found if one.name.startswith("Slack channel ")}
    assert list(channels) == wanted[:-1]
    assert {name: one.problem for name, one in channels.items()} == {
        HELP: None,
        PRIVATE: None,
        "D0ADA": None,
        ELSEWHERE: f"BRIDGE_CHANNELS: the bot is not in {ELSEWHERE}; type /invite @bridge there (if it is archived, "
        "unarchive it first)",
        "C0NOWHERE": ABSENT.format("C0NOWHERE"),
        "C0SECRET": ABSENT.format("C0SECRET"),
        GENERAL: f"BRIDGE_CHANNELS: {GENERAL} is archived; unarchive it and type /invite @bridge there, or take its "
        "id out",
    }
    assert channels[HELP].text == "the bot is in it"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (
            "is_archived",
            f"BRIDGE_CHANNELS: {HELP} is archived; unarchive it and type /invite @bridge there, or take its id out",
        ),
        (
            "missing_scope",
            f"BRIDGE_CHANNELS: {HELP} cannot be looked into; add the scopes that are missing first",
        ),
        (
            "channel_is_limited_access",
            f"BRIDGE_CHANNELS: {HELP} cannot be looked into (channel_is_limited_access); see that it is the id of a "
            "channel",
        ),
        ("500", f"SLACK_API_URL: Slack cannot be asked (internal_error); {NO_SLACK}"),
    ],
)
async def test_a_channel_that_slack_does_not_show(rig: Rig, code: str, problem: str) -> None:
    rig.slack.fault("conversations.history", code)
    assert failing(await findings(rig, bridge_channels=HELP)) == {f"Slack channel {HELP}": problem}


async def test_the_scopes_of_the_manifest_are_enough_for_the_check(rig: Rig) -> None:
    await findings(rig, bridge_channels=",".join((HELP, PRIVATE, ELSEWHERE, "D0ADA")))
    assert "missing_scope" not in {call.outcome for call in rig.slack.calls}


# The clock


@pytest.mark.parametrize(
    ("date", "before", "after", "ok", "text"),
    [
        # Slack's reply was made somewhere between 100.0 and 101.0 by Slack's clock.
        (100, 100.5, 100.7, True, "this machine's is within 0.7 s of Slack's"),
        (100, 100.0, 104.0, True, "this machine's is within 4.0 s of Slack's"),
        (100, 106.0, 106.2, True, "this machine's is within 6.2 s of Slack's"),
        (100, 106.1, 106.2, False, "this machine's clock is 6 s ahead of Slack's"),
        (100, 94.9, 95.0, True, "this machine's is within 6.1 s of Slack's"),
        (100, 94.0, 94.9, False, "this machine's clock is 6 s behind Slack's"),
        (1e9, 1e9 + 4000, 1e9 + 4001, False, "this machine's clock is 4000 s ahead of Slack's"),
        # A slow reply says little, and nothing against the clock.
        (100, 80.0, 110.0, True, "this machine's is within 21.0 s of Slack's"),
    ],
)
def test_clocks_are_compared(date: float, before: float, after: float, ok: bool, text: str) -> None:
    found = check.skew(date, before, after)
    assert found.ok is ok
    assert found.text.startswith(text)
    assert ok or found.text.endswith(
        ": let NTP set it, as with timedatectl set-ntp true; from 300 s on, what Slack signs counts as forged"
    )


@pytest.mark.parametrize(("off", "word"), [(400.0, "ahead of"), (-400.0, "behind")])
async def test_a_clock_that_is_off_is_found_even_with_a_wrong_token(rig: Rig, off: float, word: str) -> None:
    found = failing(await findings(rig, how={"clock": lambda: time() + off}, slack_bot_token="xoxb-wrong"))
    assert list(found) == ["Slack bot token", "Slack clock"]
    assert f"s {word} Slack's: " in found["Slack clock"]
    assert abs(int(found["Slack clock"].split(" is ")[1].split(" s ")[0]) - 400) <= 1


@asynccontextmanager
async def stand_in(status: int, body: object, path: str = "/{path:.*}", **headers: str) -> AsyncIterator[str]:
    """Serve one reply to whatever is asked; gives the base URL."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body, status=status, headers=headers)

    server = web.Application()
    server.router.add_route("*", path, answer)
    async with served(server, "127.0.0.1", 0) as url:
        yield url


@pytest.mark.parametrize(
    ("date", "text"),
    [
        ("", "not checked: Slack's reply has no date"),
        ("yesterday", "not checked: Slack's reply has no date"),
        ("Thu, 01 Jan 1970 00:00:00 GMT", "this machine's clock is "),
        ("Thu, 01 Jan 1970 00:00:00 -0000", "this machine's clock is "),
    ],
)
@pytest.mark.parametrize("status", [200, 403, 503])
async def test_the_date_of_any_reply_will_do(rig: Rig, date: str, text: str, status: int) -> None:
    async with stand_in(status, {"ok": False, "error": "unknown_method"}, Date=date) as url:
        found = await findings(rig, slack_api_url=f"{url}/api/")
    assert texts(found)["Slack clock"].startswith(text)


# Kapa


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"kapa_api_key": "wrong"},
            "KAPA_API_KEY, KAPA_PROJECT_ID: the key does not open this project (Forbidden: You do not have permission "
            "to perform this action.); a key belongs to one project: copy both anew from the Kapa platform",
        ),
        (
            {"kapa_project_id": "other"},
            "KAPA_PROJECT_ID: Kapa knows no such project (Not Found: Not found.); copy the project's id anew from the "
            "Kapa platform",
        ),
    ],
    ids=["key", "project"],
)
async def test_key_and_project_are_told_apart(rig: Rig, settings: dict[str, Any], problem: str) -> None:
    found = await findings(rig, **settings)
    assert failing(found) == {"Kapa": problem}
    assert skipped(found) == {"Kapa integration": "not checked: this needs the Kapa project first"}


@pytest.mark.parametrize(
    ("status", "headers", "problem"),
    [
        (
            401,
            {},
            "KAPA_API_KEY: Kapa does not accept it (Unauthorized: x); copy a key of the project anew from the Kapa "
            "platform, under API Keys",
        ),
        (
            301,
            {"Location": "https://kapa.example.com/"},
            "KAPA_API_URL: Kapa cannot be asked (Moved Permanently: the address redirects to "
            "https://kapa.example.com/, which is not followed (HTTP 301)); check KAPA_API_URL and the network",
        ),
        (
            400,
            {},
            "KAPA_API_URL: Kapa cannot be asked (Bad Request: x (HTTP 400)); check KAPA_API_URL and the network",
        ),
        (200, {}, "KAPA_API_URL: Kapa cannot be asked (garbled reply); check KAPA_API_URL and the network"),
    ],
)
async def test_what_kapa_says(rig: Rig, status: int, headers: dict[str, Any], problem: str) -> None:
    async with stand_in(status, {"detail": "x"}, **headers) as url:
        assert failing(await findings(rig, kapa_api_url=url)) == {"Kapa": problem}


async def test_a_kapa_that_is_not_there(rig: Rig) -> None:
    assert failing(await findings(rig, kapa_api_url=f"http://127.0.0.1:{free_port()}")) == {"Kapa": NO_KAPA}


async def test_a_kapa_that_hangs_up(rig: Rig) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert failing(await findings(rig, kapa_api_url=f"http://127.0.0.1:{port}")) == {"Kapa": NO_KAPA}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("500", "Internal Server Error: Internal server error. (HTTP 500)"),
        ("502html", "Bad Gateway (HTTP 502)"),
        ("429", "Too Many Requests: Request was throttled. (HTTP 429)"),
    ],
)
async def test_a_kapa_that_fails(rig: Rig, fault: str, reason: str) -> None:
    rig.kapa.fault(fault, endpoint="integrations")
    problem = f"KAPA_API_URL: Kapa cannot be asked ({reason}); try again later"
    assert failing(await findings(rig)) == {"Kapa": problem}


async def test_an_integration_of_another_kind_or_project_is_named(rig: Rig) -> None:
    rig.kapa.integrations.append(WIDGET)
    instead = f"set it to one of the kind API: {rig.kapa.integration_id} (Slack bridge, API)"
    for id_, wrong in {
        WIDGET["id"]: "Docs site is of the kind WIDGET",
        "00000000-0000-4000-8000-000000000009": "the project has no such integration",
        rig.kapa.project_id: "this is the project's id",
    }.items():
        found = await findings(rig, kapa_integration_id=id_)
        assert failing(found) == {"Kapa integration": f"KAPA_INTEGRATION_ID: {wrong}; {instead}"}


API, OTHER = Integration("a1", "Bridge", "API"), Integration("w1", "Docs", "WIDGET")
CREATE = "create one of the kind API in the Kapa platform, under Integrations"
OF_KIND = "KAPA_INTEGRATION_ID: {} is of the kind WIDGET"
NONE_SUCH = "KAPA_INTEGRATION_ID: the project has no such integration"


@pytest.mark.parametrize(
    ("known", "wanted", "ok", "text"),
    [
        ([API], "a1", True, "Bridge (API)"),
        ([API], "A1", True, "Bridge (API)"),
        ([Integration("a1", "", "api")], "a1", True, "a1 (api)"),
        ([Integration("a1", "Bridge", "API_INTEGRATION")], "a1", True, "Bridge (API_INTEGRATION)"),
        ([Integration("a1")], "a1", True, "a1 (of a kind that Kapa does not tell)"),
        ([OTHER], "w1", False, f"{OF_KIND.format('Docs')}; {CREATE}; it has only w1 (Docs, WIDGET)"),
        ([replace(OTHER, name="")], "w1", False, f"{OF_KIND.format('it')}; {CREATE}; it has only w1 (WIDGET)"),
        ([], "a1", False, f"{NONE_SUCH}; {CREATE}"),
        ([OTHER], "a1", False, f"{NONE_SUCH}; {CREATE}; it has only w1 (Docs, WIDGET)"),
        ([API, OTHER], "x1", False, f"{NONE_SUCH}; set it to one of the kind API: a1 (Bridge, API)"),
        ([Integration("a1")], "x1", False, f"{NONE_SUCH}; set it to one of the kind API: a1"),
        ([Integration(f"a{n}") for n in range(12)], "x", False,
         f"{NONE_SUCH}; set it to one of the kind API: {', '.join(f'a{n}' for n in range(10))} and 2 more"),
    ],
)  # fmt: skip
def test_integrations(rig: Rig, known: list[Integration], wanted: str, ok: bool, text: str) -> None:
    found = check.integration(settings_of(rig, kapa_integration_id=wanted), known)
    assert (found.ok, found.text) == (ok, text)


# Redis


async def test_a_good_redis_is_told(rig: Rig, redis: Redis) -> None:
    version = (await redis.info())["redis_version"]
    kept = "appendonly yes, appendfsync {}, maxmemory-policy noeviction: keeps every write"
    assert texts(await findings(rig))["Redis"] == f"{version}, {kept.format('always')}"
    await redis.config_set("appendfsync", "everysec")
    assert texts(await findings(rig))["Redis"] == (
        f"{version}, {kept.format('everysec')}; a power failure may cost the last second or two"
    )


async def test_a_redis_that_forbids_config_is_told_as_far_as_it_tells(rig: Rig, redis: Redis) -> None:
    await redis.acl_setuser("default", enabled=True, nopass=True, categories=["+@all"], commands=["-config"], keys="*")
    found = await findings(rig)
    version = (await redis.info())["redis_version"]
    assert failing(found) == {}
    assert texts(found)["Redis"] == f"{version}, appendonly yes, maxmemory-policy noeviction: keeps every write"


async def test_a_redis_that_may_lose_messages(rig: Rig, redis: Redis) -> None:
    await redis.config_set("appendonly", "no")
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    problems = [finding.problem for finding in await findings(rig) if finding.name == "Redis"]
    assert problems == [
        "Redis may evict questions (maxmemory-policy allkeys-lru) once it has a maxmemory; set it to noeviction",
        "Redis does not persist every write (appendonly no), so a crash of Redis loses questions; set it to yes",
    ]


async def test_a_redis_that_refuses(rig: Rig, redis: Redis) -> None:
    await redis.config_set("maxmemory", 1)
    assert failing(await findings(rig)) == {
        "Redis": "REDIS_URL: Redis refuses writes (OOM); see docs/operations.md, When Redis refuses writes"
    }


@pytest.mark.parametrize(
    ("url", "beginning", "end"),
    [
        ("unix:///there/is/none.sock", "REDIS_URL: Redis cannot be used: ", "; check REDIS_URL, and that Redis runs"),
        ("redis://:hunter2@127.0.0.1/?x=1", "REDIS_URL: Redis cannot be used: the URL has an option", ""),
    ],
    ids=["away", "option"],
)
async def test_a_redis_that_cannot_be_used(rig: Rig, url: str, beginning: str, end: str) -> None:
    found = failing(await findings(rig, redis_url=url))
    assert list(found) == ["Redis"]
    assert found["Redis"].startswith(beginning)
    assert found["Redis"].endswith(end)


async def test_without_a_redis_url_the_embedded_one_is_checked(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    found = await findings(rig, redis_url="", bridge_data_dir=folder)
    assert failing(found) == {}
    assert texts(found)["Redis"].endswith(": keeps every write (the embedded one)")
    assert await asyncio.to_thread(folder.is_dir)
    (tmp_path / "file").touch()
    found = await findings(rig, redis_url="", bridge_data_dir=tmp_path / "file" / "data")
    assert list(failing(found)) == ["Redis"]
    assert failing(found)["Redis"].endswith(": set BRIDGE_DATA_DIR to a folder that this user can write to.")


# Nothing is waited for without end


async def test_nothing_is_waited_for_without_end(rig: Rig) -> None:
    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        began = monotonic()
        found = await findings(
            rig,
            how={"patience": 1.0},
            slack_api_url=f"http://127.0.0.1:{port}/api/",
            kapa_api_url=f"http://127.0.0.1:{port}",
            redis_url=f"redis://127.0.0.1:{port}",
            bridge_channels=HELP,
        )
        # All at once: one after the other, four would take four seconds.
        assert monotonic() - began < 3.8
    late = f"SLACK_API_URL: Slack cannot be asked (no answer in time); {NO_SLACK}"
    assert failing(found) == {
        "Slack bot token": late,
        "Slack app token": late,
        "Kapa": "KAPA_API_URL: Kapa cannot be asked (no answer in time); check KAPA_API_URL and the network",
        "Redis": "REDIS_URL: Redis does not answer within 1 s; check REDIS_URL, and that Redis runs",
    }


async def test_many_channels_are_looked_into_a_few_at_a_time(rig: Rig) -> None:
    for number in range(20):
        rig.slack.workspace.channels[f"C0{number}"] = Channel(f"C0{number}", "x", "channel", {BOT.id})
    found = await findings(rig, bridge_channels=",".join(f"C0{number}" for number in range(20)))
    assert failing(found) == {}
    assert [one.name for one in found if "channel" in one.name] == [f"Slack channel C0{number}" for number in range(20)]


# What is printed


def printed(monkeypatch: pytest.MonkeyPatch, rig: Rig, *arguments: str) -> tuple[int, str]:
    # What Slack and Kapa call things is theirs; it must not move a terminal's cursor, or begin a line.
    found = [
        Finding("Kapa integration", "Bridge\x1b[2J\nok    Redis (API)"),
        Finding("Slack scopes", "not checked: this needs the Slack bot token first", is_skipped=True),
        Finding("Redis", problem="REDIS_URL: it is away"),
    ]

    async def run(settings: Settings, role: Role, unknown: object) -> AsyncIterator[Finding]:
        assert (settings.redis_url is not None, role, unknown) == (True, Role.INGRESS, {})
        for finding in found:
            yield finding

    monkeypatch.setattr("bridge.cli.run_checks", run)
    environment = {**rig.environment(), "KAPA_API_KEY": ""}
    result = CliRunner().invoke(cli, ["check", "--role", "ingress", *arguments], env=environment)
    return result.exit_code, result.stdout


async def test_each_finding_is_one_line(monkeypatch: pytest.MonkeyPatch, rig: Rig) -> None:
    code, shown = await asyncio.to_thread(printed, monkeypatch, rig)
    assert code == 1
    assert shown.splitlines() == [
        "ok    Kapa integration: Bridge [2J ok    Redis (API)",
        "--    Slack scopes: not checked: this needs the Slack bot token first",
        "FAIL  Redis: REDIS_URL: it is away",
    ]


async def test_the_form_for_programs(monkeypatch: pytest.MonkeyPatch, rig: Rig) -> None:
    code, shown = await asyncio.to_thread(printed, monkeypatch, rig, "--json")
    assert code == 1
    assert json.loads(shown) == [
        {"name": "Kapa integration", "ok": True, "text": "Bridge\x1b[2J\nok    Redis (API)"},
        {"name": "Slack scopes", "ok": None, "text": "not checked: this needs the Slack bot token first"},
        {"name": "Redis", "ok": False, "text": "REDIS_URL: it is away"},
    ]
