import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner

from bridge import __version__
from bridge.app import StartError
from bridge.cli import cli
from bridge.dead_letters import DeadLetters
from bridge.inbox import DEAD, Inbox, Item, Kind
from bridge.models import Emoji, Place, Question
from bridge.slack.manifest import manifest
from tests.rig import Rig

PATIENCE = 20.0
COMPLETE = {
    "SLACK_BOT_TOKEN": "xoxb-1",
    "SLACK_APP_TOKEN": "xapp-1",
    "KAPA_API_KEY": "key",
    "KAPA_PROJECT_ID": "project",
    "KAPA_INTEGRATION_ID": "integration",
}


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def problems(self) -> list[str]:
        """What was said on stderr, where nothing else may stand."""
        assert "Traceback" not in self.err
        return self.err.splitlines()


@asynccontextmanager
async def command(*arguments: str, env: Mapping[str, str] | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a command in the test's own folder, with these settings and no others."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bridge",
        *arguments,
        env={"PATH": os.environ["PATH"], "BRIDGE_ADMIN_PORT": "0", **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def typed(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
    """Run a command that ends before it does anything, in this process."""
    result = CliRunner().invoke(cli, arguments, env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return Result(result.exit_code, result.stdout, result.stderr)


async def run(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
    """Run a command to its end."""
    async with asyncio.timeout(PATIENCE), command(*arguments, env=env) as process:
        out, err = await process.communicate()
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


async def logged(process: asyncio.subprocess.Process, event: str) -> dict[str, Any]:
    """Wait until a running bridge logs an event."""
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        while line := await process.stderr.readline():
            found: dict[str, Any] = json.loads(line)
            if found["event"] == event:
                return found
    raise AssertionError(f"it ended without {event}")


async def stop(process: asyncio.subprocess.Process, number: signal.Signals = signal.SIGTERM) -> tuple[int | None, str]:
    process.send_signal(number)
    async with asyncio.timeout(PATIENCE):
        _, err = await process.communicate()
    return process.returncode, err.decode()


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield int(taken.getsockname()[1])


# What is typed


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("--help",), 0), (("dead-letters",), 2)])
def test_help(arguments: tuple[str, ...], code: int) -> None:
    result = typed(*arguments)
    assert result.code == code
    shown = result.err if code else result.out
    assert shown.startswith("Usage: ")
    for name in (
        ("list", "retry", "drop") if "dead-letters" in arguments else ("run", "check", "manifest", "playground")
    ):
        assert f"\n  {name} " in shown


async def test_version() -> None:
    assert await run("--version") == typed("--version") == Result(0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("run", "--role", "boss"),
        ("run", "--nothing"),
        ("run", "extra"),
        ("check", "--json=1"),
        ("manifest", "--url"),
        ("manifest", "--url", "http://bridge.example.com"),
        ("manifest", "--url", "bridge.example.com"),
        ("manifest", "--url", "https://bridge.example.com/?x=1"),
        ("manifest", "--url", "https://user:pw@bridge.example.com"),
        ("manifest", "--url", "https://bridge .example.com"),
        ("manifest", "--url", "https://bridge.example.com:99999"),
        ("manifest", "--url", "https://bridge.example.com:0"),
        ("playground", "--port", "99999"),
        ("playground", "--kapa", "imagined"),
        ("dead-letters", "retry"),
        ("dead-letters", "retry", "--all", "1-0"),
        ("dead-letters", "drop"),
        ("dead-letters", "burn"),
    ],
    ids=" ".join,
)
def test_bad_input_is_refused(arguments: tuple[str, ...]) -> None:
    result = typed(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.problems


# Settings


async def test_every_problem_with_the_settings_is_told_on_its_own_line() -> None:
    result = await run("run", env={"BRIDGE_PORT": "x", "KAPA_API_KEY": "secret key", "BRIDGE_ANSWER": "some"})
    assert (result.code, result.out) == (2, "")
    assert [line.split(":")[0].removesuffix(" is not set") for line in result.problems] == [
        "BRIDGE_ANSWER",
        "BRIDGE_PORT",
        "KAPA_API_KEY",
        "KAPA_INTEGRATION_ID",
        "KAPA_PROJECT_ID",
        "SLACK_APP_TOKEN or SLACK_SIGNING_SECRET",
        "SLACK_BOT_TOKEN",
    ]
    assert "secret key" not in result.err


@pytest.mark.parametrize(
    "arguments", [("run",), ("check",), ("check", "--json"), ("dead-letters", "list")], ids=" ".join
)
@pytest.mark.parametrize(
    "url",
    ["localhost", "redis://:hunter2@h/0?odd=1", "redis://:hunter2@h/0?socket_timeout=1", "rediss://h?ssl_ca_certs=x"],
)
def test_every_command_refuses_bad_settings(arguments: tuple[str, ...], url: str) -> None:
    result = typed(*arguments, env={**COMPLETE, "REDIS_URL": url})
    assert (result.code, result.out) == (2, "")
    [problem] = result.problems
    assert problem.startswith("REDIS_URL: ")
    assert "hunter2" not in problem


def test_what_takes_a_part_of_the_bridge_to_tell_is_told_with_the_rest() -> None:
    Path("sentences.toml").write_text('help = ""\nhi = "x"\n', encoding="utf-8")
    given = {"BRIDGE_PORT": "x", "BRIDGE_MESSAGES": "sentences.toml", "REDIS_URL": "redis://h?odd=1"}
    result = typed("run", env={**COMPLETE, **given})
    assert (result.code, result.out) == (2, "")
    assert [line.split(":")[0] for line in result.problems] == [
        "BRIDGE_MESSAGES", "BRIDGE_MESSAGES", "BRIDGE_PORT", "REDIS_URL"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("feedback", "--since", "x", "--chart", "a.png"), ["--since", "--chart", "REDIS_URL"]),
        (("playground", "--kapa", "imagined"), ["--kapa", "BRIDGE_PORT"]),
        (("dead-letters", "retry"), ["name the dead letters to retry, or --all", "REDIS_URL"]),
        (("dead-letters", "drop"), ["name the dead letters to drop", "REDIS_URL"]),
    ],
    ids=["feedback", "playground", "retry", "drop"],
)
def test_bad_input_is_told_with_bad_settings(arguments: tuple[str, ...], told: list[str]) -> None:
    result = typed(*arguments, env={**COMPLETE, "BRIDGE_PORT": "x", "REDIS_URL": "localhost"})
    assert (result.code, result.out) == (2, "")
    assert [line.split(":")[0] for line in result.problems] == told


@pytest.mark.parametrize("role", ["ingress", "worker"])
def test_a_part_of_the_bridge_needs_a_redis_to_share(role: str) -> None:
    result = typed("run", "--role", role, env=COMPLETE)
    assert result.code == 2
    [problem] = result.problems
    assert problem.startswith("REDIS_URL is not set: ")


def test_bad_sentences_are_told_like_bad_settings() -> None:
    Path("sentences.toml").write_text('help = ""\nhi = "x"\n', encoding="utf-8")
    result = typed("run", env={**COMPLETE, "BRIDGE_MESSAGES": "sentences.toml"})
    assert result.code == 2
    assert len(result.problems) == 2


def test_the_file_of_settings_is_read() -> None:
    Path(".env").write_text("REDIS_URL=x\nBRIDGE_PORT=not looked at\n", encoding="utf-8")
    result = typed("dead-letters", "list")
    assert result.code == 2
    assert [line.split(":")[0] for line in result.problems] == ["REDIS_URL"]


# The manifest


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        ((), None),
        (("--url", "https://bridge.example.com"), "https://bridge.example.com/slack/events"),
        (("--url", "https://bridge.example.com/"), "https://bridge.example.com/slack/events"),
        (("--url", "https://bridge.example.com:8443/x"), "https://bridge.example.com:8443/x/slack/events"),
        (("--url", "https://bridge.example.com/slack/events"), "https://bridge.example.com/slack/events"),
        (("--url", "https://bridge.example.com/slack/events/"), "https://bridge.example.com/slack/events"),
    ],
)
def test_the_manifest_needs_no_settings(arguments: tuple[str, ...], url: str | None) -> None:
    result = typed("manifest", *arguments, env={"BRIDGE_PORT": "x"})
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out) == manifest(url)


# The check


async def test_a_check_that_passes(rig: Rig) -> None:
    result = await run("check", env=rig.environment())
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert len(lines) == 9
    assert all(line.startswith("ok    ") for line in lines)


async def test_a_check_that_fails(rig: Rig) -> None:
    result = await run("check", env=rig.environment(kapa_api_key="wrong"))
    assert (result.code, result.err) == (1, "")
    failed, skipped = [line for line in result.out.splitlines() if not line.startswith("ok    ")]
    assert failed.startswith("FAIL  Kapa: KAPA_API_KEY")
    assert skipped == "--    Kapa integration: not checked: this needs the Kapa project first"


@pytest.mark.parametrize("role", ["ingress", "worker"])
async def test_a_check_of_one_role(rig: Rig, role: str) -> None:
    env = rig.environment()
    unused = "KAPA_" if role == "ingress" else "SLACK_APP_TOKEN"
    needed = {name: value for name, value in env.items() if not name.startswith(unused)}
    result = await run("check", "--role", role, env=needed)
    assert (result.code, result.err) == (0, "")
    refused = typed("check", "--role", role, env={**needed, "REDIS_URL": ""})
    assert (refused.code, refused.out) == (2, "")
    [problem] = refused.problems
    assert problem.startswith("REDIS_URL is not set: ")


async def test_a_check_names_what_is_no_setting(rig: Rig) -> None:
    result = await run("check", env={**rig.environment(), "BRIDGE_ANSWERS": "mention"})
    assert (result.code, result.err) == (1, "")
    [failed] = [line for line in result.out.splitlines() if not line.startswith("ok    ")]
    assert failed == (
        "FAIL  settings: BRIDGE_ANSWERS: there is no such setting; write BRIDGE_ANSWER if that is meant, or remove it"
    )


async def test_a_check_for_programs(rig: Rig, tmp_path: Path) -> None:
    # On the embedded Redis, whose start and end are no output.
    env = rig.environment(slack_bot_token="xoxb-wrong", redis_url="", bridge_data_dir=tmp_path / "data")
    result = await run("check", "--json", env=env)
    assert (result.code, result.err) == (1, "")
    found = json.loads(result.out)
    assert {one["name"]: one["ok"] for one in found} == {
        "settings": True,
        "Slack bot token": False,
        "Slack scopes": None,
        "Slack channels": True,
        "Slack app token": True,
        "Slack clock": True,
        "Kapa": True,
        "Kapa integration": True,
        "Redis": True,
    }
    assert all(one["text"] for one in found)
    assert "xoxb-wrong" not in result.out


# Running


async def test_a_bridge_runs_until_it_is_told_to_stop(rig: Rig) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        async with command("run", env=rig.environment()) as process:
            ready = await logged(process, "bridge_ready")
            assert ready["admin"] > 0
            code, err = await stop(process, number)
        assert code == 0
        assert [json.loads(line)["event"] for line in err.splitlines()][-1] == "bridge_stopped"


async def test_a_bridge_stops_in_order_when_its_terminal_is_closed(rig: Rig) -> None:
    async with command("run", env=rig.environment()) as process:
        await logged(process, "bridge_ready")
        code, err = await stop(process, signal.SIGHUP)
    assert code == 0
    assert [json.loads(line)["event"] for line in err.splitlines()][-1] == "bridge_stopped"


async def test_a_bridge_that_should_outlive_its_terminal_does(rig: Rig) -> None:
    # As nohup does it.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with command("run", env=rig.environment()) as process:
            await logged(process, "bridge_ready")
            rig.slack.delivery = "socket"
            await rig.slack.wait_for(lambda: rig.slack.sockets > 0, PATIENCE)
            process.send_signal(signal.SIGHUP)
            # A process that was ended by the signal would not take a question in.
            await rig.ask("U0ADA", "C0GENERAL", "How does the bridge keep its order?")
            code, _ = await stop(process)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert code == 0


async def test_a_name_that_is_no_setting_is_told_and_keeps_nothing_from_running(rig: Rig) -> None:
    await asyncio.to_thread(Path(".env").write_text, "KAPA_PROJECT=x\n", encoding="utf-8")
    env = {**rig.environment(), "BRIDGE_ANSWERS": "mention", "BRIDGE_XYZZY": "secret words"}
    async with command("run", env=env) as process:
        found = [await logged(process, "setting_unknown") for _ in range(3)]
        await logged(process, "bridge_ready")
        code, err = await stop(process)
    assert [(line["setting"], line["nearest"]) for line in found] == [
        ("BRIDGE_ANSWERS", "BRIDGE_ANSWER"),
        ("BRIDGE_XYZZY", None),
        ("KAPA_PROJECT", "KAPA_PROJECT_ID"),
    ]
    assert (code, "secret words" in err or "secret words" in str(found)) == (0, False)


async def test_told_to_stop_before_slack_answers(rig: Rig) -> None:
    rig.slack.fault("auth.test", "500", times=1_000)
    async with command("run", env=rig.environment()) as process:
        await logged(process, "slack_not_reached")
        code, err = await stop(process)
    assert (code, "Traceback" in err) == (0, False)


@pytest.mark.parametrize(("setting", "token"), [("SLACK_BOT_TOKEN", "xoxb-wrong"), ("SLACK_APP_TOKEN", "xapp-wrong")])
@pytest.mark.parametrize("role", ["all", "ingress"])
async def test_a_wrong_token_ends_the_bridge_with_a_sentence(rig: Rig, setting: str, token: str, role: str) -> None:
    result = await run("run", "--role", role, env={**rig.environment(bridge_log_level="error"), setting: token})
    assert result.code == 1
    [problem] = result.problems
    assert problem.startswith(f"{setting}: Slack refuses it (invalid_auth); it should be ")
    assert token not in result.err


@pytest.mark.parametrize("names", ["BRIDGE_ADMIN_HOST, BRIDGE_ADMIN_PORT", "BRIDGE_HOST, BRIDGE_PORT"])
async def test_a_taken_port_ends_the_bridge_with_a_sentence(rig: Rig, names: str) -> None:
    env = rig.environment(
        slack_signing_secret=rig.slack.signing_secret, bridge_transport="http", bridge_log_level="error"
    )
    with taken_port() as port:
        result = await run("run", env={**env, names.split(", ")[1]: str(port)})
    assert result.code == 1
    [problem] = result.problems
    assert problem.startswith(f"{names}: cannot listen on 127.0.0.1:{port} (")


async def test_a_host_that_is_none_ends_the_bridge_with_a_sentence(rig: Rig) -> None:
    result = await run("run", env=rig.environment(bridge_log_level="error", bridge_admin_host="nowhere.invalid"))
    assert result.code == 1
    [problem] = result.problems
    assert problem.startswith("BRIDGE_ADMIN_HOST, BRIDGE_ADMIN_PORT: cannot listen on nowhere.invalid:0 (")
    assert "Unknown error" not in problem


async def test_what_keeps_ingress_from_starting_is_no_fault_of_the_workers(rig: Rig) -> None:
    with taken_port() as port, pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port} "):
        async with rig.bridge(http=True, bridge_port=port):
            pytest.fail("it started")


@pytest.mark.parametrize("arguments", [("run",), ("dead-letters", "list")], ids=" ".join)
@pytest.mark.parametrize("url", ["unix:///there/is/none.sock", "redis://:hunter2@127.0.0.1:1"])
async def test_a_redis_that_is_not_there_ends_a_command_with_a_sentence(arguments: tuple[str, ...], url: str) -> None:
    result = await run(*arguments, env={**COMPLETE, "REDIS_URL": url, "BRIDGE_LOG_LEVEL": "error"})
    assert (result.code, result.out) == (1, "")
    [problem] = result.problems
    assert "Redis cannot be used: " in problem
    assert "hunter2" not in problem


async def test_a_redis_that_will_not_do_ends_the_bridge_with_a_sentence(rig: Rig, redis: Redis) -> None:
    await redis.replicaof("127.0.0.1", 1)
    result = await run("run", env=rig.environment())
    await redis.replicaof("NO", "ONE")
    assert result.code == 1
    assert result.problems == ["REDIS_URL: this Redis is a read-only replica; the bridge needs the primary"]


async def test_a_second_bridge_on_a_folder_ends_with_a_sentence(rig: Rig, tmp_path: Path) -> None:
    env = rig.environment(redis_url="", bridge_data_dir=tmp_path / "data")
    async with command("run", env=env) as process:
        await logged(process, "bridge_ready")
        result = await run("run", env=env)
        assert result.code == 1
        [problem] = result.problems
        assert problem.startswith(f"Another bridge (process {process.pid}) is running on the folder ")
        assert (await stop(process))[0] == 0


async def test_a_folder_that_cannot_be_used_ends_the_bridge_with_a_sentence() -> None:
    result = await run("run", env={**COMPLETE, "BRIDGE_DATA_DIR": f"{__file__}/data"})
    assert result.code == 1
    [problem] = result.problems
    assert "set BRIDGE_DATA_DIR" in problem


# Faults

FAULTY = """
import asyncio, sys
from bridge import app, cli

async def fail(*arguments, **options):
    async with asyncio.TaskGroup() as group:
        group.create_task(broken())

async def broken():
    raise {error}

def load(*arguments, **options):
    raise {error}

{place} = {instead}
sys.argv = ["bridge", "run"]
cli.main()
"""


async def faulty(error: str, level: str, place: str = "app.run", instead: str = "fail") -> Result:
    """Run a bridge that raises `error`: out of a group of tasks while it runs, unless said otherwise."""
    async with asyncio.timeout(PATIENCE):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            FAULTY.format(error=error, place=place, instead=instead),
            env={"PATH": os.environ["PATH"], **COMPLETE, "BRIDGE_LOG_LEVEL": level, "BRIDGE_LOG_FORMAT": "json"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


@pytest.mark.parametrize(("place", "instead"), [("app.run", "fail"), ("cli.load", "load")])
async def test_an_unexpected_fault_is_one_sentence(place: str, instead: str) -> None:
    result = await faulty("KeyError('xoxb-1')", "info", place, instead)
    assert (result.code, result.out) == (1, "")
    [problem] = result.problems
    assert problem.startswith("The bridge ended by a fault of its own (KeyError)")
    assert "xoxb-1" not in problem


async def test_an_unexpected_fault_is_shown_whole_at_debug() -> None:
    result = await faulty("KeyError('xoxb-1')", "debug")
    assert (result.code, result.out) == (1, "")
    [*_, event, problem] = result.err.splitlines()
    assert "KeyError" in json.loads(event)["exception"]
    assert json.loads(event)["event"] == "unexpected_error"
    assert problem.startswith("The bridge ended by a fault of its own (KeyError)")
    assert "xoxb-1" not in result.err


@pytest.mark.parametrize("error", ["app.StartError('Why')", "OSError('Why')"])
async def test_a_known_fault_in_a_group_of_tasks_is_its_own_sentence(error: str) -> None:
    result = await faulty(error, "info")
    assert (result.code, result.err) == (1, "Why\n")


# Dead letters


async def give_up(redis: Redis) -> list[str]:
    """Let two questions and a vote become dead letters; give their ids."""
    questions, votes = Inbox(redis, Kind.QUESTION, worker="w"), Inbox(redis, Kind.VOTE, worker="w")
    await questions.open()
    await votes.open()
    for number in (1, 2):
        question = Question(Place("T1", "C1", f"{number}.1"), f"{number}.1", "U1", "How?", f"https://a/p{number}")
        await questions.put(Item(question.id, question.line, question.id, question.to_json()), seen=[])
    emoji = Emoji("T1", "C1", "9.1", "U1", "+1", is_on=True, at="9.2")
    await votes.put(Item("vote", emoji.line, emoji.at, emoji.to_json()), seen=[])
    for inbox, count in ((questions, 2), (votes, 1)):
        for ticket in await inbox.take(count, wait_seconds=0):
            await inbox.finish(ticket, dead_reason=f"gave up {ticket.item.id}")
    return [letter.id for letter in await DeadLetters(redis).read()]


async def test_dead_letters_are_listed_dropped_and_retried(redis: Redis, redis_url: str) -> None:
    env = {"REDIS_URL": redis_url}
    assert await run("dead-letters", "list", env=env) == Result(0, "There are no dead letters.\n", "")
    assert await run("dead-letters", "list", "--json", env=env) == Result(0, "[]\n", "")
    first, second, vote = await give_up(redis)
    listed = await run("dead-letters", "list", env=env)
    assert (listed.code, listed.err) == (0, "")
    assert [line.split()[0] for line in listed.out.splitlines()] == [first, second, vote]
    found = json.loads((await run("dead-letters", "list", "--json", env=env)).out)
    assert [(one["id"], one["kind"], one["reason"], one["link"]) for one in found] == [
        (first, "question", "gave up 1.1", "https://a/p1"),
        (second, "question", "gave up 2.1", "https://a/p2"),
        (vote, "vote", "gave up vote", "C1 9.1"),
    ]
    assert await run("dead-letters", "drop", first, env=env) == Result(0, "1 dropped\n", "")
    assert await run("dead-letters", "retry", second, env=env) == Result(0, "1 put back\n", "")
    assert await run("dead-letters", "retry", "--all", env=env) == Result(0, "1 put back\n", "")
    assert await DeadLetters(redis).read() == []
    taken = await Inbox(redis, Kind.QUESTION, worker="other").take(9, wait_seconds=0)
    assert [ticket.item.id for ticket in taken] == ["2.1"]


@pytest.mark.parametrize("entry", ["no JSON", "[]", '["a", "b", "no JSON"]', '["a", "b", "[]"]'])
async def test_a_dead_letter_that_cannot_be_read_is_listed_all_the_same(
    redis: Redis, redis_url: str, entry: str
) -> None:
    fields: Any = {"line": "T1:C1:1.1", "entry": entry, "kind": "vote", "reason": "it \x1b[2J\nsaid", "notes": "{}"}
    await redis.xadd(DEAD, fields)
    result = await run("dead-letters", "list", env={"REDIS_URL": redis_url})
    assert (result.code, result.err) == (0, "")
    [line] = result.out.splitlines()
    assert line.endswith("vote  it  [2J said  T1:C1:1.1")


@pytest.mark.parametrize("verb", ["retry", "drop"])
async def test_unknown_dead_letters_are_named(redis: Redis, redis_url: str, verb: str) -> None:
    first, *_ = await give_up(redis)
    unknown = ["1-0", "soon", "-", "+", "99999999999999999999-0"]
    result = await run("dead-letters", verb, "--", first, *unknown, env={"REDIS_URL": redis_url})
    assert result.code == 1
    assert result.out == f"1 {'dropped' if verb == 'drop' else 'put back'}\n"
    assert result.err == f"no such dead letter, or its question changed since: {', '.join(unknown)}\n"
    assert len(await DeadLetters(redis).read()) == 2


async def test_dead_letters_of_the_embedded_redis(rig: Rig, tmp_path: Path) -> None:
    env = rig.environment(redis_url="", bridge_data_dir=tmp_path / "data")
    # Beside a running bridge it uses the same Redis and leaves it running.
    async with command("run", env=env) as process:
        await logged(process, "bridge_ready")
        assert await run("dead-letters", "list", "--json", env=env) == Result(0, "[]\n", "")
        assert await run("dead-letters", "retry", "--all", env=env) == Result(0, "0 put back\n", "")
        code, err = await stop(process)
    assert (code, "redis_exited" in err) == (0, False)
    # Nobody runs any more: the command has the folder to itself.
    assert await run("dead-letters", "list", "--json", env=env) == Result(0, "[]\n", "")


@pytest.mark.parametrize("arguments", [("dead-letters", "list"), ("dead-letters", "drop", "1-0"), ("feedback",)])
@pytest.mark.parametrize("exists", [False, True])
def test_where_no_bridge_has_run_there_is_nothing_to_read(
    arguments: tuple[str, ...], exists: bool, tmp_path: Path
) -> None:
    if exists:
        (tmp_path / "data" / "redis").mkdir(parents=True)
    result = typed(*arguments, env={"BRIDGE_DATA_DIR": "data"})
    assert (result.code, result.out) == (1, "")
    assert result.problems == [
        f"no bridge has run in {tmp_path / 'data'}: go to its folder, or set BRIDGE_DATA_DIR or REDIS_URL"
    ]
    # No empty Redis is left behind.
    assert not (tmp_path / "data" / "redis.log").exists()


# The playground


async def test_the_playground_cares_for_no_settings_that_it_does_not_use() -> None:
    env = {"SLACK_BOT_TOKEN": "x", "REDIS_URL": "x", "KAPA_API_URL": "x", "SLACK_API_URL": "x"}
    with taken_port() as port:
        result = await run("playground", "--port", str(port), env=env)
    assert result.code == 1
    [problem] = result.problems
    assert problem.startswith(f"--port: cannot listen on port {port} (")


def test_the_playground_with_the_real_kapa_needs_its_settings() -> None:
    result = typed("playground", "--kapa", "real", env={"SLACK_BOT_TOKEN": "x", "KAPA_API_URL": "x"})
    assert result.code == 2
    assert [line.split(":")[0].removesuffix(" is not set") for line in result.problems] == [
        "KAPA_API_KEY",
        "KAPA_API_URL",
        "KAPA_INTEGRATION_ID",
        "KAPA_PROJECT_ID",
    ]
