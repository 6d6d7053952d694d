"""The weather of the playground: switches for what goes wrong in life, and what each of them does.

A switch is on until it is turned off; a `once` happens, and is on while it does. How a fault looks on the wire is the
simulated servers' business; killing a worker and stopping Redis is done by what this is given.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from bridge.playground.kapa import Pace, SimulatedKapa
from bridge.playground.serving import Fault, Json, end
from bridge.playground.slack import SimulatedSlack

SLOW = Pace(first_text=6.0, between_pieces=0.25)
# Seconds as Retry-After has them.
KAPA_PAUSE, SLACK_PAUSE = "5", "3"
_APART_SECONDS = 60.0
_POSTS = ("chat.postMessage", "chat.update", "chat.startStream", "chat.appendStream", "chat.stopStream")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Sort:
    label: str
    hint: str


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A fault that lasts, and the endpoints of a simulated server that show it."""

    fault: Fault | None = None
    endpoints: tuple[str, ...] = ()
    apart: float = 0.0


class UnknownWeatherError(Exception):
    """There is no switch of this name here."""


class Weather:
    """All switches of one playground. `kapa` is None where it is the real one, which has a weather of its own.

    `happenings` are what the switches `kill_worker` and `redis_away` do; each ends when it is over.
    """

    def __init__(
        self,
        slack: SimulatedSlack,
        kapa: SimulatedKapa | None = None,
        happenings: Mapping[str, Callable[[], Awaitable[None]]] | None = None,
    ) -> None:
        self._slack = slack
        self._kapa = kapa
        self._fair_pace = kapa.pace if kapa is not None else Pace()
        self._happenings = dict(happenings or {})
        self._on: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sorts = {name: sort for name, sort in _sorts().items() if self._is_here(name)}

    def _is_here(self, name: str) -> bool:
        if name.startswith("kapa_"):
            return self._kapa is not None
        return name.startswith("slack_") or name == "duplicate" or name in self._happenings

    def report(self) -> Json:
        """Give every switch: whether it is on, what it is called, what it does."""
        return {
            name: {
                "on": name in self._on,
                "label": sort.label,
                "hint": sort.hint,
                "kind": "once" if name in self._happenings else "switch",
            }
            for name, sort in self._sorts.items()
        }

    def turn(self, name: str, *, on: bool) -> None:
        """Turn a switch, or let something happen; raises UnknownWeatherError.

        What happens once cannot be turned off, and does not happen twice at a time.
        """
        if name not in self._sorts:
            raise UnknownWeatherError(name)
        if name not in self._happenings:
            self._set(name, on=on)
        elif on and name not in self._on:
            self._set(name, on=True)
            task = asyncio.create_task(self._happen(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End what happens, and turn everything off."""
        for task in list(self._tasks):
            await end(task)
        for name in list(self._on):
            self._set(name, on=False)

    async def _happen(self, name: str) -> None:
        try:
            await self._happenings[name]()
        except OSError as error:
            log.warning("weather_failed", name=name, error=str(error))
        finally:
            self._set(name, on=False)

    def _set(self, name: str, *, on: bool) -> None:
        if (name in self._on) is on:
            return
        self._on ^= {name}
        self._apply()
        self._slack.publish({"type": "weather", "weather": self.report()})

    def _apply(self) -> None:
        self._slack.is_doubling = "duplicate" in self._on
        slack = self._troubles(_slack_troubles())
        for method in _POSTS:
            trouble = slack.get(method, _Trouble())
            self._slack.always(method, trouble.fault, apart=trouble.apart)
        if self._kapa is None:
            return
        self._kapa.pace = SLOW if "kapa_slow" in self._on else self._fair_pace
        kapa = self._troubles(_kapa_troubles())
        for endpoint in ("chat", "feedback"):
            self._kapa.always(endpoint, kapa.get(endpoint, _Trouble()).fault)

    def _troubles(self, all_of_them: Mapping[str, _Trouble]) -> dict[str, _Trouble]:
        """Give the trouble that each endpoint shows: of several the first that is on."""
        found: dict[str, _Trouble] = {}
        for name, trouble in all_of_them.items():
            for endpoint in trouble.endpoints if name in self._on else ():
                found.setdefault(endpoint, trouble)
        return found


def _kapa_troubles() -> dict[str, _Trouble]:
    return {
        "kapa_down": _Trouble(Fault("500"), ("chat", "feedback")),
        "kapa_limited": _Trouble(Fault("429", KAPA_PAUSE), ("chat",)),
        "kapa_cut_off": _Trouble(Fault("truncate"), ("chat",)),
        "kapa_uncertain": _Trouble(Fault("uncertain"), ("chat",)),
    }


def _slack_troubles() -> dict[str, _Trouble]:
    return {
        "slack_limited": _Trouble(Fault("429", SLACK_PAUSE), _POSTS),
        # Were the same edit broken each time, an answer would never come to its end.
        "slack_drops": _Trouble(Fault("drop_after"), _POSTS, _APART_SECONDS),
    }


def _sorts() -> dict[str, _Sort]:
    return {
        "kapa_slow": _Sort("Kapa is slow", "Six seconds to the first word, then four words a second."),
        "kapa_limited": _Sort("Kapa is rate-limited", "Kapa refuses every question and asks for a pause of 5 s."),
        "kapa_down": _Sort("Kapa is down", "Kapa answers every question and every vote with an error."),
        "kapa_cut_off": _Sort("Kapa breaks off", "Every answer ends in the middle."),
        "kapa_uncertain": _Sort("Kapa is uncertain", "Kapa says of every answer that it is not sure of it."),
        "slack_limited": _Sort("Slack is rate-limited", "Slack takes no message and no edit, and asks for 3 s."),
        "slack_drops": _Sort("Slack drops connections", "Slack does what it is asked, and breaks off without a word."),
        "duplicate": _Sort("Events come twice", "Slack delivers every event two times."),
        "kill_worker": _Sort("Kill the worker", "SIGKILL, in the middle of its work; it comes back by itself."),
        "redis_away": _Sort("Redis away for 5 s", "Redis stands still for five seconds, and then goes on."),
    }
