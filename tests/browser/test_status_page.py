"""The status page as a person sees it: what it says of the bridge, live, and where it says that it does not know."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, Route, expect

from bridge import admin, history
from bridge.embedded_redis import EmbeddedRedis
from bridge.inbox import Backlog
from tests.browser.chat import Trouble
from tests.rig import ADA, GENERAL, Rig, free_port, hurry
from tests.test_admin import Life, served
from tests.waiting import eventually

ALL_WELL = {"redis": True, "slack": True, "started": True, "not_draining": True}
NARROW = {"width": 360, "height": 700}
HOSTILE = "<img src=x onerror=alert(1)>"


class View:
    """The page in one browser window."""

    def __init__(self, page: Page) -> None:
        self.page = page

    @property
    def state(self) -> Locator:
        return self.page.get_by_role("heading", level=1)

    def tile(self, title: str) -> Locator:
        return self.page.locator(".tile").filter(has=self.page.get_by_role("heading", name=title, exact=True))

    def chart(self, title: str) -> Locator:
        return self.page.get_by_role("figure", name=title, exact=True)

    def plot(self, title: str) -> Locator:
        return self.chart(title).get_by_role("slider")

    async def later(self) -> None:
        """Let so much time pass that the page asks again."""
        await self.page.clock.fast_forward(6_000)

    async def width(self) -> int:
        return int(await self.page.evaluate("document.documentElement.scrollWidth"))


@asynccontextmanager
async def at_status(browser: Browser, url: str, *, is_away: bool = False, **options: Any) -> AsyncIterator[View]:
    """Open the page; raises AssertionError at the end where something unexpected happened.

    With `is_away` it may be that nobody answers, which the browser writes down.
    """
    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "timezone_id": "UTC"} | options)
    trouble = Trouble()
    try:
        page = await context.new_page()
        trouble.watch(page)
        await page.clock.install()
        await page.goto(url)
        view = View(page)
        await expect(view.state).not_to_contain_text("Asking")
        yield view
    finally:
        await context.close()
    assert [one for one in trouble.found if not (is_away and "ERR_CONNECTION_REFUSED" in one)] == []


def busy(role: str = "all") -> Life:
    """Give a bridge that has answered three questions and given one up, with one more that waits."""
    life = Life(role)
    metrics = life.metrics
    metrics.redis(takes_writes=True)
    life.sample(30)
    for seconds in (1.5, 3.0, 7.0):
        metrics.event("accepted")
        metrics.intake(0.002)
        metrics.first_text(seconds)
        metrics.answer("answered", seconds * 2)
        metrics.added(0.004)
        metrics.work("question", "answered")
        metrics.kapa_call("chat_stream", "ok", seconds)
        metrics.slack_call("chat.startStream", "ok", 0.1)
    metrics.work("question", "dead")
    metrics.work("question", "again")
    metrics.work("vote", "downvote")
    metrics.budget_wait("kapa", 3.0)
    metrics.kapa_call("chat_stream", "unavailable", 0.3)
    metrics.backlog("question", Backlog(waiting=1, later=0, unfinished=1, oldest_seconds=75, untaken_seconds=0))
    metrics.backlog("vote", Backlog(waiting=0, later=0, unfinished=0, oldest_seconds=0, untaken_seconds=0))
    metrics.dead_letters(1)
    # The last minute is over, and nothing happened in the one after it.
    life.sample(12)
    return life


@pytest.fixture
def life() -> Life:
    return busy()


# What is said


async def test_at_a_glance_one_sees_that_all_is_well(browser: Browser, life: Life) -> None:
    async with served(ALL_WELL, life.metrics, life.history) as url, at_status(browser, url) as view:
        await expect(view.state).to_have_text("Ready")
        await expect(view.page).to_have_title("Ready – bridge")
        facts = view.page.get_by_role("list", name="This process")
        await expect(facts).to_contain_text(re.compile(r"Version \d.*Role all.*Up for 7 min, since \d\d:\d\d"))
        await expect(view.page.locator("#checks .passes")).to_have_count(4)
        answered = view.tile("Questions answered")
        await expect(answered).to_contain_text(re.compile("^Questions answered3since the start 7 min ago"))
        await expect(answered).to_contain_text("1 given up")
        await expect(view.tile("Questions not finished")).to_contain_text("The oldest is 1 min 15 s old")
        await expect(view.tile("Dead letters")).to_contain_text("bridge dead-letters list")
        await expect(view.tile("Votes")).to_contain_text("0 upvotes, 1 downvote")


@pytest.mark.parametrize(
    ("failing", "heading", "advice"),
    [
        (["redis"], "Not ready: Redis may lose questions", "docs/operations.md, “Redis”"),
        (["slack"], "Not ready: Slack is not there", "status.slack.com"),
        (["slack", "started"], "Not ready: Slack is not there and it is still starting", "slack_not_reached"),
        (["not_draining"], "Draining", "BRIDGE_DRAIN_SECONDS"),
        (["slack", "not_draining"], "Draining: Slack is not there", "socket_not_connected"),
    ],
)
async def test_what_is_wrong_is_said_first_and_what_to_do_beside_it(
    browser: Browser, life: Life, failing: list[str], heading: str, advice: str
) -> None:
    states = ALL_WELL | dict.fromkeys(failing, False)
    async with served(states, life.metrics, life.history) as url, at_status(browser, url) as view:
        await expect(view.state).to_have_text(heading)
        await expect(view.page).to_have_title(f"{heading} – bridge")
        await expect(view.page.locator("#checks .fails")).to_have_count(len(failing))
        await expect(view.page.locator("#checks")).to_contain_text("What to do:")
        await expect(view.page.locator("#checks")).to_contain_text(advice)


async def test_what_redis_would_know_is_not_known_while_it_is_away(browser: Browser, life: Life) -> None:
    life.metrics.redis(takes_writes=False)
    life.sample()
    states = ALL_WELL | {"redis": False}
    async with served(states, life.metrics, life.history) as url, at_status(browser, url) as view:
        await expect(view.state).to_have_text("Not ready: Redis does not take writes")
        await expect(view.page.locator("#checks")).to_contain_text("When Redis refuses writes")
        for title in ("Questions not finished", "Dead letters"):
            await expect(view.tile(title)).to_contain_text("–Not known while Redis does not take writes")
        await expect(view.chart("Not finished yet")).to_contain_text("not known: Redis does not take writes")
        # What it knows by itself, it still says.
        await expect(view.tile("Questions answered")).to_contain_text("3")


async def test_where_nothing_has_happened_it_says_so(browser: Browser) -> None:
    life = Life()
    life.metrics.redis(takes_writes=True)
    async with served(ALL_WELL, life.metrics, life.history) as url, at_status(browser, url) as view:
        chart = view.chart("Questions by outcome")
        await expect(chart).to_contain_text("The first numbers come ten seconds after the start.")
        life.sample(3)
        await view.later()
        await expect(view.page.get_by_text("Nothing was asked since the start 30 s ago.")).to_be_visible()
        await expect(chart).to_contain_text("No question was finished in this time.")
        await expect(view.page.get_by_role("slider")).to_have_count(0)


@pytest.mark.parametrize(
    ("role", "hint", "shown", "hidden"),
    [
        ("ingress", "look at the same page on a worker's admin port", "Events from Slack", "Questions by outcome"),
        ("worker", "Events from Slack are counted by the ingress", "Questions by outcome", "Events from Slack"),
    ],
)
async def test_half_a_bridge_says_where_the_other_half_is(
    browser: Browser, role: str, hint: str, shown: str, hidden: str
) -> None:
    life = busy(role)
    async with served(ALL_WELL, life.metrics, life.history) as url, at_status(browser, url) as view:
        await expect(view.page.get_by_text(hint)).to_be_visible()
        await expect(view.chart(shown)).to_be_visible()
        await expect(view.chart(hidden)).to_be_hidden()
        # What is in Redis is the same everywhere.
        await expect(view.chart("Not finished yet")).to_contain_text("all processes")


# Charts


async def test_a_chart_says_its_numbers_to_who_points_at_it(browser: Browser, life: Life) -> None:
    async with served(ALL_WELL, life.metrics, life.history) as url, at_status(browser, url) as view:
        chart = view.chart("Questions by outcome")
        await expect(chart).to_contain_text("4 questions in the last hour")
        await expect(chart.locator(".legend li")).to_have_text(["answered 3", "given up 1"])
        tip = chart.locator(".tip")
        await expect(tip).to_be_hidden()
        bar = await chart.locator(".plot .bar.tone-blue").bounding_box()
        assert bar is not None
        await view.page.mouse.move(bar["x"] + bar["width"] / 2, bar["y"] - 20)
        await expect(tip).to_contain_text(re.compile(r"^\d\d:\d\d–\d\d:\d\danswered 3given up 1$"))
        await view.page.mouse.move(0, 0)
        await expect(tip).to_be_hidden()


async def test_a_chart_says_its_numbers_to_who_has_a_keyboard(browser: Browser, life: Life) -> None:
    async with served(ALL_WELL, life.metrics, life.history) as url, at_status(browser, url) as view:
        plot, tip = view.plot("Questions by outcome"), view.chart("Questions by outcome").locator(".tip")
        await expect(plot).to_have_accessible_name(re.compile("^Questions by outcome: 4 questions in the last hour"))
        await plot.focus()
        await expect(tip).to_contain_text("nothing")
        await expect(plot).to_have_attribute("aria-valuetext", re.compile(r"^\d\d:\d\d–\d\d:\d\d: nothing$"))
        await plot.press("ArrowLeft")
        await expect(plot).to_have_attribute("aria-valuetext", re.compile(": answered 3 and given up 1$"))
        await expect(tip).to_contain_text("answered 3")
        # It stays with its minute while time goes on, also when the first minutes are forgotten.
        for samples, last, place in ((6, 7, 5), (6 * 53, 59, 4)):
            life.sample(samples)
            await view.later()
            await expect(plot).to_have_attribute("aria-valuemax", str(last))
            await expect(plot).to_have_attribute("aria-valuenow", str(place))
            await expect(plot).to_have_attribute("aria-valuetext", re.compile(": answered 3 and given up 1$"))
        await plot.press("End")
        await expect(plot).to_have_attribute("aria-valuenow", "59")
        await plot.press("Home")
        await expect(plot).to_have_attribute("aria-valuenow", "0")
        await plot.press("Escape")
        await expect(tip).to_be_hidden()


async def test_a_chart_is_a_table_too(browser: Browser, life: Life) -> None:
    async with served(ALL_WELL, life.metrics, life.history) as url, at_status(browser, url) as view:
        chart = view.chart("Questions by outcome")
        await chart.get_by_text("As a table").click()
        rows = chart.get_by_role("row")
        await expect(rows).to_have_count(2)
        await expect(rows.first).to_have_text("TimeAnsweredHelp shownRefused by KapaGiven upEdited or deleted")
        await expect(rows.last).to_have_text(re.compile(r"^\d\d:\d\d–\d\d:\d\d30010$"))
        times = view.chart("Time to the first text")
        await expect(times).to_contain_text("3.8 s median, 95 of 100 within 9.3 s, in the last hour")
        await times.get_by_text("As a table").click()
        await expect(times.get_by_role("row").last).to_contain_text("3.8 s9.3 s")
        calls = view.chart("Calls to Kapa")
        await calls.get_by_text("Call by call").click()
        await expect(calls.get_by_role("row")).to_have_count(3)
        await expect(calls.get_by_role("row").nth(1)).to_contain_text("chat_streamok3")
        # It is still open, and still true, after the next answer.
        life.metrics.work("question", "answered")
        life.sample(6)
        await view.later()
        await expect(rows).to_have_count(3)


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("Questions by outcome", "4 questions"),
        ("Time to the first text", "3.8 s median"),
        ("Time to the answer", "7.5 s median"),
        ("Time the bridge adds", "3.8 ms median"),
        ("Not finished yet", "1 question and 0 votes now"),
        ("Age of the oldest", "1 min 15 s now"),
        ("Dead letters", "1 now"),
        ("Retries, lost leases", "1 interruption"),
        ("Votes by kind", "1 vote in the last hour"),
        ("Calls to Kapa", "4 calls"),
        ("Calls to Slack", "3 calls"),
        ("Waits for a turn", "1 wait in the last hour; median 3.8 s"),
        ("Events from Slack", "3 events"),
        ("Time to take an event in", "1.8 ms median"),
    ],
)
async def test_every_number_has_its_chart(browser: Browser, life: Life, title: str, said: str) -> None:
    async with served(ALL_WELL, life.metrics, life.history) as url, at_status(browser, url) as view:
        await expect(view.chart(title)).to_contain_text(said)
        await expect(view.plot(title).locator(".bar, .line").first).to_be_attached()
        await expect(view.page.get_by_role("figure")).to_have_count(14)


async def test_the_last_ten_minutes_are_shown_in_steps_of_ten_seconds(browser: Browser, life: Life) -> None:
    async with served(ALL_WELL, life.metrics, life.history) as url, at_status(browser, url) as view:
        await view.page.get_by_label("10 minutes").check()
        chart = view.chart("Questions by outcome")
        await expect(chart).to_contain_text("4 questions in the last 10 minutes")
        await expect(view.plot("Questions by outcome")).to_have_attribute("aria-valuemax", "41")
        await chart.get_by_text("As a table").click()
        await expect(chart.get_by_role("row").last).to_have_text(re.compile(r"^\d\d:\d\d:\d\d–\d\d:\d\d:\d\d30010$"))


# Live


async def test_it_goes_on_by_itself(browser: Browser, life: Life) -> None:
    states = dict(ALL_WELL)
    async with served(states, life.metrics, life.history) as url, at_status(browser, url) as view:
        life.metrics.work("question", "answered")
        life.sample()
        states["not_draining"] = False
        await view.later()
        await expect(view.state).to_have_text("Draining")
        await expect(view.tile("Questions answered")).to_contain_text("Questions answered4")
        await expect(view.chart("Questions by outcome")).to_contain_text("5 questions in the last hour")


@asynccontextmanager
async def bridge_at(port: int, life: Life) -> AsyncIterator[str]:
    routes = admin.routes({}, life.metrics, history=life.history)
    async with admin.serving(routes, "127.0.0.1", port):
        yield f"http://127.0.0.1:{port}/"


async def test_old_numbers_are_never_shown_as_new(browser: Browser, life: Life) -> None:
    port = free_port()
    async with AsyncExitStack() as stack:
        async with bridge_at(port, life) as url:
            view = await stack.enter_async_context(at_status(browser, url, is_away=True))
            await expect(view.state).to_have_text("Ready")
        await view.later()
        # At once, and not only when the last answer is old.
        await expect(view.state).to_have_text(re.compile(r"^No answer since \d\d:\d\d:\d\d$"), timeout=5_000)
        await expect(view.page).to_have_title("No answer – bridge")
        await expect(view.page.locator("body")).to_have_class("is-stale")
        async with bridge_at(port, Life()):
            await view.later()
            await expect(view.state).to_have_text("Ready")
            await expect(view.page.locator("body")).not_to_have_class("is-stale")
            await expect(view.tile("Questions answered")).to_contain_text("Questions answered0")


async def test_a_page_that_was_asleep_says_that_it_is_old_before_it_knows_better(browser: Browser, life: Life) -> None:
    async with served(ALL_WELL, life.metrics, life.history) as url, at_status(browser, url) as view:
        may_answer = asyncio.Event()

        async def hold(route: Route) -> None:
            await may_answer.wait()
            await route.continue_()

        await view.page.route("**/status.json*", hold)
        await view.page.clock.fast_forward(60_000)
        # Long before it gives up on the answer that it waits for.
        await expect(view.state).to_have_text(re.compile("^No answer since"), timeout=5_000)
        may_answer.set()
        await expect(view.state).to_have_text("Ready")


async def test_a_bridge_of_another_version_brings_another_page(
    browser: Browser, life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    async with AsyncExitStack() as stack:
        async with bridge_at(port, life) as url:
            view = await stack.enter_async_context(at_status(browser, url, is_away=True))
            await view.page.evaluate("window.isOldPage = true")
        monkeypatch.setattr("bridge.metrics.__version__", "99.1")
        async with bridge_at(port, Life()):
            await view.later()
            await expect(view.page.get_by_text("Version 99.1")).to_be_visible()
            assert await view.page.evaluate("window.isOldPage") is None


async def test_a_real_bridge_s_answers_and_votes_are_there(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(history, "SAMPLE_SECONDS", 0.1)
    async with (
        EmbeddedRedis(tmp_path / "redis").own() as redis_url,
        Rig.serving(redis_url, tmp_path) as rig,
        rig.bridge() as bridge,
        at_status(browser, f"http://127.0.0.1:{bridge.ports['admin']}/") as view,
    ):
        await expect(view.state).to_have_text("Ready")
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        await rig.slack.react(ADA, GENERAL, answer["ts"], "+1")

        async def are_told() -> bool:
            await view.later()
            said = await view.page.locator("#tiles").text_content() or ""
            return "Questions answered1" in said and "1 upvote, 0 downvotes" in said

        await eventually(are_told)
        await expect(view.chart("Calls to Kapa").locator(".legend li")).to_have_text(["ok 2"])
        await expect(view.plot("Time to the answer").locator("circle").first).to_be_attached()


# Anybody


async def test_what_comes_from_outside_is_text(browser: Browser, life: Life) -> None:
    life.metrics.slack_call(HOSTILE, HOSTILE, 1.0)
    life.metrics.event(HOSTILE)
    life.metrics.build(HOSTILE)
    life.sample()
    async with served(ALL_WELL | {HOSTILE: False}, life.metrics, life.history) as url, at_status(browser, url) as view:
        await expect(view.state).to_have_text(f"Not ready: {HOSTILE} fails")
        chart = view.chart("Calls to Slack")
        await chart.get_by_text("Call by call").click()
        await expect(chart.get_by_role("row").filter(has_text=HOSTILE)).to_have_count(1)
        await expect(view.page.locator("img")).to_have_count(0)


@pytest.mark.parametrize("role", ["all", "ingress"])
async def test_it_fits_a_phone(browser: Browser, role: str) -> None:
    life = busy(role)
    states = ALL_WELL | {"slack": False}
    async with (
        served(states, life.metrics, life.history) as url,
        at_status(browser, url, viewport=NARROW, has_touch=True) as view,
    ):
        await expect(view.state).to_be_in_viewport()
        for details in await view.page.locator("summary:visible").all():
            await details.click()
        for plot in await view.page.get_by_role("slider").all():
            for key in ("Home", "End"):
                await plot.press(key)
                assert await view.width() <= NARROW["width"]
        await view.page.get_by_role("slider").first.tap()
        await expect(view.page.locator(".tip:visible")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_is_legible_by_day_and_by_night(browser: Browser, life: Life, scheme: str) -> None:
    async with (
        served(ALL_WELL, life.metrics, life.history) as url,
        at_status(browser, url, color_scheme=scheme) as view,
    ):
        await expect(view.chart("Questions by outcome")).to_be_visible()
        found = {name: await colours(view.page, selector) for name, selector in LEGIBLE.items()}
    for name, (ink, paper) in found.items():
        assert contrast(ink, paper) >= (3 if name.startswith("drawn") else 4.5), (name, ink, paper)
    page = found["heading"][1]
    assert (luminance(page) > 0.5) is (scheme == "light")


LEGIBLE = {
    "heading": "h1",
    "soft": ".about",
    "badge": ".badge",
    "warned": ".tile.warns p",
    "drawn blue": ".chart .bar.tone-blue",
    "drawn red": ".chart .bar.tone-red",
    "drawn amber": ".chart .line.tone-amber",
}


async def colours(page: Page, selector: str) -> tuple[list[float], list[float]]:
    """Give the colour of the first such element, and of what is behind it."""
    ink, paper = await page.locator(selector).first.evaluate("""(element) => {
        const look = getComputedStyle(element);
        const isDrawn = element instanceof SVGElement;
        let behind = element;
        while (["rgba(0, 0, 0, 0)", "transparent"].includes(getComputedStyle(behind).backgroundColor)) {
            behind = behind.parentElement;
        }
        const drawn = look.fill === "none" ? look.stroke : look.fill;
        return [isDrawn ? drawn : look.color, getComputedStyle(behind).backgroundColor];
    }""")
    first, second = ([float(part) / 255 for part in re.findall(r"[\d.]+", one)[:3]] for one in (ink, paper))
    return first, second


def luminance(colour: list[float]) -> float:
    """Say how light a colour is, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: list[float], other: list[float]) -> float:
    """Give the contrast ratio of two colours, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


async def test_nothing_moves_for_its_own_sake(browser: Browser, life: Life) -> None:
    async with (
        served(ALL_WELL, life.metrics, life.history) as url,
        at_status(browser, url, reduced_motion="reduce") as view,
    ):
        await view.plot("Questions by outcome").focus()
        await view.later()
        assert await view.page.evaluate("document.getAnimations().length") == 0
        rules = "[...document.styleSheets].flatMap((sheet) => [...sheet.cssRules].map((rule) => rule.cssText))"
        looks = "\n".join(await view.page.evaluate(rules))
        assert "outline" in looks
        assert not re.search("animation|transition", looks)


async def test_without_javascript_it_says_where_the_numbers_are(browser: Browser) -> None:
    async with served({}, Life().metrics) as url:
        context = await browser.new_context(java_script_enabled=False)
        page = await context.new_page()
        await page.goto(url)
        await expect(page.get_by_role("link", name="metrics").first).to_be_visible()
        await context.close()
