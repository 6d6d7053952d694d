"""What a reply looks like in the chat right now: one visible reply per question, whatever fails on the way.

A message's id is remembered the moment it exists, and a retry edits it. Where it may exist without being remembered,
it is looked for before anything is posted. What is shown is decided in `answer`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog
from redis.exceptions import RedisError

from bridge.chat import (
    Chat,
    ChatBusyError,
    ChatError,
    ChatRefusedError,
    ChatUnclearError,
    MessageGoneError,
    Part,
    StreamEndedError,
    StreamRefusedError,
)
from bridge.inbox import FINISHED, LeaseLostError, RevisedError
from bridge.models import Question, Reply
from bridge.rate_limit import RateLimit
from bridge.store import Store, message_key
from bridge.streams import Streams
from bridge.timing import Stopwatch
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


@dataclass(frozen=True, slots=True)
class Means:
    """What replies of one workspace are shown with.

    `edits` and `appends` are budgets that all messages share. Without `streams` no message grows by the chat's own
    means: it is edited.
    """

    chat: Chat
    store: Store
    edits: RateLimit
    appends: RateLimit
    streams: Streams | None = None


class Display:
    """The messages that reply to one question.

    Showing raises ChatError, LeaseLostError, RevisedError and redis.RedisError.
    """

    def __init__(self, means: Means, question: Question, lease: Lease, stopwatch: Stopwatch) -> None:
        self._chat = means.chat
        self._store = means.store
        self._means = means
        self._question = question
        self._lease = lease
        self._stopwatch = stopwatch
        self.messages: list[str] = json.loads(lease.ticket.notes.get("posts", "[]"))
        self._shown: list[Part | None] = [None] * len(self.messages)
        self._must_look = lease.ticket.is_resumed
        self._is_again = FINISHED in lease.ticket.notes
        # What the last message, a stream that goes on, shows of the reply.
        self._stream: Part | None = None
        # The places among the workspace's streams that this attempt has, and that an earlier one may have left.
        self._place = ""
        self._left_place = lease.ticket.notes.get("stream", "")
        self._starts = 0
        # How many messages may be there, with those that were sent and not remembered.
        self._sent = int(lease.ticket.notes.get("sent", "0"))
        self.has_posted = False

    async def show(self, reply: Reply) -> None:
        """Show all of the reply, by edits of what is there and posts of what is not."""
        parts = self._chat.parts(reply)
        for number, part in enumerate(parts):
            await self._show_part(number, part, is_growing=reply.is_draft and number == len(parts) - 1)
        if len(self.messages) > len(parts):
            await self._take_away_from(len(parts))
            await self._remember()

    async def draft(self, reply: Reply) -> None:
        """Show a reply that is still growing, if the budgets allow."""
        if await self._may_draft():
            await self.show(reply)

    async def finish(self, reply: Reply) -> None:
        """Show the final reply; its edits go before those of drafts."""
        # That a stream may be stopped was settled when it was started.
        if self.messages and not self._must_look and self._stream is None:
            await self._stopwatch.turn("edits", self._means.edits, self._lease.ticket.item.id)
        if self._must_look and self._sent > len(self.messages):
            # A shorter reply would leave what was sent without being remembered below it.
            await self._look()
        if self._is_again and self.messages:
            # From here on they show another answer, which votes wait for.
            await self._lease.remember({}, self._store.parts(self._question.place, self.messages, ""))
        await self.show(reply)
        await self._give_places_back()

    async def adopt(self) -> bool:
        """Go on with the messages that an earlier attempt left; say whether a person has replied since the question."""
        return await self._look()

    async def take_away(self) -> None:
        """Delete all messages that are known."""
        await self._take_away_from(0)

    async def _may_draft(self) -> bool:
        who = self._lease.ticket.item.id
        if self._stream is not None:
            return await self._means.appends.try_acquire(who)
        if not self.messages and not self._must_look and await self._admit_stream():
            return True
        # The first draft is a post, and still asks: it will need edits to be finished.
        return await self._means.edits.try_acquire(who, share=SHARE_OF_DRAFTS)

    async def _admit_stream(self) -> bool:
        streams, ticket = self._means.streams, self._lease.ticket
        if streams is not None and not self._place:
            self._starts += 1
            who = f"{ticket.item.id}:{ticket.id}:{self._starts}"
            self._place = who if await streams.admit(self._question.place, who) else ""
        return self._place != ""

    async def _give_places_back(self) -> None:
        """Let others stream: of this reply no stream goes on any more."""
        streams, places = self._means.streams, (self._place, self._left_place)
        self._place = self._left_place = ""
        for place in filter(None, places):
            if streams is not None:
                await streams.ended(self._question.place, place)

    async def _show_part(self, number: int, part: Part, *, is_growing: bool) -> None:
        if number < len(self.messages):
            await self._change(number, part, is_growing=is_growing)
        if number >= len(self.messages) and self._must_look:
            # Also after an edit that found its message gone: an earlier attempt may have posted it anew.
            await self._look()
            if number < len(self.messages):
                await self._change(number, part, is_growing=is_growing)
        if number >= len(self.messages):
            await self._begin(number, part, is_growing=is_growing)

    async def _change(self, number: int, part: Part, *, is_growing: bool) -> None:
        if self._shown[number] == part and (is_growing or not self._is_stream(number)):
            return
        await self._lease.confirm()
        is_stream = self._is_stream(number)
        change = self._extend(number, part, is_growing=is_growing) if is_stream else self._edit(number, part)
        try:
            await landed(change, LANDING_SECONDS)
        except MessageGoneError as gone:
            log.info("message_gone", message=self.messages[number], reason=gone.reason)
            # It is posted anew, and with it what follows, which would stand in the wrong order. It may be there still.
            await self._take_away_from(number)
            return
        self._shown[number] = part

    def _is_stream(self, number: int) -> bool:
        return self._stream is not None and number == len(self.messages) - 1

    async def _edit(self, number: int, part: Part) -> None:
        await self._chat.edit(self._question, number, self.messages[number], part)
        if self._left_place:
            await self._give_places_back()

    async def _extend(self, number: int, part: Part, *, is_growing: bool) -> None:
        """Let the stream, the last message, go on or end. From then on, and after any trouble, it is edited."""
        place, message = self._question.place, self.messages[number]
        shown, self._stream = self._stream or {}, None
        try:
            if is_growing:
                await self._chat.grow(place, message, shown, part)
                self._stream = part
            else:
                await self._chat.complete(self._question, number, message, shown, part)
                await self._give_places_back()
        except StreamEndedError as ended:
            log.info("stream_ended", message=message, reason=ended.reason)
            await self._edit(number, part)
            await self._give_places_back()
        except ChatBusyError:
            self._stream = shown
            raise

    async def _take_away_from(self, number: int) -> None:
        await self._lease.confirm()
        while len(self.messages) > number:
            await self._delete(self.messages[-1])
            if self._stream is not None:
                self._stream = None
                await self._give_places_back()
            del self.messages[-1], self._shown[-1]

    async def _delete(self, message: str) -> None:
        try:
            await self._chat.delete(self._question.place, message)
        except ChatRefusedError as refused:
            # What cannot be deleted is no reason to keep an answer back.
            log.warning("message_not_deleted", message=message, reason=refused.reason)

    async def _begin(self, number: int, part: Part, *, is_growing: bool) -> None:
        await self._lease.confirm()
        if number:
            self._sent = number + 1
            await self._lease.remember({"sent": str(self._sent)})
        else:
            self._stopwatch.text_is_sent()
        if is_growing and await self._admit_stream():
            try:
                await landed(self._remembered(self._chat.start(self._question, part), part), LANDING_SECONDS)
                self._stream = part
                return
            except StreamRefusedError as refused:
                await self._note_refusal(refused)
        await landed(self._remembered(self._chat.post(self._question, number, part), part), LANDING_SECONDS)

    async def _note_refusal(self, refused: StreamRefusedError) -> None:
        log.warning("stream_refused", reason=refused.reason, extent=refused.extent)
        await self._give_places_back()
        if self._means.streams is not None:
            await self._means.streams.refused(self._question.place, refused.extent)

    async def _remembered(self, sending: Awaitable[str], part: Part) -> None:
        """Await that a message is sent, and remember it."""
        try:
            message = await sending
        except ChatUnclearError:
            self._must_look = True
            # A start that may have been one has used its place up.
            await self._give_places_back()
            raise
        if not self.messages:
            self._stopwatch.text_is_shown()
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
        if not await self._is_known(message):
            await self._chat.delete(self._question.place, message)

    async def _is_known(self, message: str) -> bool:
        return await self._store.is_known(message_key(self._question.place, message))

    async def _look(self) -> bool:
        """Adopt what was posted without being remembered; of two copies the older one stays."""
        found = await self._chat.find(self._question)
        kept = list(self.messages)
        while len(kept) in found.parts:
            kept.append(found.parts[len(kept)][0])
        # A stream names its question only at its end. A message of another question is remembered as that one's.
        strays = [one for one in found.unnamed if one not in kept and not await self._is_known(one)]
        kept += strays[:1]
        copies = [copy for posted in found.parts.values() for copy in posted] + strays
        for copy in (copy for copy in copies if copy not in kept):
            await self._lease.confirm()
            await self._delete(copy)
        # Not before the copies are gone: with a message to edit nobody would look for them again.
        self._shown += [None] * (len(kept) - len(self.messages))
        self.messages = kept
        self._must_look = False
        await self._remember()
        return found.is_replied

    async def _remember(self) -> None:
        """Remember the messages; one that shows an answer already can be voted on as that until there is another."""
        keys = [message_key(self._question.place, message) for message in self.messages]
        writes = self._store.parts(self._question.place, self.messages, "")
        is_known = [await self._store.is_known(key) for key in keys] if self._is_again else [False] * len(keys)
        unfinished = [write for write, known in zip(writes, is_known, strict=True) if not known]
        await self._lease.remember({"posts": json.dumps(self.messages), "stream": self._place}, unfinished)


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
            if not self._text.strip():
                # A message cannot begin with nothing.
                continue
            pause = DRAFT_SECONDS
            async with self._showing:
                try:
                    await self._display.draft(Reply(self._text, is_draft=True))
                except ChatBusyError as busy:
                    pause = max(pause, busy.retry_after or 0)
                except (LeaseLostError, RevisedError):
                    # Nothing more may be shown here; who waits for the answer finds out by itself.
                    return
                except (ChatError, RedisError) as error:
                    log.info("draft_failed", reason=str(error)[:200])
            await self._sleep(pause)
