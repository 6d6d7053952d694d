"""The `bridge` command: reads what the operator typed, runs it, and says in plain words what went wrong.

Exit status: 0 done, 1 it could not be done, 2 bad input or bad settings.
"""

import asyncio
import gc
import json
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Annotated, Any, Final, NoReturn, TypeVar
from urllib.parse import urlsplit

import structlog
import typer
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge import __version__, app, journal, log, messages, redis_client
from bridge.app import StartError
from bridge.check import Finding
from bridge.check import run as run_checks
from bridge.dead_letters import DeadLetter, DeadLetters
from bridge.embedded_redis import EmbeddedRedisError
from bridge.settings import SECRETS, Role, Settings, SettingsError, load, unknown
from bridge.slack.http import PATH
from bridge.slack.manifest import manifest as build_manifest

cli = typer.Typer(
    name="bridge",
    help="The bridge between Slack and Kapa.ai.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
dead_letters = typer.Typer(
    help="What the bridge gave up on: list it, try it again, or drop it.", no_args_is_help=True, rich_markup_mode=None
)
cli.add_typer(dead_letters, name="dead-letters")

# Most of what an answer needs is gone again before so many more objects were made.
COLLECTIONS: Final = (20_000, 20, 50)

T = TypeVar("T")
MARKS: Final = {True: "ok  ", False: "FAIL", None: "--  "}
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the command line."""
    # Until the settings say more: what is logged is no output of a command.
    log.configure("auto", "warning")
    try:
        cli()
    except Exception as error:  # noqa: BLE001 - whatever it is, the operator gets a sentence
        structlog.get_logger().debug("unexpected_error", exc_info=True)
        typer.echo(
            f"The bridge ended by a fault of its own ({type(_cause(error)).__name__}): start it again, and set "
            "BRIDGE_LOG_LEVEL=debug to see where it comes from.",
            err=True,
        )
        raise SystemExit(1) from None


def _cause(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


@cli.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@cli.command()
def run(
    role: Annotated[Role, typer.Option(help="ingress takes events in, worker answers, all does both.")] = Role.ALL,
) -> None:
    """Run the bridge until it is told to stop (SIGTERM or Ctrl-C)."""
    names, any_of = app.required(role)
    settings = _settings(names, any_of)
    _configure_log(settings)
    for name, nearest in unknown().items():
        structlog.get_logger().warning("setting_unknown", setting=name, nearest=nearest)
    _until_stopped(lambda stop: app.run(settings, role, stop, on_ready=_spare_the_collector))


def _spare_the_collector(_: app.Bridge) -> None:
    """Leave what was loaded out of garbage collection for good, and collect the rest less often.

    Source: https://docs.python.org/3/library/gc.html.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTIONS)


@cli.command()
def check(
    role: Annotated[Role, typer.Option(help="Check what this role of `bridge run` needs.")] = Role.ALL,
    as_json: AsJson = False,
) -> None:
    """Check the settings, and everything that they name."""
    names, any_of = app.required(role)
    settings = _settings(names, any_of)
    _configure_log(settings, level="error")
    findings = _attempt(_collect(run_checks(settings, role, unknown())))
    if as_json:
        typer.echo(json.dumps([{"name": one.name, "ok": one.ok, "text": one.text} for one in findings], indent=2))
    else:
        for one in findings:
            typer.echo(f"{MARKS[one.ok]}  {one.name}: {_printable(one.text)}")
    raise typer.Exit(int(any(one.problem for one in findings)))


async def _collect(findings: AsyncIterator[Finding]) -> list[Finding]:
    return [finding async for finding in findings]


@cli.command()
def manifest(
    url: Annotated[str, typer.Option(help=f"The address that Slack reaches {PATH} at; without it: Socket Mode.")] = "",
) -> None:
    """Print the manifest that creates the Slack app."""
    if url and not _is_address(url):
        _refuse("--url: it should be an https address, such as https://bridge.example.com")
    address = url.rstrip("/").removesuffix(PATH) + PATH if url else None
    typer.echo(json.dumps(build_manifest(address), indent=2))


def _is_address(url: str) -> bool:
    try:
        return bool(re.fullmatch(r"https://[^\s/?#@]+(/[^\s?#]*)?", url)) and urlsplit(url).port != 0
    except ValueError:  # a port that is none
        return False


@cli.command()
def playground(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port of the page.")] = 8080,
    kapa: Annotated[str, typer.Option(help="simulated, or real with the KAPA_ settings.")] = "simulated",
) -> None:
    """Try the whole bridge in a browser, with a simulated Slack and Kapa and no account anywhere."""
    from bridge.playground.run import run as run_playground  # noqa: PLC0415 - only this command needs it

    problems = [] if kapa in {"simulated", "real"} else ["--kapa: it should be simulated or real"]
    names = ("kapa_api_key", "kapa_project_id", "kapa_integration_id") if kapa == "real" else ()
    settings = _settings(names, unused="slack_|redis_" if names else "slack_|redis_|kapa_", problems=problems)
    _configure_log(settings, level="warning")
    _until_stopped(lambda stop: run_playground(settings, port, stop, is_kapa_real=kapa == "real"))


@cli.command()
def feedback(
    since: Annotated[str, typer.Option(help="How far back: a number and m, h, d or w.")] = "7d",
    as_json: AsJson = False,
    chart: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a chart into this .svg file.")] = None,
) -> None:
    """Say what people asked, and what they thought of the answers."""
    from bridge import report  # noqa: PLC0415 - only this command draws

    problems, span = [], 0.0
    try:
        span = report.seconds(since)
    except ValueError as error:
        problems.append(f"--since: {error}")
    if chart is not None and chart.suffix != ".svg":
        problems.append("--chart: the file's name should end in .svg")
    entries = _attempt(_with_redis(lambda redis: journal.read(redis, time() - span), problems))
    summary = report.summarise(entries)
    typer.echo(json.dumps(summary.as_dict(), indent=2) if as_json else report.table(summary, since))
    if chart is not None:
        try:
            chart.write_bytes(report.chart(entries))
        except OSError as error:
            _fail(f"--chart: {chart} cannot be written ({error.strerror})")


@dead_letters.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the dead letters, oldest first."""
    letters = _attempt(_with_dead_letters(lambda letters: letters.read()))
    if as_json:
        typer.echo(json.dumps([_as_dict(letter) for letter in letters], indent=2))
        return
    for letter in letters:
        fields = _as_dict(letter)
        typer.echo("  ".join(_printable(fields[name]) for name in ("id", "at", "kind", "reason", "link")))
    if not letters:
        typer.echo("There are no dead letters.")


def _as_dict(letter: DeadLetter) -> dict[str, str]:
    at = datetime.fromtimestamp(letter.at / 1000, UTC).isoformat(timespec="seconds")
    return {"id": letter.id, "at": at, "kind": letter.kind, "reason": letter.reason, "link": _link(letter)}


def _link(letter: DeadLetter) -> str:
    """Give the permalink of what was given up; of what this version cannot read, its line."""
    try:
        payload = json.loads(letter.item.payload)
        return str(payload.get("origin_url") or f"{payload.get('channel')} {payload.get('message')}")
    except (ValueError, AttributeError):
        return letter.item.line


def _printable(text: str) -> str:
    """Leave out what would move a terminal's cursor: a reason may quote what others wrote."""
    return "".join(character if character.isprintable() else " " for character in text)


Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids as `list` prints them.")]


@dead_letters.command()
def retry(ids: Ids = None, all_: Annotated[bool, typer.Option("--all", help="All of them.")] = False) -> None:
    """Put dead letters back, to be tried again."""
    problems = ["name the dead letters to retry, or --all"] if bool(ids) == all_ else []
    _report("put back", ids, _attempt(_with_dead_letters(lambda letters: _retry(letters, ids), problems)))


async def _retry(letters: DeadLetters, ids: list[str] | None) -> list[str]:
    return await letters.retry(ids or [letter.id for letter in await letters.read()])


@dead_letters.command()
def drop(ids: Ids = None) -> None:
    """Drop dead letters for good."""
    problems = [] if ids else ["name the dead letters to drop"]
    _report("dropped", ids, _attempt(_with_dead_letters(lambda letters: letters.drop(ids or []), problems)))


def _report(verb: str, asked: Sequence[str] | None, done: Sequence[str]) -> None:
    typer.echo(f"{len(done)} {verb}")
    unknown = [id_ for id_ in asked or [] if id_ not in done]
    if unknown:
        typer.echo(f"no such dead letter, or its question changed since: {', '.join(unknown)}", err=True)
        raise typer.Exit(1)


def _with_dead_letters(
    use: Callable[[DeadLetters], Awaitable[T]], problems: Sequence[str] = ()
) -> Coroutine[Any, Any, T]:
    return _with_redis(lambda redis: use(DeadLetters(redis)), problems)


def _with_redis(use: Callable[[Redis], Awaitable[T]], problems: Sequence[str] = ()) -> Coroutine[Any, Any, T]:
    settings = _settings(unused="slack_|kapa_|bridge_(?!data_dir|log_)", problems=problems)
    _configure_log(settings, level="warning")

    if not settings.redis_url and _is_empty(settings.bridge_data_dir / "redis"):
        folder = settings.bridge_data_dir.absolute()
        _fail(f"no bridge has run in {folder}: go to its folder, or set BRIDGE_DATA_DIR or REDIS_URL")

    async def work() -> T:
        async with app.open_redis(settings, attach=True) as redis:
            return await use(redis)

    return work()


def _is_empty(folder: Path) -> bool:
    """Tell whether there is no such folder, or nothing in it; one that cannot be read may hold something."""
    try:
        return not any(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def _settings(
    names: Sequence[str] = (), any_of: Sequence[str] = (), unused: str = "", problems: Sequence[str] = ()
) -> Settings:
    """Read the settings; `problems` of the command's own options are told along with theirs."""
    try:
        settings = load(names, any_of=any_of, unused=unused, more=_unusable)
    except SettingsError as error:
        _refuse(*problems, *error.problems)
    if problems:
        _refuse(*problems)
    return settings


def _unusable(settings: Settings) -> Iterator[str]:
    """Say what is wrong with settings that only those who use them can tell."""
    try:
        messages.load(settings.bridge_messages)
    except messages.MessagesError as error:
        yield from error.problems
    try:
        if settings.redis_url:
            redis_client.validate(app.secret(settings.redis_url))
    except ValueError as error:
        yield f"REDIS_URL: {app.brief(error).rstrip('.')}; see docs/operations.md, Addresses"


def _refuse(*problems: str) -> NoReturn:
    for problem in problems:
        typer.echo(problem, err=True)
    raise typer.Exit(2)


def _fail(*sentences: str) -> NoReturn:
    for sentence in sentences:
        typer.echo(sentence, err=True)
    raise typer.Exit(1)


def _attempt(work: Coroutine[Any, Any, T]) -> T:
    """Run something to its end, and say in a sentence what kept it from getting there."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(work)
    except Exception as error:  # what nobody expected goes on to `main`
        match _cause(error):
            case messages.MessagesError(problems=problems):
                _refuse(*problems)
            case StartError() | EmbeddedRedisError() | OSError() as known:
                _fail(str(known))
            case RedisError() as known:
                _fail(f"Redis cannot be used: {app.brief(known)}")
        raise


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Give uvloop's loop where it runs; None: asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415 - it has no build for every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


def _until_stopped(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run something that stops when its event is set: by SIGTERM, Ctrl-C or the terminal's end."""

    async def supervised() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # What was started with nohup outlives its terminal.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, stop.set)
        await work(stop)

    _attempt(supervised())


def _configure_log(settings: Settings, level: str | None = None) -> None:
    """Set logging up as the settings say, at `level` where they do not ask for everything."""
    secrets = [app.secret(getattr(settings, name)) for name in SECRETS]
    if level is None or settings.bridge_log_level == "debug":
        level = settings.bridge_log_level
    log.configure(settings.bridge_log_format, level, secrets=secrets)
