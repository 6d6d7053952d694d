"""Starts the playground: a simulated Slack and Kapa, the page, and the real bridge as a process of its own.

What they simulate lives in `slack` and `kapa`; the bridge does not know that it is in a playground.
"""

import asyncio
import ctypes
import os
import re
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog
import typer
from pydantic import SecretStr

from bridge.app import StartError
from bridge.playground.kapa import Pace, SimulatedKapa
from bridge.playground.knowledge import Knowledge
from bridge.playground.slack import SimulatedSlack
from bridge.playground.slack_page import Page
from bridge.settings import Settings

STOP_SECONDS = 40.0
START_SECONDS = 3600.0
# Slow enough to see an answer grow, and faster than the real Kapa.
PACE = Pace(first_text=0.8, between_pieces=0.04)

log = structlog.get_logger()


async def run(settings: Settings, port: int, stop: asyncio.Event, *, is_kapa_real: bool = False) -> None:
    """Run the playground with its page on `port` until `stop` is set; raises StartError."""
    data_dir = settings.bridge_data_dir.resolve() / "playground"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"BRIDGE_DATA_DIR: {data_dir} cannot be made ({error.strerror})") from None
    async with AsyncExitStack() as stack:
        slack = await stack.enter_async_context(SimulatedSlack().serve())
        environment = slack_environment(slack)
        if is_kapa_real:
            environment |= kapa_environment(settings)
        else:
            kapa = await stack.enter_async_context(SimulatedKapa(Knowledge.of_project(), pace=PACE).serve())
            environment |= simulated_kapa_environment(kapa)
        page = await _serve_page(stack, slack, port)
        environment |= _passed_on(settings) | {"BRIDGE_DATA_DIR": str(data_dir), "BRIDGE_ADMIN_PORT": "0"}
        bridge = await stack.enter_async_context(bridge_process(environment, data_dir))
        greeting = asyncio.create_task(_greet(slack, page))
        stack.callback(greeting.cancel)
        await _ended(stop, bridge)


async def _greet(slack: SimulatedSlack, page: str) -> None:
    await slack.wait_for(lambda: slack.sockets > 0, START_SECONDS)
    typer.echo(f"\nThe playground is at {page}  (Ctrl-C ends it)\n")


async def _serve_page(stack: AsyncExitStack, slack: SimulatedSlack, port: int) -> str:
    try:
        page = await stack.enter_async_context(Page(slack).serve(port=port))
    except OSError as error:
        raise StartError(
            f"--port: cannot listen on port {port} ({os.strerror(error.errno or 0)}); give another"
        ) from None
    return page.url


async def _ended(stop: asyncio.Event, bridge: Process) -> None:
    ended = asyncio.create_task(bridge.wait())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
    for task in (ended, stopped):
        task.cancel()
    if not stop.is_set():
        raise StartError("the bridge in the playground ended by itself; what it said stands above")


def slack_environment(slack: SimulatedSlack) -> dict[str, str]:
    """Give the settings with which a bridge talks to a simulated Slack, over Socket Mode."""
    return {
        "SLACK_BOT_TOKEN": slack.bot_token,
        "SLACK_APP_TOKEN": slack.app_token,
        "SLACK_API_URL": slack.api_url,
    }


def simulated_kapa_environment(kapa: SimulatedKapa) -> dict[str, str]:
    """Give the settings with which a bridge talks to a simulated Kapa."""
    return {
        "KAPA_API_KEY": kapa.api_key,
        "KAPA_PROJECT_ID": kapa.project_id,
        "KAPA_INTEGRATION_ID": kapa.integration_id,
        "KAPA_API_URL": kapa.api_url,
    }


def kapa_environment(settings: Settings) -> dict[str, str]:
    """Give the settings with which a bridge talks to the real Kapa."""
    return _as_environment(settings, [name for name in type(settings).model_fields if name.startswith("kapa_")])


def _passed_on(settings: Settings) -> dict[str, str]:
    """Give what the operator set of the bridge's own settings; addresses and folders are the playground's."""
    own = re.compile("bridge_(data_dir|transport|(admin_)?(host|port))")
    names = [name for name in settings.model_fields_set if name.startswith("bridge_") and not own.fullmatch(name)]
    return _as_environment(settings, names)


def _as_environment(settings: Settings, names: list[str]) -> dict[str, str]:
    return {name.upper(): _text(getattr(settings, name)) for name in names}


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value.resolve()) if isinstance(value, Path) else str(value)


def _told_to_stop_with_its_starter() -> Callable[[], object] | None:
    """Let a child get SIGTERM when its starter is killed, where the kernel offers that (prctl(2), PR_SET_PDEATHSIG)."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(1, signal.SIGTERM)


@asynccontextmanager
async def bridge_process(environment: Mapping[str, str], folder: Path, *arguments: str) -> AsyncIterator[Process]:
    """Run a bridge as a process with exactly these settings; at the end it is told to stop and waited for.

    It runs in `folder`, where no `.env` adds settings of its own.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bridge",
        "run",
        *arguments,
        cwd=folder,
        env={**kept, **environment},
        start_new_session=True,
        preexec_fn=_told_to_stop_with_its_starter(),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
