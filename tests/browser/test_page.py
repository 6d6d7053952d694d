"""The page itself: by keyboard alone, in light and dark, in a narrow window, and where it cannot be had."""

import re

from playwright.async_api import Browser, expect

from tests.browser.chat import Chat, at_page
from tests.playground_process import Visitor

QUICK = "What about upgrading?"


async def tab_to(chat: Chat, name: str, key: str = "Tab") -> None:
    """Press a key until the element with this name has the focus; raises AssertionError where it never has."""
    named = "() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()"
    for _ in range(100):
        if await chat.page.evaluate(named) == name:
            return
        await chat.page.keyboard.press(key)
    raise AssertionError(f"no way to {name!r}")


async def test_all_of_it_by_keyboard_alone(chat: Chat) -> None:
    keyboard = chat.page.keyboard
    await tab_to(chat, "Skip to the message box")
    await keyboard.press("Enter")
    await keyboard.type(QUICK)
    await keyboard.press("Enter")
    await chat.answer()
    await tab_to(chat, "Reply")
    await keyboard.type("And the settings?")
    await keyboard.press("Enter")
    answer = await chat.answer(2)
    await tab_to(chat, "Good answer", "Shift+Tab")
    await keyboard.press("Enter")
    await expect(answer.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
    await tab_to(chat, "React with thumbs up")
    await keyboard.press("Enter")
    await expect(answer.get_by_role("button", name="thumbs up, 1 person")).to_be_focused()
    await tab_to(chat, "Add a reaction")
    await keyboard.press("Enter")
    await keyboard.type("tada")
    await keyboard.press("ArrowDown")
    await keyboard.press("Enter")
    await expect(answer.get_by_role("button", name=re.compile("^.*, 1 person$"))).to_have_count(2)
    await keyboard.press("Escape")
    await expect(chat.page.locator("#pane")).to_be_hidden()
    await expect(chat.box("Message")).to_be_focused()


async def test_light_and_dark(browser: Browser, visitor: Visitor) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        async with at_page(browser, visitor.url, color_scheme=scheme) as chat:
            colours = "() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
            seen[scheme] = [sum(map(int, re.findall(r"\d+", one)[:3])) for one in await chat.page.evaluate(colours)]
    (paper, ink), (night, chalk) = seen["light"], seen["dark"]
    assert paper > ink
    assert night < chalk


async def test_in_a_narrow_window(browser: Browser, visitor: Visitor) -> None:
    async with at_page(browser, visitor.url, viewport={"width": 400, "height": 700}) as chat:
        await expect(chat.box("Message")).to_be_in_viewport()
        await chat.ask(QUICK)
        await expect(chat.box("Reply")).to_be_in_viewport()
        await expect(chat.box("Message")).to_be_hidden()
        assert await chat.page.evaluate("() => document.documentElement.scrollWidth") <= 400
        await chat.button("Close the thread").click()
        await expect(chat.box("Message")).to_be_in_viewport()
        await chat.button("Back to the conversations").click()
        await chat.go_to("# help")
        for panel in ("Weather", "Under the bonnet"):
            await chat.button(panel).click()
            await expect(chat.page.get_by_role("region", name=panel)).to_be_in_viewport()
            assert await chat.page.evaluate("() => document.documentElement.scrollWidth") <= 400
            await chat.page.keyboard.press("Escape")
            await expect(chat.page.get_by_role("region", name=panel)).to_be_hidden()


async def test_under_the_bonnet_one_sees_what_happened(chat: Chat) -> None:
    await chat.ask(QUICK)
    await chat.button("Under the bonnet").click()
    maps = chat.page.locator("#bonnet-maps")
    await expect(maps).to_contain_text("Slack thread ⇄ Kapa thread")
    await expect(maps).to_contain_text("question_answer_id")
    await expect(maps).not_to_contain_text("not yet")
    call = chat.page.locator("#bonnet-chart .row").filter(has_text="chat (stream)")
    await call.click()
    await expect(chat.page.locator("#bonnet-detail")).to_contain_text(QUICK)


async def test_the_direct_message_is_answered_too(chat: Chat) -> None:
    await chat.go_to("Bridge")
    answer = await chat.ask(QUICK)
    await expect(answer).to_contain_text("Start the new version")
    await expect(chat.page.locator("#hint")).not_to_contain_text("not in this channel")


async def test_a_suggested_question_is_taken_by_a_click(chat: Chat) -> None:
    await chat.go_to("# secret-plans")
    await expect(chat.page.locator("#hint")).to_contain_text("Ask, for example:")
    example = chat.page.locator("#hint .example").first
    text = await example.inner_text()
    await example.click()
    await expect(chat.box("Message")).to_have_value(text)
    await expect(chat.box("Message")).to_be_focused()
    await chat.say(QUICK)
    await expect(chat.page.locator("#hint")).not_to_contain_text("Ask, for example:")


async def test_the_bridge_is_not_everywhere(chat: Chat) -> None:
    await chat.go_to("# elsewhere")
    await expect(chat.page.locator("#hint")).to_contain_text("is not in this channel")
