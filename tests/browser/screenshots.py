"""`make screenshot`: the pictures of the docs, taken of the real playground in a real browser.

Each picture is a scene: a person does something at the page, and what is then seen is kept in `docs/images`. That of
the status page is taken of an hour that is made up, since nobody waits for a real one.
"""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from playwright.async_api import Browser, FloatRect, Locator, expect

from bridge.inbox import Backlog
from bridge.metrics import Metrics
from tests.browser.chat import Chat, at_page
from tests.browser.chromium import NoBrowserError, launched
from tests.playground_process import address, playground
from tests.test_admin import Life, served

IMAGES = Path(__file__).parent.parent.parent / "docs" / "images"
FIRST = "What happens when Redis goes away?"
SECOND = "What about upgrading?"
EDITED = "What about edited questions?"
PADDING = 6
SETTING = {"viewport": {"width": 1280, "height": 800}, "device_scale_factor": 1, "reduced_motion": "reduce"}
WIDE = SETTING | {"viewport": {"width": 1600, "height": 900}}
TALL = SETTING | {"viewport": {"width": 1280, "height": 2400}}
# Down to the end of the first row of charts.
STATUS = SETTING | {"viewport": {"width": 1240, "height": 836}, "timezone_id": "UTC"}


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


# The status page


def hour() -> Life:
    """Make an hour of a bridge up, always the same: busy from the 25th minute to the 45th, with Kapa out in between."""
    chance, life = random.Random(4), Life()
    life.metrics.redis(takes_writes=True)
    for minute in range(58):
        is_busy, is_out = 25 <= minute < 45, 33 <= minute < 37
        for _ in range(6):
            for _ in range(chance.choice((0, 1, 1, 2) if is_busy else (0, 0, 0, 0, 0, 1))):
                ask(life.metrics, chance, is_out=is_out)
            waiting = chance.randrange(3) * is_busy + (minute - 30) * is_out
            oldest = 60.0 * (minute - 32) * is_out + 3.0 * waiting
            life.metrics.backlog("question", Backlog(waiting, 0, waiting, oldest, 0))
            life.metrics.backlog("vote", Backlog(0, 0, 0, 0, 0))
            life.metrics.dead_letters(int(given_up(life.metrics)))
            life.sample()
    return life


def given_up(metrics: Metrics) -> float:
    labels = {"kind": "question", "result": "dead"}
    return metrics.registry.get_sample_value("bridge_work_total", labels) or 0


def ask(metrics: Metrics, chance: random.Random, *, is_out: bool) -> None:
    """Count a question, and what comes of it."""
    metrics.event("accepted")
    metrics.event("not_a_message")
    metrics.intake(chance.lognormvariate(-6.2, 0.3))
    metrics.kapa_call("chat_stream", "unavailable" if is_out else "ok", chance.lognormvariate(1.2, 0.3))
    if is_out:
        metrics.work("question", chance.choice(["again"] * 9 + ["dead"]))
        return
    seconds = chance.lognormvariate(0.5, 0.3)
    metrics.work("question", "answered")
    metrics.added(chance.lognormvariate(-5.3, 0.4))
    metrics.first_text(seconds)
    metrics.answer("answered", seconds + chance.lognormvariate(1.3, 0.3))
    for method in ("chat.startStream", "chat.appendStream", "chat.appendStream", "chat.stopStream"):
        metrics.slack_call(method, chance.choice(["ok"] * 40 + ["busy"]), chance.lognormvariate(-1.8, 0.3))
    if chance.random() < 0.4:
        metrics.work("vote", chance.choice(["upvote", "upvote", "upvote", "downvote"]))


async def status_page(browser: Browser) -> None:
    """Take the top of the status page."""
    life, options = hour(), cast("dict[str, Any]", STATUS)
    states = {"redis": True, "slack": True, "started": True, "not_draining": True}
    async with served(states, life.metrics, life.history) as url:
        page = await browser.new_page(**options)
        await page.goto(url)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Ready")
        await page.locator("#chart-questions .plot").hover(position={"x": 185, "y": 60})
        await page.screenshot(path=IMAGES / "status-page.png", animations="disabled")
        await page.close()


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
        if not wanted or status_page.__name__ in wanted:
            await status_page(browser)


if __name__ == "__main__":
    try:
        asyncio.run(take_all(sys.argv[1:]))
    except NoBrowserError as error:
        sys.exit(str(error))
