"""The line in the chat that says the bridge is at work: shown beside everything else, and waited for by nobody.

What is shown as the reply lives in `display`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from redis.exceptions import RedisError

from bridge.chat import Chat, ChatError
from bridge.models import Question

# An answer that comes sooner needs no status line.
STATUS_AFTER_SECONDS: Final = 0.1

Sleep = Callable[[float], Awaitable[None]]
log = structlog.get_logger()


class Status:
    """One question's status line, used as `async with Status(...)`. A failure to show it is nobody's trouble.

    `has_posted` says at the end whether a message was posted meanwhile, which takes the line away by itself. `beside`
    keeps what is still to be done about the line when the block has ended.
    """

    def __init__(
        self,
        chat: Chat,
        question: Question,
        text: str,
        *,
        has_posted: Callable[[], bool],
        beside: set[asyncio.Task[None]],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._chat = chat
        self._question = question
        self._text = text
        self._has_posted = has_posted
        self._beside = beside
        self._sleep = sleep
        self._is_asked = False

    async def __aenter__(self) -> "Status":
        self._showing = asyncio.create_task(self._show())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._is_asked or kind is asyncio.CancelledError:
            self._showing.cancel()
        elif not self._showing.done() or not self._has_posted():
            # A line that is shown only after the message, or without one, stands until it is taken away.
            task = asyncio.create_task(self._take_away())
            self._beside.add(task)
            task.add_done_callback(self._beside.discard)

    async def _show(self) -> None:
        await self._sleep(STATUS_AFTER_SECONDS)
        self._is_asked = True
        await self._call(self._text)

    async def _take_away(self) -> None:
        await asyncio.wait([self._showing])
        await self._call("")

    async def _call(self, text: str) -> None:
        try:
            await self._chat.show_status(self._question.place, text)
        except (ChatError, RedisError) as error:
            log.debug("status_failed", reason=str(error)[:200])
