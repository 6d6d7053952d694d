"""`make screenshot`: the pictures of the docs, taken of the real playground in a real browser.

Each picture is a scene: a person does something at the page, and what is then seen is kept in `docs/images`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.async_api import Browser, FloatRect, Locator, expect

from tests.browser.chat import Chat, at_page
from tests.browser.chromium import NoBrowserError, launched
from tests.playground_process import address, playground

IMAGES = Path(__file__).parent.parent.parent / "docs" / "images"
FIRST = "What happens when Redis goes away?"
SECOND = "What about upgrading?"
EDITED = "What about edited questions?"
PADDING = 6
SETTING = {"viewport": {"width": 1280, "height": 800}, "device_scale_factor": 1, "reduced_motion": "reduce"}
WIDE = SETTING | {"viewport": {"width": 1600, "height": 900}}
TALL = SETTING | {"viewport": {"width": 1280, "height": 2400}}


async def keep(chat: Chat, name: str, *shown: Locator) -> None:
    """Keep what is seen of the page, or of it from the first to the last of what is to be shown."""
    clip = None
    if shown:
        boxes = [box for one in shown if (box := await one.bounding_box()) is not None]
        left, top = min(box["x"] for box in boxes) - PADDING, min(box["y"] for box in boxes) - PADDING
        right = max(box["x"] + box["width"] for box in boxes) + PADDING
        bottom = max(box["y"] + box["height"] for box in boxes) + PADDING
        clip = FloatRect(x=left, y=top, width=right - left, height=bottom - top)
    await chat.page.mouse.move(0, 0)
    await chat.page.screenshot(path=IMAGES / f"{name}.png", clip=clip, animations="disabled")


async def keep_thread(chat: Chat, name: str) -> None:
    await keep(chat, name, chat.thread.first, chat.thread.last)


@asynccontextmanager
async def under(chat: Chat, *names: str) -> AsyncIterator[None]:
    """Have this weather for the block."""
    for name in names:
        await post(chat, "weather", name=name, on=True)
    try:
        yield
    finally:
        for name in names:
            await post(chat, "weather", name=name, on=False)


async def post(chat: Chat, path: str, **fields: object) -> None:
    reply = await chat.page.request.post(f"{chat.page.url}{path}", data=fields)
    assert reply.ok


# Scenes


async def others_ask(chat: Chat) -> None:
    for user, text in (("U0GRACE", "What is kept of messages?"), ("U0ALAN", "What are dead letters?")):
        await post(chat, "say", user=user, channel="C0GENERAL", text=text)
        await expect(chat.messages.last).to_contain_text("1 reply")


async def conversation(chat: Chat) -> None:
    await others_ask(chat)
    await chat.ask(FIRST)
    answer = await chat.follow_up(SECOND)
    await answer.get_by_role("button", name="React with thumbs up").click()
    await expect(answer.get_by_role("button", name="thumbs up, 1 person")).to_be_visible()
    await chat.box("Reply").focus()
    await keep(chat, "playground-light")
    await chat.page.emulate_media(color_scheme="dark")
    await keep(chat, "playground-dark")


async def plain(chat: Chat) -> None:
    await chat.ask(SECOND)
    await keep_thread(chat, "answer")


async def long(chat: Chat) -> None:
    await chat.ask(FIRST)
    await keep_thread(chat, "answer-long")


async def growing(chat: Chat) -> None:
    await chat.say("How are votes counted?")
    await expect(chat.answers).to_contain_text("removed")
    await keep_thread(chat, "answer-growing")
    await chat.answer()


async def uncertain(chat: Chat) -> None:
    async with under(chat, "kapa_uncertain"):
        await chat.ask(SECOND)
    await keep_thread(chat, "answer-uncertain")


async def nothing_found(chat: Chat) -> None:
    await chat.ask("Who was Napoleon?")
    await keep_thread(chat, "answer-nothing-found")


async def edited(chat: Chat) -> None:
    await chat.ask("What about upgradings and downgradings?")
    await chat.edit(chat.messages.last, EDITED)
    await expect(chat.answers).to_contain_text("Edits and deletions")
    await chat.answer()
    await keep_thread(chat, "answer-edited")


async def help_(chat: Chat) -> None:
    await chat.ask("@bridge")
    await keep_thread(chat, "answer-help")


async def thanks(chat: Chat) -> None:
    answer = await chat.ask(SECOND)
    await answer.get_by_role("button", name="Good answer").click()
    await expect(chat.whispers).to_have_count(1)
    await keep_thread(chat, "answer-thanks")


async def downvote(chat: Chat) -> None:
    answer = await chat.ask(SECOND)
    await answer.get_by_role("button", name="React with thumbs down").click()
    await expect(chat.whispers).to_have_count(1)
    await keep_thread(chat, "answer-downvote")
    await chat.whispers.get_by_role("button").last.click()
    modal = chat.page.get_by_role("dialog", name="What was wrong?")
    await modal.get_by_label("leaves my question open").check()
    await modal.get_by_label("In your own words").fill("How long does it take?")
    await keep(chat, "downvote-modal", modal)


async def bonnet(chat: Chat) -> None:
    async with under(chat, "duplicate", "slack_drops"):
        answer = await chat.ask(SECOND)
    await answer.get_by_role("button", name="Good answer").click()
    await chat.button("Under the bonnet").click()
    chart = chat.page.locator("#bonnet-chart .row")
    await expect(chart.filter(has_text="feedback").first).to_be_visible()
    await chart.filter(has_text="chat (stream)").first.click()
    await chat.page.locator("#bonnet-chart").evaluate("(chart) => chart.scrollTo(0, 0)")
    await keep(chat, "under-the-bonnet")


async def weather(chat: Chat) -> None:
    await chat.ask(SECOND)
    await chat.button("Weather").click()
    async with under(chat, "kapa_slow", "duplicate"):
        await expect(chat.page.locator("#weather-strip")).to_be_visible()
        await keep(chat, "weather")


async def cut_off(chat: Chat) -> None:
    async with under(chat, "kapa_cut_off"):
        await chat.say(SECOND)
        await expect(chat.answers).to_contain_text("broke off", timeout=120_000)
        await chat.answer()
    await keep_thread(chat, "answer-cut-off")


async def unavailable(chat: Chat) -> None:
    async with under(chat, "kapa_down"):
        await chat.say(SECOND)
        await expect(chat.answers).to_contain_text("does not respond", timeout=120_000)
        await chat.answer()
    await keep_thread(chat, "answer-none")


@dataclass(frozen=True)
class Scene:
    """What is done before a picture, and the browser that it is done in."""

    play: Callable[[Chat], Awaitable[None]]
    setting: dict[str, object]


SCENES = (
    Scene(conversation, SETTING),
    Scene(plain, SETTING),
    Scene(long, TALL),
    Scene(growing, SETTING),
    Scene(uncertain, SETTING),
    Scene(nothing_found, SETTING),
    Scene(edited, TALL),
    Scene(help_, SETTING),
    Scene(thanks, SETTING),
    Scene(downvote, SETTING),
    Scene(bonnet, WIDE),
    Scene(weather, SETTING),
    # Kapa is spared for a while after these.
    Scene(cut_off, SETTING),
    Scene(unavailable, SETTING),
)


async def take(browser: Browser, scene: Scene) -> None:
    """Play one scene in a playground of its own."""
    with TemporaryDirectory() as folder:
        async with (
            playground(Path(folder)) as process,
            at_page(browser, await address(process), **scene.setting) as chat,
        ):
            await scene.play(chat)


async def take_all(wanted: list[str]) -> None:
    """Take the pictures of the named scenes, or of all; raises NoBrowserError."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    async with launched() as browser:
        for scene in SCENES:
            if not wanted or scene.play.__name__ in wanted:
                await take(browser, scene)


if __name__ == "__main__":
    try:
        asyncio.run(take_all(sys.argv[1:]))
    except NoBrowserError as error:
        sys.exit(str(error))
