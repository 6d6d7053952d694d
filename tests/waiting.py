"""How tests wait: for what nobody tells of, by asking up to a deadline far beyond any slowness; else not at all."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, TypeVar, overload

PATIENCE = 20.0
T = TypeVar("T")


@overload
async def eventually(ask: Callable[[], Awaitable[T]], within: float = PATIENCE) -> T: ...


@overload
async def eventually(ask: Callable[[], bool], within: float = PATIENCE) -> bool: ...


async def eventually(ask: Callable[[], Any], within: float = PATIENCE) -> Any:
    """Ask until the reply is true and give it; raises TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        while True:
            found = ask()
            value = await found if isawaitable(found) else found
            if value:
                return value
            await asyncio.sleep(0.005)


@dataclass
class Clock:
    """A clock that stands still until a test moves it on."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Naps:
    """A sleep that takes no time and remembers how long it was asked for."""

    asked: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
