"""The inbox: what people wrote waits here, durably and in order, until a worker has dealt with it.

All unfinished work of a conversation stands in its line, a Redis list; only the head of a line has a ticket in
the stream. So a conversation is dealt with one item at a time and in order, without locks, while conversations run
side by side; a dead worker's ticket is claimed by another after the lease, and its followers wait behind it. A
channel has so many tickets at a time, so that one that floods does not hold up another.

Every change is one small Lua script, atomic in Redis. What an item means and how long to wait before it is tried
again do not live here. Keys (one hash tag, so that Redis Cluster keeps them together):

    {bridge}:<kind>:ready           stream of tickets: one for the head of each line that is not waiting
    {bridge}:<kind>:later           sorted set of the lines that wait before they are tried again, by time (ms)
    {bridge}:<kind>:unfinished      sorted set of <line>|<item> of what is not finished, by when it was put (ms)
    {bridge}:<kind>:line:<line>     list of a line's items, oldest first; the head is the one being dealt with
    {bridge}:<kind>:turns:<channel> list of a channel's lines that wait for their ticket, the next one first
    {bridge}:<kind>:out:<channel>   set of the channel's tickets in the stream, TICKETS_OF_A_CHANNEL at most
    {bridge}:<kind>:early:<line>    list of replies that came before their thread's question, for EARLY_SECONDS
    {bridge}:<kind>:notes:<item>    hash of what is remembered about an item between attempts
    {bridge}:seen:<mark>            an event that was accepted already
    {bridge}:seen:<mark>:edited     an edit that came before its message, for EARLY_SECONDS
    {bridge}:seen:<item>:latest     the order of an item's newest revision: a dead letter may be older
    {bridge}:dead                   stream of dead letters
    {bridge}:journal                stream of what was finished, for `journal`
"""

import json
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Self, cast

import structlog
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from bridge import inbox_scripts as scripts

TAG: Final = "{bridge}"
GROUP: Final = "bridge"
# The note of an item that was finished before, and was revised since.
FINISHED: Final = "finished"
DEAD: Final = f"{TAG}:dead"
# Longer than Slack's last redelivery, after 24 hours (https://docs.slack.dev/apis/events-api, Delayed Events).
SEEN_SECONDS: Final = 30 * 3600
# A channel that floods leaves the rest of the workers' slots to others; a worker has 32 of them by default.
TICKETS_OF_A_CHANNEL: Final = 16
NOTES_SECONDS: Final = 7 * 86_400
# Slack sends again at once, after one minute and after five (https://docs.slack.dev/apis/events-api, Retries).
EARLY_SECONDS: Final = 400
EARLY_ITEMS: Final = 20
GONE_SECONDS: Final = 86_400
DEAD_LETTERS: Final = 10_000
DEAD_LETTER_DAYS: Final = 30
JOURNAL: Final = f"{TAG}:journal"
JOURNAL_ENTRIES: Final = 20_000

log = structlog.get_logger()


class Kind(StrEnum):
    """What waits: a question for its answer, a vote for its upsert. Each has lines and a stream of its own."""

    QUESTION = "question"
    VOTE = "vote"


class Put(StrEnum):
    """What became of an event that was put into the inbox."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    UNKNOWN_THREAD = "unknown_thread"
    UNKNOWN_QUESTION = "unknown_question"
    REVISED = "revised"


class LeaseLostError(Exception):
    """The ticket belongs to another worker by now, or is done: nothing more may be done for it here."""


class RevisedError(Exception):
    """The item was changed since the ticket was taken: what was being done about it is out of date."""


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of work. `id` is unique within its kind; `order` sorts the waiting items of a line.

    An item that is revised keeps its id and gets a later order.
    """

    id: str
    line: str
    order: str
    payload: str

    def to_entry(self) -> str:
        """Give the form in which the item stands in its line."""
        return json.dumps([self.id, self.order, self.payload])

    @classmethod
    def from_entry(cls, line: str, entry: str) -> Self:
        """Read `to_entry`'s form back."""
        item_id, order, payload = json.loads(entry)
        return cls(id=item_id, line=line, order=order, payload=payload)


@dataclass(frozen=True, slots=True)
class Write:
    """A key that is set in the same breath as an item is finished, for so many seconds.

    With `is_kept` a key that is there keeps the value it has, and lives for so many seconds more.
    """

    key: str
    value: str
    seconds: int
    is_kept: bool = False


@dataclass(slots=True)
class Ticket:
    """The right to deal with the head of a line, for as long as its lease is renewed.

    `failures` counts the earlier attempts that failed, `deaths` those that had begun and died with their worker.
    `is_taken_over` says that the last one did not end by itself, `is_resumed` that an earlier one may have left traces,
    and `notes` holds what they remembered.
    """

    id: str
    item: Item
    failures: int = 0
    deaths: int = 0
    is_resumed: bool = False
    is_taken_over: bool = False
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much of one kind there is to do.

    `waiting` lines have a ticket, taken or not, and `later` ones wait before they are tried again; `unfinished` is the
    number of items, in lines of whichever kind, and `oldest_seconds` the age of the oldest. `untaken_seconds` is how
    long the first ticket has waited for a worker with room.
    """

    waiting: int
    later: int
    unfinished: int
    oldest_seconds: float
    untaken_seconds: float


_Entry = tuple[str, dict[str, str]]


def thread_key(line: str) -> str:
    """Name the key whose presence says that the bridge takes part in a thread."""
    return f"{TAG}:thread:{line}"


def latest_key(item: str) -> str:
    """Name the key that knows the order of an item's newest revision."""
    return f"{TAG}:seen:{item}:latest"


def edited_key(message: str) -> str:
    """Name the key that keeps an edit for the message that it overtook."""
    return f"{TAG}:seen:{message}:edited"


def line_key(kind: Kind, line: str) -> str:
    """Name the key of a line, which is there as long as something waits in it or is being dealt with."""
    return f"{TAG}:{kind}:line:{line}"


def _flat(writes: Sequence[Write]) -> list[str | int]:
    found: list[str | int] = []
    for write in writes:
        found += ["EXPIRE" if write.is_kept else "SET", write.key, write.seconds, write.value]
    return found


def _raise(reply: int, ticket: Ticket) -> None:
    """Raise what a script's reply stands for, if it stands for an error."""
    if reply == 0:
        raise LeaseLostError(ticket.item.id)
    if reply != 1:
        raise RevisedError(ticket.item.id)


class Inbox:
    """One kind's lines in one Redis, as an ingress or the worker named `worker` (unique to its process) sees them.

    Every method raises redis.RedisError when Redis cannot be reached or refuses; nothing has then been promised.
    """

    def __init__(
        self,
        redis: Redis,
        kind: Kind,
        *,
        worker: str = "",
        lease_seconds: float = 15,
        tickets_of_a_channel: int = TICKETS_OF_A_CHANNEL,
    ) -> None:
        self.kind = kind
        self.worker = worker
        self.lease_seconds = lease_seconds
        self._redis = redis
        self._ready = f"{TAG}:{kind}:ready"
        self._later = f"{TAG}:{kind}:later"
        self._lines = f"{TAG}:{kind}:line:"
        self._early = f"{TAG}:{kind}:early:"
        self._claim_cursor = "0-0"

        def script(text: str) -> AsyncScript:
            return redis.register_script(scripts.bound(text, tickets_of_a_channel))

        self._put = script(scripts.PUT)
        self._revise = script(scripts.REVISE)
        self._finish = script(scripts.FINISH)
        self._retry = script(scripts.RETRY)
        self._remember = script(scripts.REMEMBER)
        self._note_death = script(scripts.NOTE_DEATH)
        self._renew = script(scripts.RENEW)
        self._revised = script(scripts.REVISED)
        self._promote = script(scripts.PROMOTE)
        self._leave = script(scripts.LEAVE)
        self._open = script(scripts.OPEN)
        self._backlog = redis.register_script(scripts.BACKLOG)
        self._sign_off = redis.register_script(scripts.SIGN_OFF)

    def _notes(self, item: Item) -> str:
        return f"{TAG}:{self.kind}:notes:{item.id}"

    async def put(
        self, item: Item, *, seen: Sequence[str], thread_seconds: int = 0, must_know_thread: bool = False
    ) -> Put:
        """Put an item at the end of its line, once for all of its `seen` marks.

        `thread_seconds` above 0 marks the line's thread as one the bridge takes part in, for so long;
        `must_know_thread` accepts the item only if it is one already. What is not accepted leaves no mark, but is kept
        for EARLY_SECONDS: it is accepted after all if the thread's question, written before it, is put in that time.
        """
        keys = [self._ready, self._lines + item.line, thread_key(item.line), self._early + item.line]
        keys += [f"{TAG}:seen:{mark}" for mark in seen]
        args: list[str | int] = [
            item.line,
            item.to_entry(),
            item.order,
            SEEN_SECONDS,
            thread_seconds,
            int(must_know_thread),
            EARLY_SECONDS,
            EARLY_ITEMS,
        ]
        return Put(await self._put(keys=keys, args=args))

    async def revise(
        self, item: Item, *, message: str, is_gone: bool, age_seconds: float = 0, only_in_line: bool = False
    ) -> Put:
        """Change an item whose message was edited or, with `is_gone`, deleted; `message` is its mark from `put`.

        In its line it takes the old one's place, and who is at work on that starts anew with it. What is finished
        already is put into the line once more, with the note FINISHED, unless it is to be changed `only_in_line`. A
        message that was never put is left alone: if it is gone, it is not put later either, and an edit of it is put
        in its place if it comes within EARLY_SECONDS. `age_seconds` is how old the message is: its mark ends some day.
        """
        mark = f"{TAG}:seen:{message}"
        keys = [self._ready, self._lines + item.line, thread_key(item.line), self._notes(item)]
        keys += [mark, f"{mark}:{item.order}", latest_key(item.id), edited_key(message)]
        args: list[str | int] = [item.line, item.to_entry(), item.order, item.id, GROUP, SEEN_SECONDS, NOTES_SECONDS]
        args += [int(is_gone), int(age_seconds >= SEEN_SECONDS), FINISHED, DEAD_LETTER_DAYS * 86_400, EARLY_SECONDS]
        return Put(await self._revise(keys=keys, args=[*args, int(only_in_line)]))

    async def open(self) -> None:
        """Make the consumer group, where it is missing, and sign off workers that were killed long ago."""
        await self._open(keys=[self._ready], args=[GROUP])
        await self._sign_off(keys=[self._ready], args=[GROUP, GONE_SECONDS * 1000])

    async def take(self, limit: int, *, wait_seconds: float) -> list[Ticket]:
        """Take up to `limit` tickets, waiting at most so long for the first."""
        block = max(1, int(wait_seconds * 1000))
        reply = await self._redis.xreadgroup(GROUP, self.worker, {self._ready: ">"}, count=limit, block=block)
        streams = cast("list[tuple[str, list[_Entry]]]", reply or [])
        found = [(ticket, fields, False) for _, entries in streams for ticket, fields in entries]
        return await self._tickets(found)

    async def take_over(self, limit: int, *, running: Container[str] = ()) -> list[Ticket]:
        """Take up to `limit` tickets whose worker gave no sign of life for a whole lease.

        `running` are the ids of those that this worker is at work on itself: their lease only starts anew.
        """
        reply = await self._redis.xautoclaim(
            self._ready,
            GROUP,
            self.worker,
            min_idle_time=int(self.lease_seconds * 1000),
            start_id=self._claim_cursor,
            count=limit,
        )
        self._claim_cursor, entries, *_ = cast("tuple[str, list[_Entry]]", reply)
        found = [(ticket, fields, True) for ticket, fields in entries if fields and ticket not in running]
        return await self._tickets(found)

    async def _tickets(self, found: Sequence[tuple[str, Mapping[str, str], bool]]) -> list[Ticket]:
        tickets = []
        for ticket, fields, died in found:
            try:
                item = Item.from_entry(fields["line"], fields["entry"])
            except (ValueError, KeyError, TypeError):
                await self._bury_unreadable(ticket, fields)
            else:
                tickets.append(await self._ticket(ticket, item, fields, died=died))
        return tickets

    async def _bury_unreadable(self, ticket: str, fields: Mapping[str, str]) -> None:
        """Give up what no worker can read, such as a later version's: it would end every worker that took it."""
        log.error("entry_unreadable", kind=self.kind, line=fields.get("line"), ticket=ticket)
        item = Item(id="", line=fields.get("line", ""), order="", payload="")
        with suppress(LeaseLostError):  # another worker has buried it meanwhile
            await self.finish(Ticket(ticket, item), dead_reason="this version cannot read it")

    async def _ticket(self, ticket: str, item: Item, fields: Mapping[str, str], *, died: bool) -> Ticket:
        is_resumed = died or fields.get("again") == "1"
        if not is_resumed:
            return Ticket(ticket, item)
        notes = cast("dict[str, str]", await self._redis.hgetall(self._notes(item)))
        failures, deaths = int(notes.pop("failures", "0")), int(notes.pop("deaths", "0"))
        if notes.pop("begun", "") == ticket and died:
            deaths += 1
            # Only as the owner: who was frozen meanwhile would leave notes of an item that is done.
            keys = [self._ready, self._notes(item)]
            await self._note_death(keys=keys, args=[GROUP, ticket, self.worker, NOTES_SECONDS])
        return Ticket(ticket, item, failures, deaths, is_resumed=True, is_taken_over=died, notes=notes)

    async def begin(self, ticket: Ticket) -> None:
        """Note that the item itself is being dealt with: a death counts against it from here on.

        Raises LeaseLostError, RevisedError.
        """
        await self._note(ticket, {"begun": ticket.id})

    async def remember(self, ticket: Ticket, notes: Mapping[str, str], writes: Sequence[Write] = ()) -> None:
        """Remember `notes` about the ticket's item for a later attempt, and set `writes`.

        Raises LeaseLostError, RevisedError.
        """
        await self._note(ticket, notes, writes)
        ticket.notes.update(notes)

    async def _note(self, ticket: Ticket, notes: Mapping[str, str], writes: Sequence[Write] = ()) -> None:
        pairs = [part for pair in notes.items() for part in pair]
        order = ticket.item.order
        args: list[str | int] = [GROUP, ticket.id, self.worker, NOTES_SECONDS, len(notes), order, *pairs]
        keys = [self._ready, self._notes(ticket.item), self._lines + ticket.item.line]
        _raise(await self._remember(keys=keys, args=[*args, *_flat(writes)]), ticket)

    async def finish(
        self, ticket: Ticket, writes: Sequence[Write] = (), *, dead_reason: str = "", entry: str = ""
    ) -> None:
        """Take the item out of its line for good, set `writes`, and let the next one of the line have its turn.

        With a `dead_reason` the item becomes a dead letter; `entry` goes into the journal.
        Raises LeaseLostError or RevisedError, and has then changed nothing.
        """
        keys = [self._ready, self._lines + ticket.item.line, self._notes(ticket.item), DEAD, JOURNAL]
        args: list[str | int] = [GROUP, ticket.id, self.worker, ticket.item.line, self.kind, dead_reason]
        args += [json.dumps(ticket.notes), DEAD_LETTERS, DEAD_LETTER_DAYS * 86_400_000, entry, JOURNAL_ENTRIES]
        _raise(await self._finish(keys=keys, args=[*args, ticket.item.order, *_flat(writes)]), ticket)

    async def retry(self, ticket: Ticket, *, wait_seconds: float = 0, is_failure: bool = True) -> None:
        """Give the ticket back, to be tried again by any worker after a wait; raises LeaseLostError."""
        keys = [self._ready, self._notes(ticket.item), self._later]
        wait = int(wait_seconds * 1000)
        args: list[str | int] = [
            GROUP,
            ticket.id,
            self.worker,
            ticket.item.line,
            wait,
            int(is_failure),
            NOTES_SECONDS,
        ]
        if not await self._retry(keys=keys, args=args):
            raise LeaseLostError(ticket.item.id)

    async def renew(self, tickets: Sequence[Ticket]) -> set[str]:
        """Start the lease of the tickets anew; return the ids of those that are still this worker's."""
        if not tickets:
            return set()
        return set(await self._renew(keys=[self._ready], args=[GROUP, self.worker, *(t.id for t in tickets)]))

    async def revised(self, tickets: Sequence[Ticket]) -> set[str]:
        """Give the ids of those tickets whose item was revised since they were taken."""
        if not tickets:
            return set()
        keys = [self._lines + ticket.item.line for ticket in tickets]
        numbers = cast("list[int]", await self._revised(keys=keys, args=[ticket.item.order for ticket in tickets]))
        return {tickets[number - 1].id for number in numbers}

    async def reread(self, ticket: Ticket) -> Ticket:
        """Give a ticket with its item and notes as they are now; raises LeaseLostError."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.lindex(self._lines + ticket.item.line, 0)
            pipe.hgetall(self._notes(ticket.item))
            head, notes = await pipe.execute()
        item = Item.from_entry(ticket.item.line, head) if head else None
        if item is None or item.id != ticket.item.id:
            raise LeaseLostError(ticket.item.id)
        kept = {name: value for name, value in notes.items() if name not in {"failures", "deaths", "begun"}}
        return replace(ticket, item=item, is_resumed=True, notes=kept)

    async def promote(self) -> int:
        """Give lines whose wait is over their ticket; return how many there were."""
        return int(await self._promote(keys=[self._ready, self._later]))

    async def backlog(self) -> Backlog:
        """Say how much there is to do."""
        reply = await self._backlog(keys=[self._ready, self._later], args=[GROUP])
        waiting, later, unfinished, oldest_ms, untaken_ms = cast("list[int]", reply)
        return Backlog(waiting, later, unfinished, oldest_ms / 1000, untaken_ms / 1000)

    async def leave(self) -> int:
        """Hand back at once all that this worker still holds, and sign it off; return how much that was."""
        return int(await self._leave(keys=[self._ready], args=[GROUP, self.worker]))
