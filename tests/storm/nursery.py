"""Starts bridges quickly: a process that has imported the bridge once, and forks for each one it is told to run.

`python -m tests.storm.nursery` reads a JSON object a line: `{"run": [argument…], "id": …, "env": {…}, "folder": …,
"log": …, "breakage": …}` or `{"signal": …, "id": …}`; it writes `{"id": …, "pid": …}` for each start and
`{"id": …, "exit": …}` for each end (below 0: a signal's number). When its input ends, it kills its children and ends.
"""

import asyncio
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import structlog

from bridge import app, cli, policy, worker
from bridge.slack.app import Intake

POLL_SECONDS: Final = 0.01
# What waits for real people and real services is short in a storm; Slack's limits have tests of their own.
HASTE: Final[tuple[tuple[Any, str, object], ...]] = (
    (policy, "QUESTION_WAITS", (0.2, 0.4, 0.8, 1.5)),
    (policy, "PATIENT_WAITS", (0.2, 0.4, 0.8)),
    (policy, "LOOK_WAITS", (0.3, 0.6)),
    (policy, "APART_SECONDS", 0.5),
    (worker, "UPKEEP_SECONDS", 0.2),
    (app, "SLACK_TIMEOUT", aiohttp.ClientTimeout(total=1.5)),
    (app, "EDITS_PER_MINUTE", 100_000),
)


def acknowledge_before_the_write() -> None:
    """Break the ingress: Slack gets its 200 at once, and the question is written some time after."""
    take_in, begun = Intake.take_in, set()

    async def careless(intake: Intake, body: Mapping[str, Any]) -> None:
        async def write() -> None:
            try:
                await take_in(intake, body)
            except Exception as error:  # noqa: BLE001 - that nobody hears of it is what is broken
                structlog.get_logger().warning("event_lost", error=type(error).__name__)

        task = asyncio.create_task(write())
        begun.add(task)
        task.add_done_callback(begun.discard)

    setattr(Intake, "take_in", careless)  # noqa: B010 - a method is not assigned to but where one breaks it on purpose


BREAKAGES: Final = {
    "acknowledgement before the write": acknowledge_before_the_write,
}


class Nursery:
    """The children by the id that whoever asked gave them."""

    def __init__(self) -> None:
        self._pids: dict[str, int] = {}

    def serve(self) -> None:
        """Do what is asked until the input ends."""
        pending = b""
        try:
            while True:
                if select.select([0], [], [], POLL_SECONDS)[0]:
                    data = os.read(0, 1 << 16)
                    if not data:
                        return
                    *lines, pending = (pending + data).split(b"\n")
                    for line in lines:
                        self._obey(json.loads(line))
                self._reap()
        finally:
            for pid in self._pids.values():
                os.kill(pid, signal.SIGKILL)

    def _obey(self, order: dict[str, Any]) -> None:
        if "run" in order:
            if (pid := os.fork()) == 0:
                _live(order)
            self._pids[order["id"]] = pid
            _say(id=order["id"], pid=pid)
        elif order["id"] in self._pids:
            os.kill(self._pids[order["id"]], order["signal"])

    def _reap(self) -> None:
        for id_, pid in list(self._pids.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self._pids[id_]
                _say(id=id_, exit=os.waitstatus_to_exitcode(status))


def _say(**fields: Any) -> None:
    os.write(1, json.dumps(fields).encode() + b"\n")


def _live(order: dict[str, Any]) -> None:
    """Be a bridge, as the command line runs it; never returns."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["env"])
        for module, name, value in HASTE:
            setattr(module, name, value)
        if order.get("breakage"):
            BREAKAGES[order["breakage"]]()
        sys.argv = ["bridge", "run", *order["run"]]
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, a fork must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    Nursery().serve()
