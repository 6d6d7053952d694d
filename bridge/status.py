"""The line in the chat that says the bridge is at work: shown beside everything else, and waited for by nobody.

What is shown as the reply lives in `display`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog
from redis.exceptions import RedisError

from bridge.chat import Chat, ChatError
from bridge.models import Question
from bridge.rate_limit import RateLimit
from bridge.work import Beside

# An answer that comes sooner needs no status line.
STATUS_AFTER_SECONDS: Final = 0.3
# Slack takes a line away after two minutes (https://docs.slack.dev/reference/methods/assistant.threads.setStatus).
SHOW_AGAIN_SECONDS: Final = 90.0
# Someone who waits sees their place in line change no more often than this.
CHANGE_SECONDS: Final = 5.0

Sleep = Callable[[float], Awaitable[None]]
log = structlog.get_logger()


class Status:
    """One question's status line, used as `async with Status(...)`. A failure to show it is nobody's trouble.

    It says `text`, with the sentences `loading` taking turns, until `say` changes it. `has_posted` says at the end
    whether a message was posted meanwhile, which takes the line away by itself. `beside` keeps what is still to be done
    about the line when the block has ended. `changes` is the budget that the changes of all lines share.
    """

    def __init__(
        self,
        chat: Chat,
        question: Question,
        text: str,
        *,
        loading: Sequence[str] = (),
        changes: RateLimit,
        has_posted: Callable[[], bool],
        beside: Beside,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._chat = chat
        self._question = question
        self._usual = (text, tuple(loading))
        self._wanted = self._usual
        self._is_changed = asyncio.Event()
        self._changes = changes
        self._has_posted = has_posted
        self._beside = beside
        self._sleep = sleep
        self._is_asked = self._is_calling = self._is_over = False

    async def __aenter__(self) -> "Status":
        self._showing = asyncio.create_task(self._show())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._is_over = True
        if not self._is_calling:
            self._showing.cancel()
        # Whoever is cancelled leaves the line to the next attempt, but not one that is still on its way there.
        is_nobodys = kind is not asyncio.CancelledError and not self._has_posted()
        # A line that is shown only after the message, or without one, stands until it is taken away.
        if self._is_asked and (self._is_calling or is_nobodys):
            self._beside.start(self._take_away())

    def say(self, text: str = "") -> None:
        """Say something else, in place of the sentences that take turns as well; nothing: what it said first."""
        wanted = (text, (text,)) if text else self._usual
        if wanted != self._wanted:
            self._wanted = wanted
            self._is_changed.set()

    async def _show(self) -> None:
        await self._sleep(STATUS_AFTER_SECONDS)
        self._is_asked = True
        await self._call(*self._wanted)
        while not self._is_over:
            await self._sleep(CHANGE_SECONDS)
            await self._until_due()
            if self._has_posted():
                return
            if await self._may_change():
                await self._call(*self._wanted)

    async def _until_due(self) -> None:
        """Return once the line is to say something else, or is about to go away by itself."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SHOW_AGAIN_SECONDS):
                await self._is_changed.wait()

    async def _may_change(self) -> bool:
        try:
            return await self._changes.try_acquire(self._question.id)
        except RedisError:
            return False

    async def _take_away(self) -> None:
        await asyncio.wait([self._showing])
        await self._chat.show_status(self._question.place, "")

    async def _call(self, text: str, loading: Sequence[str] = ()) -> None:
        self._is_calling = True
        self._is_changed.clear()
        try:
            await self._chat.show_status(self._question.place, text, loading)
        except (ChatError, RedisError) as error:
            log.debug("status_failed", reason=str(error)[:200])
        finally:
            self._is_calling = False
