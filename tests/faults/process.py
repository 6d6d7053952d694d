"""The worker of a cell: the real bridge in a real process, forked from a server that has the modules loaded already.

It is hurried, so that its waits and timeouts are short, and can be broken on purpose: `VARIANTS`.
"""

import asyncio
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

import aiohttp

from bridge import app, circuit_breaker, display, inbox_scripts, log, policy, redis_client, status, worker
from bridge.answer import Answering
from bridge.circuit_breaker import Verdict
from bridge.display import Display
from bridge.kapa.client import KapaClient
from bridge.settings import Role, load
from bridge.slack import chat
from bridge.store import Store
from bridge.work import Lease

LEASE_SECONDS: Final = 0.5
# Long enough for a busy machine; a call that fails for it is a failed call, and counted as one.
CALL_SECONDS: Final = 0.8
# Kapa stands still while a scenario waits for other calls.
KAPA_SECONDS: Final = 2.0
PRELOADED: Final = ["bridge.app", "bridge.log", "uvloop", "hiredis", "pytest"]


class WorkerProcess:
    """One running worker process."""

    def __init__(self, values: Mapping[str, str], log_file: Path, variant: str) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._process: ForkServerProcess = context.Process(
            target=main, args=(dict(values), str(log_file), variant), daemon=True
        )
        self._process.start()

    @property
    def is_alive(self) -> bool:
        """Say whether the process has not ended."""
        return self._process.is_alive()

    def signal(self, number: int) -> None:
        """Send a signal; at once."""
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, number)

    async def ended(self, within: float = 20) -> bool:
        """Wait for the process' end; False: it did not come."""
        await asyncio.to_thread(self._process.join, within)
        return not self._process.is_alive()


def main(values: Mapping[str, str], log_file: str, variant: str) -> None:
    """Run a worker until SIGTERM, or until the process that started it is gone."""
    hurry()
    VARIANTS[variant]()
    with Path(log_file).open("a", encoding="utf-8") as stream:
        log.configure("json", "info", stream=stream)
        asyncio.run(_work(values))


async def _work(values: Mapping[str, str]) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop.add_reader(parent.sentinel, stop.set)
    # The shortest lease that the settings take is longer than a cell should last.
    settings = load(overrides=values).model_copy(update={"bridge_lease_seconds": LEASE_SECONDS})
    await app.run(settings, Role.WORKER, stop)


def hurry() -> None:
    """Shorten what real people and networks need: waits before retries, looks, and timeouts."""
    patches: list[tuple[Any, str, Any]] = [
        (policy, "QUESTION_WAITS", (0.01, 0.01)),
        (policy, "PATIENT_WAITS", (0.01,)),
        (policy, "LOOK_WAITS", (0.02,)),
        (policy, "APART_SECONDS", 0.01),
        (circuit_breaker, "COOL_DOWN_SECONDS", 0.02),
        (circuit_breaker, "LONGEST_COOL_DOWN_SECONDS", 0.02),
        (circuit_breaker, "PROBE_WAIT_SECONDS", 0.02),
        (chat, "PAUSE_SECONDS", 0.1),
        (worker, "UPKEEP_SECONDS", 0.1),
        (worker, "TAKE_SECONDS", 0.15),
        (worker, "REDIS_AWAY_SECONDS", 0.05),
        (status, "STATUS_AFTER_SECONDS", 0.0),
        # One draft an answer, so that a scenario makes the same calls each time.
        (display, "DRAFT_SECONDS", 0.5),
        (redis_client, "SILENCE_SECONDS", CALL_SECONDS),
        (app, "SLACK_TIMEOUT", aiohttp.ClientTimeout(total=CALL_SECONDS)),
        (app, "KapaClient", partial(KapaClient, read_timeout=KAPA_SECONDS, answer_timeout=KAPA_SECONDS)),
    ]
    for owner, name, value in patches:
        replace(owner, name, value)


def replace(owner: Any, name: str, value: Any) -> None:
    """Replace what is there; raises AttributeError where nothing is."""
    getattr(owner, name)
    setattr(owner, name, value)


# Broken on purpose


def _never_look() -> None:
    async def look(self: Display) -> bool:
        self._must_look = False
        return False

    replace(Display, "_look", look)


def _ignore_leases() -> None:
    async def confirm(self: Lease) -> None:
        await asyncio.sleep(0)

    replace(Lease, "confirm", confirm)
    check = re.compile(r"(local function owns\(.*?\)\n).*?\nend\n", re.DOTALL)
    scripts = {name: text for name, text in vars(inbox_scripts).items() if isinstance(text, str) and check.search(text)}
    if not scripts:
        raise LookupError("no script checks who owns a ticket")
    for name, text in scripts.items():
        replace(inbox_scripts, name, check.sub(r"\1  return true\nend\n", text))


def _forget_the_answer() -> None:
    async def remembered(self: Answering, turn: object, answer: object, verdict: Verdict) -> object:
        await verdict.good()
        return answer

    replace(Answering, "_remembered", remembered)


def _forget_the_messages() -> None:
    replace(Store, "parts", lambda self, place, messages, question_answer_id: [])


VARIANTS: Final[Mapping[str, Callable[[], None]]] = {
    "whole": lambda: None,
    "no look-up before posting again": _never_look,
    "no lease check": _ignore_leases,
    "the answer is not stored before it is shown": _forget_the_answer,
    "what is shown is not remembered": _forget_the_messages,
}
