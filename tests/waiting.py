"""How tests wait for what nobody tells them of: they ask again and again, up to a deadline far beyond any slowness."""

import asyncio
from collections.abc import Awaitable, Callable
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
