"""Each switch of the weather: whatever goes wrong, a question ends in exactly one message of the bridge."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.browser.chat import Chat, at_page
from tests.playground_process import Visitor, playground, visiting
from tests.waiting import eventually

QUESTION = "What about upgrading?"
ANSWER = "Start the new version"
LONG_QUESTION = "How are votes counted?"
LONG_ANSWER = "Slack says which emoji was added"
# What shows in the rows under the bonnet once the trouble was met, and what is in the one message at the end.
LASTING = {
    "kapa_slow": (("chat (stream)", "ok"), ANSWER),
    "kapa_uncertain": (("chat (stream)", "uncertain"), "I am not certain about this answer"),
    "slack_drops": (("chat.startStream", "drop_after"), ANSWER),
    "duplicate": (("put", "duplicate"), ANSWER),
    "kapa_cut_off": (("chat (stream)", "truncate"), "The answer broke off here"),
    "kapa_down": (("chat (stream)", "500"), "could not get an answer"),
}
TRIED_AGAIN = ("kapa_cut_off", "kapa_down")
LIFTED = [("kapa_limited", "429"), ("slack_limited", "429")]


@asynccontextmanager
async def under(chat: Chat, name: str) -> AsyncIterator[None]:
    """Turn a switch on for the block, as a person does."""
    switch = chat.page.locator(f"#weather-{name}")
    label = chat.page.locator(f"label[for=weather-{name}]")
    await chat.page.get_by_role("button", name="Weather", exact=True).click()
    await switch.check()
    await expect(chat.page.get_by_role("status", name="Weather now")).to_contain_text(await label.inner_text())
    try:
        yield
    finally:
        await switch.uncheck()
        await expect(chat.page.locator("#weather-strip")).to_be_hidden()


async def ended_well(chat: Chat, visitor: Visitor, ts: str) -> None:
    """Wait until the bridge is done with a question, and see that there is one message in its thread."""
    await visitor.only_answer(ts)
    await expect(chat.finished).to_have_count(1)
    await expect(chat.thread).to_have_count(2)


@pytest.mark.parametrize(("name", "outcome"), LIFTED)
async def test_under_a_switch_that_is_turned_off_again(chat: Chat, visitor: Visitor, name: str, outcome: str) -> None:
    async with under(chat, name):
        ts = await chat.timestamp_of(await chat.say(QUESTION))

        async def was_met() -> bool:
            return outcome in {found for _, found in await visitor.rows(ts)}

        await eventually(was_met)
    await ended_well(chat, visitor, ts)
    await expect(chat.answers).to_contain_text(ANSWER)


@pytest.mark.parametrize("name", ["kill_worker", "redis_away"])
async def test_when_it_happens_in_the_middle_of_an_answer(chat: Chat, visitor: Visitor, name: str) -> None:
    ts = await chat.timestamp_of(await chat.say(LONG_QUESTION))
    await expect(chat.answers).to_contain_text(LONG_ANSWER)
    await chat.page.get_by_role("button", name="Weather", exact=True).click()
    once = chat.page.locator(f"#weather-{name}")
    await once.click()
    await expect(once).to_have_attribute("aria-busy", "true")
    await expect(once).not_to_have_attribute("aria-busy", "true")
    await ended_well(chat, visitor, ts)
    await expect(chat.answers).to_contain_text(LONG_ANSWER)


async def expect_one_message_under(chat: Chat, visitor: Visitor, name: str) -> None:
    row, text = LASTING[name]
    async with under(chat, name):
        ts = await chat.timestamp_of(await chat.say(QUESTION))
        await ended_well(chat, visitor, ts)
        await expect(chat.answers).to_contain_text(text)
    assert row in await visitor.rows(ts)


@pytest.mark.parametrize("name", [name for name in LASTING if name not in TRIED_AGAIN])
async def test_under_a_switch_that_stays_on(chat: Chat, visitor: Visitor, name: str) -> None:
    await expect_one_message_under(chat, visitor, name)


async def test_where_kapa_never_gets_better(browser: Browser, tmp_path: Path) -> None:
    """They take most of a minute each, so all go on at a time, in playgrounds of their own."""

    async def try_it(name: str) -> None:
        (tmp_path / name).mkdir()
        async with (
            playground(tmp_path / name) as process,
            visiting(process) as visitor,
            at_page(browser, visitor.url) as chat,
        ):
            await expect_one_message_under(chat, visitor, name)

    await asyncio.gather(*map(try_it, TRIED_AGAIN))
