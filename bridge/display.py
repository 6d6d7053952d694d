"""What a reply looks like in the chat right now: one visible reply per question, whatever fails on the way.

A message's id is remembered the moment it exists, and a retry edits it. Where it may exist without being remembered,
it is looked for before anything is posted. What is shown is decided in `answer`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from redis.exceptions import RedisError

from bridge.chat import Chat, ChatBusyError, ChatError, ChatRefusedError, ChatUnclearError, MessageGoneError, Part
from bridge.inbox import LeaseLostError
from bridge.models import Question, Reply
from bridge.rate_limit import RateLimit
from bridge.store import Store, message_key
from bridge.work import Lease, end, landed

# Of the edits that Slack allows, drafts leave the rest to final answers.
SHARE_OF_DRAFTS: Final = 0.5
# Pieces that come at once are shown at once, instead of the first alone and the rest a draft later.
GATHER_SECONDS: Final = 0.02
DRAFT_SECONDS: Final = 1.0
# A write to the chat that is under way when its worker is told to stop has so long to land.
LANDING_SECONDS: Final = 5.0

Sleep = Callable[[float], Awaitable[None]]
log = structlog.get_logger()


class Display:
    """The messages that reply to one question. Showing raises ChatError, LeaseLostError and redis.RedisError.

    `edits` is the budget that all edits of the workspace share.
    """

    def __init__(self, chat: Chat, store: Store, edits: RateLimit, question: Question, lease: Lease) -> None:
        self._chat = chat
        self._store = store
        self._edits = edits
        self._question = question
        self._lease = lease
        self.messages: list[str] = json.loads(lease.ticket.notes.get("posts", "[]"))
        self._shown: list[Part | None] = [None] * len(self.messages)
        self._must_look = lease.ticket.is_resumed
        self.has_posted = False

    async def show(self, reply: Reply) -> None:
        """Show all of the reply, by edits of what is there and posts of what is not."""
        parts = self._chat.parts(reply)
        for number, part in enumerate(parts):
            await self._show_part(number, part)
        if len(self.messages) > len(parts):
            await self._take_away_from(len(parts))
            await self._remember()

    async def draft(self, reply: Reply) -> None:
        """Show a reply that is still growing, if the budget of edits allows."""
        # The first draft is a post, and still asks: it will need edits to be finished.
        if await self._edits.try_acquire(self._lease.ticket.item.id, share=SHARE_OF_DRAFTS):
            await self.show(reply)

    async def finish(self, reply: Reply) -> None:
        """Show the final reply; its edits go before those of drafts."""
        if self.messages and not self._must_look:
            await self._edits.acquire(self._lease.ticket.item.id)
        await self.show(reply)

    async def _show_part(self, number: int, part: Part) -> None:
        if number < len(self.messages):
            await self._edit(number, part)
        if number >= len(self.messages) and self._must_look:
            # Also after an edit that found its message gone: an earlier attempt may have posted it anew.
            await self._look()
            if number < len(self.messages):
                await self._edit(number, part)
        if number >= len(self.messages):
            await self._post(number, part)

    async def _edit(self, number: int, part: Part) -> None:
        if self._shown[number] == part:
            return
        await self._lease.confirm()
        try:
            await landed(self._chat.edit(self._question.place, self.messages[number], part), LANDING_SECONDS)
        except MessageGoneError as gone:
            log.info("message_gone", message=self.messages[number], reason=gone.reason)
            # It is posted anew, and with it what follows, which would stand in the wrong order. It may be there still.
            await self._take_away_from(number)
            return
        self._shown[number] = part

    async def _take_away_from(self, number: int) -> None:
        await self._lease.confirm()
        while len(self.messages) > number:
            await self._delete(self.messages[-1])
            del self.messages[-1], self._shown[-1]

    async def _delete(self, message: str) -> None:
        try:
            await self._chat.delete(self._question.place, message)
        except ChatRefusedError as refused:
            # What cannot be deleted is no reason to keep an answer back.
            log.warning("message_not_deleted", message=message, reason=refused.reason)

    async def _post(self, number: int, part: Part) -> None:
        await self._lease.confirm()
        await landed(self._post_and_remember(number, part), LANDING_SECONDS)

    async def _post_and_remember(self, number: int, part: Part) -> None:
        try:
            message = await self._chat.post(self._question, number, part)
        except ChatUnclearError:
            self._must_look = True
            raise
        self.messages.append(message)
        self._shown.append(part)
        self.has_posted = True
        try:
            await self._remember()
        except LeaseLostError:
            await self._take_back(message)
            raise

    async def _take_back(self, message: str) -> None:
        """Delete a post that landed after its lease was lost, unless the new owner found it and goes on with it."""
        if not await self._store.is_known(message_key(self._question.place, message)):
            await self._chat.delete(self._question.place, message)

    async def _look(self) -> None:
        """Adopt what was posted without being remembered; of two copies the older one stays."""
        found = await self._chat.find(self._question)
        kept = list(self.messages)
        while len(kept) in found:
            kept.append(found[len(kept)][0])
        for copy in (copy for copies in found.values() for copy in copies if copy not in kept):
            await self._lease.confirm()
            await self._delete(copy)
        # Not before the copies are gone: with a message to edit nobody would look for them again.
        self._shown += [None] * (len(kept) - len(self.messages))
        self.messages = kept
        self._must_look = False
        await self._remember()

    async def _remember(self) -> None:
        unfinished = self._store.parts(self._question.place, self.messages, "")
        await self._lease.remember({"posts": json.dumps(self.messages)}, unfinished)


class Painter:
    """Shows a growing text beside the reading of it: at once at first, then at most every DRAFT_SECONDS.

    Used as `async with Painter(...) as painter`; the end waits for a draft that is being shown, and shows no more.
    A draft that fails is not repeated: the final reply will tell.
    """

    def __init__(self, display: Display, sleep: Sleep = asyncio.sleep) -> None:
        self._display = display
        self._sleep = sleep
        self._text = ""
        self._has_more = asyncio.Event()
        self._showing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Painter":
        self._task = asyncio.create_task(self._paint())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not asyncio.CancelledError:
                await self._showing.acquire()
        finally:
            if self._task is not None:
                # A draft under way may land and be remembered, however often its journey is cancelled meanwhile.
                await landed(end(self._task), 2 * LANDING_SECONDS)

    def add(self, delta: str) -> None:
        """Take in more text."""
        self._text += delta
        self._has_more.set()

    async def _paint(self) -> None:
        await self._has_more.wait()
        await self._sleep(GATHER_SECONDS)
        while True:
            await self._has_more.wait()
            self._has_more.clear()
            pause = DRAFT_SECONDS
            async with self._showing:
                try:
                    await self._display.draft(Reply(self._text, is_draft=True))
                except ChatBusyError as busy:
                    pause = max(pause, busy.retry_after or 0)
                except LeaseLostError:
                    # Nothing more may be shown here; who waits for the answer finds out by itself.
                    return
                except (ChatError, RedisError) as error:
                    log.info("draft_failed", reason=str(error)[:200])
            await self._sleep(pause)
