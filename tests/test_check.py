import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from bridge import check
from bridge.check import Finding
from bridge.settings import load
from bridge.slack.manifest import SCOPES
from tests.rig import Rig

NAMES = ["settings", "Slack bot token", "Slack scopes", "Slack app token", "Kapa", "Redis"]
# What the sentence about each part ends with: what to do.
ADVICE = {
    "Slack bot token": "it should be the Bot User OAuth Token, which begins with xoxb-",
    "Slack app token": "it should be an app-level token with connections:write, which begins with xapp-",
    "Kapa": "; copy the key and the project's id anew from the Kapa platform",
    "Redis": "; check REDIS_URL, and that Redis runs",
}
NO_KAPA = "KAPA_API_URL: Kapa cannot be asked (the connection to Kapa failed); check KAPA_API_URL and the network"
SECRETS = ("xoxb-playground", "xapp-playground", "xoxb-wrong", "xapp-wrong", "playground-key", "hunter2")


def test_what_is_no_setting_is_named_with_the_nearest_that_is_one() -> None:
    assert [finding.problem for finding in check.named({})] == [None]
    assert [finding.problem for finding in check.named({"KAPA_KEY": "KAPA_API_KEY", "BRIDGE_XYZZY": None})] == [
        "KAPA_KEY: there is no such setting; write KAPA_API_KEY if that is meant, or remove it",
        "BRIDGE_XYZZY: there is no such setting; remove it",
    ]


async def findings(rig: Rig, **settings: Any) -> list[Finding]:
    given = {name.lower(): text for name, text in rig.environment(**settings).items() if text}
    found = [finding async for finding in check.run(load(overrides=given))]
    assert not any(secret in repr(found) for secret in SECRETS)
    return found


def failing(found: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.problem for finding in found if finding.problem is not None}


async def test_all_is_well(rig: Rig) -> None:
    found = await findings(rig)
    assert [finding.name for finding in found] == NAMES
    assert failing(found) == {}
    assert all(finding.detail for finding in found)


async def test_over_http_there_is_no_app_token_to_check(rig: Rig) -> None:
    found = await findings(rig, slack_app_token="", slack_signing_secret="0123")
    assert [finding.name for finding in found] == [name for name in NAMES if name != "Slack app token"]
    assert failing(found) == {}


def a_free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize(
    ("settings", "name", "problem"),
    [
        ({"slack_bot_token": "xoxb-wrong"}, "Slack bot token", "SLACK_BOT_TOKEN: Slack refuses it (invalid_auth)"),
        ({"slack_app_token": "xapp-wrong"}, "Slack app token", "SLACK_APP_TOKEN: Slack refuses it (invalid_auth)"),
        ({"kapa_api_key": "wrong"}, "Kapa", "KAPA_API_KEY, KAPA_PROJECT_ID: "),
        ({"kapa_project_id": "other"}, "Kapa", "KAPA_API_KEY, KAPA_PROJECT_ID: "),
        (
            {"kapa_integration_id": "other"},
            "Kapa",
            "KAPA_INTEGRATION_ID: the project has no such integration; it has: ",
        ),
        ({"redis_url": "unix:///there/is/none.sock"}, "Redis", "REDIS_URL: Redis cannot be used: "),
        ({"redis_url": "redis://:hunter2@127.0.0.1/?x=1"}, "Redis", "REDIS_URL: Redis cannot be used: the URL has an"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_each_part_fails_by_itself(rig: Rig, settings: dict[str, str], name: str, problem: str) -> None:
    found = failing(await findings(rig, **settings))
    assert list(found) == [name]
    assert found[name].startswith(problem)
    # What is said of an integration or of an option in a URL is what to mend.
    assert found[name].endswith(ADVICE[name]) or "no such integration" in problem or "has an" in problem


async def test_a_slack_that_is_not_there_is_no_fault_of_the_tokens(rig: Rig) -> None:
    found = failing(await findings(rig, slack_api_url=f"http://127.0.0.1:{a_free_port()}/api/"))
    assert list(found) == ["Slack bot token", "Slack app token"]
    assert all(problem.startswith("SLACK_API_URL: Slack cannot be asked (") for problem in found.values())


@pytest.mark.parametrize("fault", ["429", "500", "502", "garbage", "drop_after"])
async def test_a_slack_that_fails_is_no_fault_of_the_token(rig: Rig, fault: str) -> None:
    rig.slack.fault("auth.test", fault)
    found = failing(await findings(rig))
    assert list(found) == ["Slack bot token"]
    assert found["Slack bot token"].startswith("SLACK_API_URL: ")


async def test_a_kapa_that_is_not_there(rig: Rig) -> None:
    found = failing(await findings(rig, kapa_api_url=f"http://127.0.0.1:{a_free_port()}"))
    assert list(found) == ["Kapa"]
    assert found["Kapa"] == NO_KAPA


async def test_a_kapa_that_hangs_up(rig: Rig) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert failing(await findings(rig, kapa_api_url=f"http://127.0.0.1:{port}")) == {"Kapa": NO_KAPA}


@pytest.mark.parametrize("fault", ["500", "502html", "429"])
async def test_a_kapa_that_fails(rig: Rig, fault: str) -> None:
    rig.kapa.fault(fault, endpoint="integrations")
    problem = failing(await findings(rig))["Kapa"]
    assert problem.startswith("KAPA_API_URL: Kapa cannot be asked (")
    assert problem.endswith("); try again later")


async def test_missing_scopes_are_named_with_what_they_are_for(rig: Rig) -> None:
    rig.slack.scopes.difference_update({"chat:write", "reactions:read"})
    assert failing(await findings(rig)) == {
        "Slack scopes": "add chat:write (to answer), reactions:read (to hear votes) under OAuth & Permissions and "
        "reinstall the app"
    }


@pytest.mark.parametrize(
    ("granted", "is_enough"), [([*SCOPES], True), ([*SCOPES, "users:read"], True), ([*SCOPES][1:], False), ([], False)]
)
def test_scopes(granted: list[str], is_enough: bool) -> None:
    assert (check.scopes(granted).problem is None) is is_enough


async def test_a_redis_that_may_lose_messages(rig: Rig, redis: Redis) -> None:
    await redis.config_set("appendonly", "no")
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    found = [finding for finding in await findings(rig) if finding.problem]
    assert [finding.name for finding in found] == ["Redis", "Redis"]


async def test_everything_at_once(rig: Rig) -> None:
    settings = {
        "slack_bot_token": "xoxb-wrong",
        "slack_app_token": "xapp-wrong",
        "kapa_api_key": "wrong",
        "redis_url": "unix:///there/is/none.sock",
    }
    assert list(failing(await findings(rig, **settings))) == ["Slack bot token", "Slack app token", "Kapa", "Redis"]


async def test_without_a_redis_url_the_embedded_one_is_checked(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    found = await findings(rig, redis_url="", bridge_data_dir=folder)
    assert failing(found) == {}
    assert await asyncio.to_thread(folder.is_dir)
    (tmp_path / "file").touch()
    found = await findings(rig, redis_url="", bridge_data_dir=tmp_path / "file" / "data")
    assert list(failing(found)) == ["Redis"]
    assert "BRIDGE_DATA_DIR" in failing(found)["Redis"]
