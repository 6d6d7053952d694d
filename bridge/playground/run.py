"""Starts the playground: a simulated Slack and Kapa, the page, and the real bridge as processes of its own.

What they simulate lives in `slack` and `kapa`; the bridge does not know that it is in a playground. It runs as an
ingress and a worker, so that a worker can be killed while the ingress listens, on a Redis that is the playground's.
"""

import asyncio
import os
import re
from asyncio.subprocess import Process
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import typer
from pydantic import SecretStr

from bridge.app import StartError
from bridge.playground.bonnet import Bonnet
from bridge.playground.kapa import Pace, SimulatedKapa
from bridge.playground.knowledge import Knowledge
from bridge.playground.processes import Worker, bridge_process
from bridge.playground.redis_house import RedisHouse
from bridge.playground.redis_watch import RedisWatch
from bridge.playground.serving import end
from bridge.playground.slack import SimulatedSlack
from bridge.playground.slack_page import Page
from bridge.playground.weather import Weather
from bridge.settings import Settings

__all__ = ["bridge_process", "kapa_environment", "run", "simulated_kapa_environment", "slack_environment"]

START_SECONDS = 3600.0
# Slow enough to see an answer grow, and faster than the real Kapa.
PACE = Pace(first_text=0.8, between_pieces=0.04)
# Who kills a worker here waits for the next one to take its work over.
LEASE_SECONDS = "3"


async def run(settings: Settings, port: int, stop: asyncio.Event, *, is_kapa_real: bool = False) -> None:
    """Run the playground with its page on `port` until `stop` is set; raises StartError, EmbeddedRedisError."""
    folder = _folder(settings)
    async with AsyncExitStack() as stack:
        slack = await stack.enter_async_context(SimulatedSlack().serve())
        kapa = None
        if not is_kapa_real:
            kapa = await stack.enter_async_context(SimulatedKapa(Knowledge.of_project(), pace=PACE).serve())
        house = RedisHouse(folder)
        environment = _environment(settings, slack, kapa) | {"REDIS_URL": house.url}
        worker = Worker(partial(bridge_process, environment, folder, "--role", "worker"), house.has_worker)
        weather = Weather(slack, kapa, {"kill_worker": worker.kill, "redis_away": house.stand_still})
        watch = RedisWatch(house.client, concurrency=settings.bridge_worker_concurrency)
        bonnet = Bonnet(slack, kapa, watch, house.client)
        page = await _serve_page(stack, Page(slack, weather=weather, look=bonnet.look, is_kapa_real=is_kapa_real), port)
        await stack.enter_async_context(house.opened())
        working = await stack.enter_async_context(worker.kept())
        ingress = await stack.enter_async_context(bridge_process(environment, folder, "--role", "ingress"))
        await stack.enter_async_context(watch.watching())
        stack.push_async_callback(weather.close)
        greeting = asyncio.create_task(_greet(slack, worker, page))
        stack.push_async_callback(end, greeting)
        await _ended(stop, ingress, working)


def _folder(settings: Settings) -> Path:
    folder = settings.bridge_data_dir.resolve() / "playground"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"BRIDGE_DATA_DIR: {folder} cannot be made ({error.strerror})") from None
    return folder


async def _greet(slack: SimulatedSlack, worker: Worker, page: str) -> None:
    await slack.wait_for(lambda: slack.sockets > 0, START_SECONDS)
    await worker.at_work()
    typer.echo(f"\nThe playground is at {page}  (Ctrl-C ends it)\n")


async def _serve_page(stack: AsyncExitStack, page: Page, port: int) -> str:
    try:
        await stack.enter_async_context(page.serve(port=port))
    except OSError as error:
        raise StartError(
            f"--port: cannot listen on port {port} ({os.strerror(error.errno or 0)}); give another"
        ) from None
    return page.url


async def _ended(stop: asyncio.Event, ingress: Process, working: asyncio.Task[None]) -> None:
    """Wait until the playground is told to stop; raises StartError where a part of the bridge ended by itself."""
    waits = [asyncio.create_task(ingress.wait()), asyncio.create_task(stop.wait())]
    await asyncio.wait([*waits, working], return_when=asyncio.FIRST_COMPLETED)
    for task in waits:
        task.cancel()
    if not stop.is_set():
        raise StartError("the bridge in the playground ended by itself; what it said stands above")


def _environment(settings: Settings, slack: SimulatedSlack, kapa: SimulatedKapa | None) -> dict[str, str]:
    """Give all settings of the bridge but its Redis."""
    to_kapa = kapa_environment(settings) if kapa is None else simulated_kapa_environment(kapa)
    own = {"BRIDGE_LEASE_SECONDS": LEASE_SECONDS, "BRIDGE_ADMIN_PORT": "0"}
    return slack_environment(slack) | to_kapa | own | _passed_on(settings)


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
