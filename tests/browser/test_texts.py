"""Whatever a person types is shown as they typed it, and never runs."""

import pytest
from playwright.async_api import Locator, expect

from tests.browser.chat import Chat
from tests.playground_process import Visitor

ELSEWHERE = "# elsewhere"
SCRIPTS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "<svg/onload=alert(1)> <iframe srcdoc='<script>alert(1)</script>'>",
    '"><a href="javascript:alert(1)">x</a>',
]
LONG = 30_000


async def silence(chat: Chat) -> None:
    """Go where the bridge is not."""
    await chat.go_to(ELSEWHERE)


@pytest.mark.parametrize("text", SCRIPTS)
async def test_a_script_is_a_text(chat: Chat, text: str) -> None:
    answer = await chat.ask(f"{text} upgrading")
    for place in (chat.messages.last, chat.thread.first):
        await expect(place.locator(".text")).to_have_text(f"{text} upgrading")
        await expect(place.locator(".text :is(script, img, svg, iframe, a)")).to_have_count(0)
    await expect(answer).to_be_visible()
    await chat.reload()
    await expect(chat.thread.first.locator(".text")).to_have_text(f"{text} upgrading")


async def test_a_script_in_what_one_edits_is_a_text(chat: Chat) -> None:
    await silence(chat)
    await chat.say("harmless")
    await chat.edit(chat.messages.last, SCRIPTS[0])
    await expect(chat.messages.last.locator(".text")).to_contain_text(SCRIPTS[0])


async def test_nothing_but_its_own_files_may_run_in_the_page(visitor: Visitor) -> None:
    async with visitor.session.get(visitor.url) as reply:
        policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


async def test_thirty_thousand_characters_are_one_message(chat: Chat) -> None:
    await silence(chat)
    text = ("many words " * LONG)[: LONG - 4] + "last"
    message = await chat.say(text)
    await expect(message.locator(".text")).to_have_text(text)
    await chat.box("Message").fill("still here")
    await expect(chat.box("Message")).to_have_value("still here")


async def test_a_question_of_thirty_thousand_characters_has_one_reply(chat: Chat) -> None:
    answer = await chat.ask("upgrading " * (LONG // 10))
    await expect(answer).to_be_visible()
    await expect(chat.answers).to_have_count(1)


async def begins_at(text: Locator) -> float:
    """Give where in its line a text begins: 0 at the left end, 1 at the right."""
    place = """(element) => {
        const range = document.createRange();
        range.setStart(element.firstChild, 0);
        range.setEnd(element.firstChild, 1);
        const [first, whole] = [range.getBoundingClientRect(), element.getBoundingClientRect()];
        return (first.left - whole.left) / whole.width;
    }"""
    return float(await text.evaluate(place))


async def test_right_to_left_and_emoji(chat: Chat) -> None:
    await silence(chat)
    arabic = await chat.say("مرحبا كيف حالك؟")
    text = arabic.locator(".text")
    await expect(text).to_have_text("مرحبا كيف حالك؟")
    assert await begins_at(text) > 0.5
    family = await chat.say("👩‍👩‍👧‍👦 🇺🇳 👍🏾 :tada:")
    await expect(family.locator(".text")).to_have_text("👩‍👩‍👧‍👦 🇺🇳 👍🏾 🎉")
    assert await begins_at(family.locator(".text")) < 0.5


async def test_five_hundred_messages_leave_the_page_usable(chat: Chat, visitor: Visitor) -> None:
    for number in range(500):
        await visitor.post("say", user="U0GRACE", channel="C0ELSEWHERE", text=f"message {number} of **many**")
    await silence(chat)
    await expect(chat.said("message 499 of")).to_be_visible()
    await chat.reload()
    await expect(chat.messages).to_have_count(500)
    await expect(chat.messages.last).to_be_in_viewport()
    mine = await chat.say("and one more")
    await expect(mine).to_be_in_viewport()
    await mine.get_by_role("button", name="React with thumbs up").click()
    await expect(mine.get_by_role("button", name="thumbs up, 1 person")).to_be_visible()
