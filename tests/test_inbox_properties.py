"""The inbox on a real Redis under any interleaving: order is kept, nothing is lost, nothing is done twice."""

import asyncio
from bisect import insort
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from bridge import redis_client
from bridge.embedded_redis import EmbeddedRedis
from bridge.inbox import DEAD, EARLY_ITEMS, GROUP, TAG, Inbox, Item, Kind, LeaseLostError, Put, Ticket, thread_key

PATIENCE = 20.0
PREFIX = f"{TAG}:question"
LINES = ("t:c:1", "t:c:2", "t:c:3", "t:d:4")
TICKETS_OF_A_CHANNEL = 2
WORKERS = ("a", "b", "c")
NEED_A_TICKET = ("finish", "retry", "remember", "begin", "renew")
RARE = ("lose_group", "put_again", "take_over", "crash", "leave", "renew", "promote", "remember", "begin")
ACTIONS = ("put", "take", "finish", "retry") * 3 + RARE
T = TypeVar("T")


@dataclass(slots=True)
class Work:
    """What an item has been through."""

    item: Item
    failures: int = 0
    deaths: int = 0
    is_resumed: bool = False
    notes: dict[str, str] = field(default_factory=dict)
    begun: str = field(default="", compare=False)


@dataclass(slots=True)
class Held:
    """A ticket in a worker's hands; it may be another's by now, or done, without the worker knowing."""

    worker: str
    ticket: Ticket


class Interleavings(RuleBasedStateMachine):
    """Three workers on three lines, and what every operation should have come to."""

    def __init__(self, url: str, finished: Counter[str]) -> None:
        super().__init__()
        self.finished = finished
        self.runner = asyncio.Runner()
        self.redis = cast("Any", redis_client.connect(url))
        self.run(self.redis.execute_command("FLUSHDB"))
        # Without a lease every ticket that is not done is overdue, those of the living too.
        self.inboxes = {name: self.inbox(name) for name in WORKERS}
        self.lines: dict[str, list[Work]] = {}
        self.waiting: set[str] = set()
        self.out: set[str] = set()
        self.turns: dict[str, list[str]] = {}
        self.owners: dict[str, str] = {}
        self.held: list[Held] = []
        self.early: dict[str, list[Item]] = {}
        self.puts = 0
        self.accepted: list[Item] = []
        self.ended: list[Item] = []
        self.buried: list[Item] = []
        self.threads: set[str] = set()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def inbox(self, worker: str) -> Inbox:
        inbox = Inbox(
            self.redis, Kind.QUESTION, worker=worker, lease_seconds=0, tickets_of_a_channel=TICKETS_OF_A_CHANNEL
        )
        self.run(inbox.open())
        return inbox

    def owns(self, held: Held) -> bool:
        return self.owners.get(held.ticket.id) == held.worker

    # What happens

    # One rule: a choice among many would leave some of them out of every example, and without these nothing goes on.
    @rule(
        action=st.sampled_from(ACTIONS),
        worker=st.sampled_from(WORKERS),
        line=st.sampled_from(LINES),
        number=st.integers(0, 9),
        stale=st.sampled_from([False, False, False, True]),
        yes=st.booleans(),
        also=st.booleans(),
    )
    def step(self, action: str, worker: str, line: str, number: int, stale: bool, yes: bool, also: bool) -> None:
        """Do one thing; `stale` with a ticket that is another's by now or done, if there is one."""
        actions: dict[str, Callable[[], None]] = {
            "put": lambda: self.put(line, number, must_know=yes and also, marks=also or stale),
            "put_again": lambda: self.put_again(number, line),
            "take": lambda: self.take(worker, 1 + number % 4),
            "take_over": lambda: self.take_over(worker, 1 + number % 4),
            "lose_group": self.lose_group,
            "crash": lambda: self.crash(worker),
            "leave": lambda: self.leave(worker),
            "finish": lambda: self.finish(number, stale, dies=yes and also),
            "retry": lambda: self.retry(number, stale, is_failure=yes, waits=also),
            "remember": lambda: self.remember(number, stale, note=str(number)),
            "begin": lambda: self.begin(number, stale),
            "renew": lambda: self.renew(number, stale),
            "promote": self.promote,
        }
        if (self.held or action not in NEED_A_TICKET) and (self.accepted or action != "put_again"):
            actions[action]()

    def put(self, line: str, order: int, must_know: bool, marks: bool) -> None:
        self.puts += 1
        item = Item(f"q{self.puts}", line, f"{order}.0", f"payload {self.puts}")
        call = self.inboxes["a"].put(
            item, seen=[item.id], thread_seconds=1000 if marks else 0, must_know_thread=must_know
        )
        if must_know and line not in self.threads:
            assert self.run(call) is Put.UNKNOWN_THREAD
            self.early[line] = [*self.early.get(line, []), item][-EARLY_ITEMS:]
            return
        assert self.run(call) is Put.ACCEPTED
        self.enter(item)
        if marks and line not in self.threads:
            self.threads.add(line)
            for reply in self.early.pop(line, []):
                if reply.order > item.order:
                    self.enter(reply)

    def enter(self, item: Item) -> None:
        self.accepted.append(item)
        head, *others = [*self.lines.get(item.line, []), Work(item)]
        if others:
            insort(others, others.pop(), key=lambda work: work.item.order)
        self.lines[item.line] = [head, *others]
        if not others:
            self.hand_out(item.line)

    def hand_out(self, line: str) -> None:
        self.turns.setdefault(channel_of(line), []).append(line)
        self.admit(channel_of(line))

    def admit(self, channel: str) -> None:
        turns = self.turns.get(channel, [])
        while turns and len([line for line in self.out if channel_of(line) == channel]) < TICKETS_OF_A_CHANNEL:
            self.out.add(turns.pop(0))

    def take_out(self, held: Held) -> None:
        del self.owners[held.ticket.id]
        self.out.remove(held.ticket.item.line)

    def put_again(self, pick: int, line: str) -> None:
        """A redelivery, even one that claims to belong elsewhere."""
        mark = self.accepted[pick % len(self.accepted)].id
        item = Item("twin", line, "0.0", "twin")
        assert self.run(self.inboxes["b"].put(item, seen=["other", mark], thread_seconds=1000)) is Put.DUPLICATE

    def take(self, worker: str, limit: int) -> None:
        ready = len(self.out) - len(self.owners)
        tickets = self.run(self.inboxes[worker].take(limit, wait_seconds=0))
        assert len(tickets) == min(ready, limit)
        for ticket in tickets:
            assert ticket.id not in self.owners
            self.hold(worker, ticket)

    def take_over(self, worker: str, limit: int) -> None:
        for ticket in self.run(self.inboxes[worker].take_over(limit)):
            assert ticket.id in self.owners
            head = self.lines[ticket.item.line][0]
            head.deaths += head.begun == ticket.id
            head.begun, head.is_resumed = "", True
            self.hold(worker, ticket)

    def hold(self, worker: str, ticket: Ticket) -> None:
        head = self.lines[ticket.item.line][0]
        seen = Work(ticket.item, ticket.failures, ticket.deaths, ticket.is_resumed, ticket.notes)
        assert seen == head
        self.owners[ticket.id] = worker
        self.held.append(Held(worker, ticket))

    def crash(self, worker: str) -> None:
        """The process is gone with all it knew; one of the same name would be another process."""
        self.held = [held for held in self.held if held.worker != worker]

    def lose_group(self) -> None:
        """A Redis that was behind is promoted: nobody knows who took what, so everything was tried, perhaps."""
        self.run(self.redis.xgroup_destroy(f"{PREFIX}:ready", GROUP))
        for inbox in self.inboxes.values():
            self.run(inbox.open())
        self.owners.clear()
        for line in self.out:
            self.lines[line][0].is_resumed = True

    def leave(self, worker: str) -> None:
        lines = {ticket: self.line_of(ticket) for ticket, owner in self.owners.items() if owner == worker}
        assert self.run(self.inboxes[worker].leave()) == len(lines)
        for ticket, line in lines.items():
            self.lines[line][0].is_resumed = True
            del self.owners[ticket]

    def line_of(self, ticket: str) -> str:
        [(_, fields)] = self.run(self.redis.xrange(f"{PREFIX}:ready", ticket, ticket))
        return str(fields["line"])

    def pick(self, pick: int, stale: bool) -> tuple[Inbox, Held]:
        """Choose a ticket that is still its holder's, or one that is not, where there is a choice."""
        wanted = [held for held in self.held if self.owns(held) is not stale] or self.held
        held = wanted[pick % len(wanted)]
        return self.inboxes[held.worker], held

    def settle(self, held: Held, call: Coroutine[Any, Any, None]) -> Work | None:
        """Give the head that the call was about; None when it was another's by now, and says so."""
        if self.owns(held):
            self.run(call)
            return self.lines[held.ticket.item.line][0]
        with pytest.raises(LeaseLostError):
            self.run(call)
        return None

    def finish(self, pick: int, stale: bool, dies: bool) -> None:
        inbox, held = self.pick(pick, stale)
        head = self.settle(held, inbox.finish(held.ticket, dead_reason="broken" if dies else ""))
        if head is None:
            return
        assert head.item == held.ticket.item
        (self.buried if dies else self.ended).append(head.item)
        line = self.lines.pop(head.item.line)
        if line[1:]:
            self.lines[head.item.line] = line[1:]
        self.take_out(held)
        if line[1:]:
            self.hand_out(head.item.line)
        else:
            self.admit(channel_of(head.item.line))

    def retry(self, pick: int, stale: bool, is_failure: bool, waits: bool) -> None:
        inbox, held = self.pick(pick, stale)
        seconds = 0.001 if waits else 0
        head = self.settle(held, inbox.retry(held.ticket, wait_seconds=seconds, is_failure=is_failure))
        if head is None:
            return
        head.failures += is_failure
        head.is_resumed = True
        if waits:
            self.take_out(held)
            self.waiting.add(head.item.line)
            self.admit(channel_of(head.item.line))
        else:
            del self.owners[held.ticket.id]

    def remember(self, pick: int, stale: bool, note: str) -> None:
        inbox, held = self.pick(pick, stale)
        head = self.settle(held, inbox.remember(held.ticket, {"note": note}))
        if head is not None:
            head.notes = {"note": note}

    def begin(self, pick: int, stale: bool) -> None:
        inbox, held = self.pick(pick, stale)
        head = self.settle(held, inbox.begin(held.ticket))
        if head is not None:
            head.begun = held.ticket.id

    def renew(self, pick: int, stale: bool) -> None:
        inbox, held = self.pick(pick, stale)
        assert self.run(inbox.renew([held.ticket])) == ({held.ticket.id} if self.owns(held) else set())

    def promote(self) -> None:
        deadline = monotonic() + PATIENCE
        due = self.run(self.redis.zrange(f"{PREFIX}:later", 0, -1))
        promoted = 0
        while promoted < len(self.waiting):
            promoted += self.run(self.inboxes["a"].promote())
            assert monotonic() < deadline, "what waits is not promoted"
        assert promoted == len(self.waiting)
        self.waiting.clear()
        for line in due:
            self.hand_out(line)

    # What is always so

    @invariant()
    def redis_holds_what_it_should(self) -> None:
        tickets, lines, waiting, turns = self.run(self.look())
        assert lines == {line: [work.item for work in works] for line, works in self.lines.items()}
        assert waiting == self.waiting
        assert turns == {channel: lines for channel, lines in self.turns.items() if lines}
        # Every line has one ticket, for its head, unless it waits for its time or its channel's turn.
        heads = {line: works[0].item for line, works in self.lines.items() if line in self.out}
        assert len(tickets) == len(heads) == len(self.out)
        assert {item.line: item for item in tickets.values()} == heads
        queued = [line for lines in self.turns.values() for line in lines]
        assert sorted([*self.out, *self.waiting, *queued]) == sorted(self.lines)

    @invariant()
    def a_line_has_one_owner(self) -> None:
        pending = self.run(self.redis.xpending_range(f"{PREFIX}:ready", GROUP, "-", "+", 100))
        assert {entry["message_id"]: entry["consumer"] for entry in pending} == self.owners
        lines = [self.line_of(ticket) for ticket in self.owners]
        assert len(lines) == len(set(lines))

    async def look(self) -> tuple[dict[str, Item], dict[str, list[Item]], set[str], dict[str, list[str]]]:
        entries = await self.redis.xrange(f"{PREFIX}:ready")
        tickets = {id_: Item.from_entry(fields["line"], fields["entry"]) for id_, fields in entries}
        lines = {}
        for key in await self.redis.keys(f"{PREFIX}:line:*"):
            line = key.removeprefix(f"{PREFIX}:line:")
            lines[line] = [Item.from_entry(line, entry) for entry in await self.redis.lrange(key, 0, -1)]
        turns = {}
        for key in await self.redis.keys(f"{PREFIX}:turns:*"):
            # The first character says whether the line was tried before.
            turns[key.removeprefix(f"{PREFIX}:turns:")] = [turn[1:] for turn in await self.redis.lrange(key, 0, -1)]
        return tickets, lines, set(await self.redis.zrange(f"{PREFIX}:later", 0, -1)), turns

    def teardown(self) -> None:
        """Everyone is gone: one more worker finds all that is left, and finishes it in order."""
        try:
            self.promote()
            self.finish_all(self.inbox("last"))
            assert sorted(item.id for item in self.ended + self.buried) == sorted(item.id for item in self.accepted)
            letters = self.run(self.redis.xrange(DEAD))
            assert [Item.from_entry(fields["line"], fields["entry"]) for _, fields in letters] == self.buried
            self.check_what_is_left()
            self.finished.update(item.line for item in self.ended)
        finally:
            self.run(self.redis.aclose())
            self.runner.close()

    def finish_all(self, last: Inbox) -> None:
        while self.lines:
            before = len(self.ended)
            found = [*self.run(last.take_over(10)), *self.run(last.take(10, wait_seconds=0))]
            for ticket in found:
                self.run(last.finish(ticket))
                self.ended.append(ticket.item)
                line = self.lines.pop(ticket.item.line)
                assert line[0].item == ticket.item
                if line[1:]:
                    self.lines[ticket.item.line] = line[1:]
            assert len(self.ended) > before, f"lost: {self.lines}"

    def check_what_is_left(self) -> None:
        left = set(self.run(self.redis.keys()))
        marks = {f"{TAG}:seen:{item.id}" for item in self.accepted}
        threads = {thread_key(line) for line in self.threads}
        early = {f"{PREFIX}:early:{line}" for line in self.early}
        dead = {DEAD} if self.buried else set()
        assert left == {f"{PREFIX}:ready"} | marks | threads | early | dead
        assert self.run(self.redis.xlen(f"{PREFIX}:ready")) == 0


def channel_of(line: str) -> str:
    return line.rpartition(":")[0]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis of this module's own."""
    with asyncio.Runner() as runner:
        context = EmbeddedRedis(tmp_path_factory.mktemp("redis")).own()
        yield runner.run(_enter(context))
        runner.run(_leave(context))


async def _enter(context: Any) -> str:
    url = str(await context.__aenter__())
    async with redis_client.connect(url) as client:
        await client.config_set("appendfsync", "no")  # no power fails here, and there are many writes
        await client.config_set("hz", "500")  # how often Redis sees that a blocking read has waited enough
    return url


async def _leave(context: Any) -> None:
    await context.__aexit__(None, None, None)


def test_any_interleaving_keeps_order_loses_nothing_and_repeats_nothing(url: str) -> None:
    finished: Counter[str] = Counter()
    run_state_machine_as_test(
        cast(
            "type[RuleBasedStateMachine]", lambda: Interleavings(url, finished)
        ),  # any callable that makes one will do
        settings=settings(
            max_examples=100,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    # The invariants were held against work that was really done, on more than one line.
    assert len(finished) > 1
