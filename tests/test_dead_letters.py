"""Dead letters on a real Redis: written by the inbox, read, put back and dropped."""

import pytest
from redis.asyncio import Redis

from bridge import inbox as inbox_module
from bridge.dead_letters import DeadLetter, DeadLetters
from bridge.inbox import DEAD, TAG, Inbox, Item, Kind, Put, Ticket


def item(number: int, line: str = "t:c:1") -> Item:
    return Item(id=f"q{number}", line=line, order=f"{number:09}.000100", payload=f"payload {number} 😀")


async def take(inbox: Inbox) -> list[Ticket]:
    return await inbox.take(100, wait_seconds=0.001)


async def bury(inbox: Inbox, *items: Item, reason: str = "kapa: gone", **notes: str) -> None:
    for each in items:
        assert await inbox.put(each, seen=[each.id]) is Put.ACCEPTED
        [ticket] = await take(inbox)
        if notes:
            await inbox.remember(ticket, notes)
        await inbox.finish(ticket, dead_reason=reason)


@pytest.fixture
async def inbox(redis: Redis) -> Inbox:
    """The inbox of a worker."""
    inbox = Inbox(redis, Kind.QUESTION, worker="a")
    await inbox.open()
    return inbox


@pytest.fixture
def letters(redis: Redis) -> DeadLetters:
    """The dead letters under test."""
    return DeadLetters(redis)


async def test_what_is_given_up_can_be_read_with_all_that_is_known_of_it(
    inbox: Inbox, letters: DeadLetters, redis: Redis
) -> None:
    assert await letters.read() == []
    await bury(inbox, item(1), reason="kapa: réfusé", posts='["1.2"]')
    [letter] = await letters.read()
    assert letter == DeadLetter(
        letter.id, letter.at, Kind.QUESTION, "kapa: réfusé", item(1), {"posts": '["1.2"]'}, item(1).to_entry()
    )
    [seconds, _] = await redis.time()
    assert letter.at == pytest.approx(seconds * 1000, abs=60_000)


async def test_what_this_version_cannot_read_is_put_back_as_it_was(
    inbox: Inbox, letters: DeadLetters, redis: Redis
) -> None:
    await inbox.put(item(1), seen=[])
    await redis.lset("{bridge}:question:line:" + item(1).line, 0, '{"of": "a later version"}')
    await redis.xtrim("{bridge}:question:ready", maxlen=0)
    await redis.xadd("{bridge}:question:ready", {"line": item(1).line, "entry": '{"of": "a later version"}'})
    assert await take(inbox) == []
    [letter] = await letters.read()
    assert await letters.retry([letter.id]) == [letter.id]
    assert await redis.lrange("{bridge}:question:line:" + item(1).line, 0, -1) == ['{"of": "a later version"}']


async def test_the_one_behind_a_dead_letter_has_its_turn(inbox: Inbox) -> None:
    await inbox.put(item(1), seen=[])
    await inbox.put(item(2), seen=[])
    [ticket] = await take(inbox)
    await inbox.finish(ticket, dead_reason="broken")
    [ticket] = await take(inbox)
    assert ticket.item == item(2)


async def test_one_that_is_put_back_is_taken_up_where_it_was_left(inbox: Inbox, letters: DeadLetters) -> None:
    await inbox.put(item(1), seen=[])
    for _ in range(2):
        [ticket] = await take(inbox)
        await inbox.retry(ticket)
    [ticket] = await take(inbox)
    await inbox.remember(ticket, {"answer": "42"})
    await inbox.finish(ticket, dead_reason="broken")
    [letter] = await letters.read()
    assert await letters.retry([letter.id]) == [letter.id]
    [again] = await take(inbox)
    # Its failures are forgiven: whoever puts it back believes that their reason is gone.
    assert again == Ticket(again.id, item(1), failures=0, deaths=0, is_resumed=True, notes={"answer": "42"})
    assert await letters.read() == []


async def test_one_that_is_put_back_stands_at_the_end_of_its_line(inbox: Inbox, letters: DeadLetters) -> None:
    await bury(inbox, item(1))
    for number in (2, 3):
        await inbox.put(item(number), seen=[])
    [letter] = await letters.read()
    assert await letters.retry([letter.id]) == [letter.id]
    finished = []
    while tickets := await take(inbox):
        [ticket] = tickets
        finished.append(ticket.item)
        await inbox.finish(ticket)
    assert finished == [item(2), item(3), item(1)]


async def test_one_is_put_back_once(inbox: Inbox, letters: DeadLetters, redis: Redis) -> None:
    await bury(inbox, item(1))
    [letter] = await letters.read()
    assert await letters.retry([letter.id, letter.id]) == [letter.id]
    assert await letters.retry([letter.id]) == []
    assert await letters.drop([letter.id]) == []
    assert await redis.llen(f"{TAG}:question:line:t:c:1") == 1


async def test_one_that_dies_again_is_a_dead_letter_again(inbox: Inbox, letters: DeadLetters) -> None:
    await bury(inbox, item(1), posts="[]")
    await letters.retry([letter.id for letter in await letters.read()])
    [ticket] = await take(inbox)
    await inbox.finish(ticket, dead_reason="still broken")
    [letter] = await letters.read()
    assert (letter.reason, letter.notes, letter.item) == ("still broken", {"posts": "[]"}, item(1))


async def test_each_goes_back_to_its_own_kind(inbox: Inbox, letters: DeadLetters, redis: Redis) -> None:
    votes = Inbox(redis, Kind.VOTE, worker="a")
    await votes.open()
    await bury(votes, item(1))
    [letter] = await letters.read()
    assert letter.kind is Kind.VOTE
    await letters.retry([letter.id])
    assert await take(inbox) == []
    assert [ticket.item for ticket in await take(votes)] == [item(1)]


async def test_dropped_ones_are_gone_and_the_others_stay(inbox: Inbox, letters: DeadLetters) -> None:
    await bury(inbox, item(1), item(2), item(3))
    first, second, third = await letters.read()
    assert await letters.drop([second.id, "1-1"]) == [second.id]
    assert await letters.read() == [first, third]
    assert await take(inbox) == []


@pytest.mark.parametrize("name", ["", "q1", "-", "+", "0", "99999999999999999999999-0", "1-1 ", "١-١", "*", "$"])
async def test_a_name_that_is_no_id_names_none(inbox: Inbox, letters: DeadLetters, name: str) -> None:
    await bury(inbox, item(1))
    assert await letters.retry([name]) == []
    assert await letters.drop([name]) == []
    assert len(await letters.read()) == 1


async def test_no_more_are_kept_than_there_is_room_for(
    inbox: Inbox, letters: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "DEAD_LETTERS", 3)
    await bury(inbox, *(item(number) for number in range(5)))
    assert [letter.item for letter in await letters.read()] == [item(2), item(3), item(4)]


async def test_old_ones_are_dropped(inbox: Inbox, letters: DeadLetters, redis: Redis) -> None:
    [seconds, _] = await redis.time()
    ids = [f"{(seconds - days * 86_400) * 1000}-0" for days in (31, 29)]
    for id_ in ids:
        await redis.xadd(
            DEAD, {"line": "t:c:1", "entry": item(9).to_entry(), "kind": "vote", "reason": "", "notes": "{}"}, id_
        )
    await bury(inbox, item(1))
    assert [letter.item for letter in await letters.read()] == [item(9), item(1)]
    assert [letter.id for letter in await letters.read(last=ids[1])] == [ids[1]]


async def test_one_that_is_put_back_behind_another_keeps_what_is_known_of_it(
    inbox: Inbox, letters: DeadLetters
) -> None:
    await bury(inbox, item(1), posts='["1.2"]', answer="42")
    await bury(inbox, item(2), posts='["2.2"]')
    assert len(await letters.retry([letter.id for letter in await letters.read()])) == 2
    taken = []
    for _ in range(2):
        [ticket] = await take(inbox)
        taken.append((ticket.item.id, ticket.is_resumed, ticket.notes))
        await inbox.finish(ticket)
    assert taken == [("q1", True, {"posts": '["1.2"]', "answer": "42"}), ("q2", True, {"posts": '["2.2"]'})]


@pytest.mark.parametrize("entry", ["no JSON", "[]", "{}", "null", '["a"]', "[1, 2, 3, 4]"])
async def test_what_cannot_be_read_is_given_up_and_holds_nobody_up(
    inbox: Inbox, letters: DeadLetters, redis: Redis, entry: str
) -> None:
    line = item(1).line
    await redis.rpush(f"{TAG}:question:line:{line}", entry)
    await redis.xadd(f"{TAG}:question:ready", {"line": line, "entry": entry})
    await inbox.put(item(1), seen=[])
    await inbox.put(item(2), seen=[])
    assert await take(inbox) == []
    [ticket] = await take(inbox)
    assert ticket.item == item(1)
    [letter] = await letters.read()
    assert (letter.item.payload, letter.item.line) == (entry, line)
    assert await letters.drop([letter.id]) == [letter.id]


async def test_what_is_too_old_is_none_any_more_though_nothing_new_came(letters: DeadLetters, redis: Redis) -> None:
    seconds, _ = await redis.time()
    old, young = (f"{(seconds - days * 86_400) * 1000}-0" for days in (31, 29))
    for id_ in (old, young):
        await redis.xadd(
            DEAD, {"line": "t:c:1", "entry": item(9).to_entry(), "kind": "vote", "reason": "", "notes": "{}"}, id_
        )
    assert [letter.id for letter in await letters.read()] == [young]
    assert await letters.retry([old]) == []
    assert await redis.xlen(DEAD) == 2
    assert await letters.trim() == 1
    assert [letter.id for letter in await letters.read()] == [young]


async def test_there_may_be_nothing_to_trim(letters: DeadLetters) -> None:
    assert await letters.trim() == 0
