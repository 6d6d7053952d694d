"""A person at the playground's page: what one does there, in a browser that is watched for everything unexpected."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Dialog, Locator, Page, Request, expect

PATIENCE_MS = 30_000
WIDE = {"width": 1440, "height": 900}

expect.set_options(timeout=PATIENCE_MS)


@dataclass
class Trouble:
    """What a page should never do: write an error, throw, open a dialog of the browser, or ask another machine."""

    found: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.found.append(f"thrown: {error}"))
        page.on("dialog", self._dialog)
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.found.append(f"console: {message.text}")

    async def _dialog(self, dialog: Dialog) -> None:
        self.found.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _request(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in {"data", "blob"} and url.hostname != "127.0.0.1":
            self.found.append(f"request: {request.url}")


@dataclass
class Chat:
    """The page as one person sees it."""

    page: Page

    # Places

    @property
    def messages(self) -> Locator:
        return self.page.locator("#messages > .message")

    @property
    def thread(self) -> Locator:
        return self.page.locator("#thread > .message")

    @property
    def answers(self) -> Locator:
        """Give the bridge's messages in the open thread, whispers apart."""
        return self.page.locator("#thread > .message:not(.whisper)").filter(has=self.page.locator(".head .badge"))

    @property
    def finished(self) -> Locator:
        """Give the answers in the open thread that grow no more."""
        return self.answers.and_(self.page.locator(":not([aria-busy])"))

    @property
    def whispers(self) -> Locator:
        return self.page.locator("#thread > .whisper")

    def said(self, text: str) -> Locator:
        """Give the message in the channel that has this text."""
        return self.messages.filter(has_text=text)

    def box(self, name: str) -> Locator:
        return self.page.get_by_role("textbox", name=name, exact=True)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    # Deeds

    async def say(self, text: str) -> Locator:
        """Say something in the channel, and give the message."""
        before = await self.messages.count()
        await self.box("Message").fill(text)
        await self.box("Message").press("Enter")
        await expect(self.messages).not_to_have_count(before)
        return self.messages.last

    async def ask(self, text: str) -> Locator:
        """Ask in the channel, wait until the thread opens with the whole answer, and give the answer."""
        await self.say(text)
        return await self.answer()

    async def answer(self, count: int = 1) -> Locator:
        """Wait until the open thread has so many whole answers, and give the last."""
        await expect(self.finished).to_have_count(count)
        await expect(self.page.locator("#thread-status")).to_be_empty()
        return self.answers.last

    async def reply(self, text: str) -> None:
        await self.box("Reply").fill(text)
        await self.box("Reply").press("Enter")
        await expect(self.thread.filter(has_text=text).first).to_be_visible()

    async def follow_up(self, text: str) -> Locator:
        """Reply in the open thread, and give the answer to that."""
        before = await self.answers.count()
        await self.reply(text)
        return await self.answer(before + 1)

    async def go_to(self, conversation: str) -> None:
        await self.page.get_by_role("navigation").get_by_role("button", name=conversation).click()
        await expect(self.page.locator("#title")).to_have_text(conversation)

    async def open_thread(self, message: Locator) -> None:
        await message.locator(".replies").click()
        await expect(self.page.locator("#pane")).to_be_visible()

    async def pick(self, message: Locator, search: str, emoji: str, tone: str = "") -> None:
        """React by way of the picker."""
        await message.get_by_role("button", name="Add a reaction").click()
        picker = self.page.get_by_role("dialog", name="Choose an emoji")
        if tone:
            await picker.get_by_role("radio", name=tone, exact=True).check()
        await picker.get_by_role("searchbox", name="Search emoji").fill(search)
        await picker.get_by_role("option", name=emoji, exact=True).click()
        await expect(picker).to_be_hidden()

    async def edit(self, message: Locator, text: str) -> None:
        await message.hover()
        await message.get_by_role("button", name="Edit").click()
        await self.box("Edit message").fill(text)
        await self.button("Save").click()
        await expect(self.box("Edit message")).to_have_count(0)

    async def delete(self, message: Locator) -> None:
        await message.hover()
        await message.get_by_role("button", name="Delete").click()
        await self.page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()

    async def reload(self) -> None:
        await self.page.reload()
        await self.is_ready()

    async def is_ready(self) -> None:
        await expect(self.page.locator("#title")).not_to_be_empty()

    async def timestamp_of(self, message: Locator) -> str:
        return await message.get_attribute("data-ts") or ""


@asynccontextmanager
async def at_page(browser: Browser, url: str, **options: Any) -> AsyncIterator[Chat]:
    """Open the page as a new visitor; raises AssertionError at the end where something unexpected happened."""
    context = await browser.new_context(**{"viewport": WIDE, "locale": "en-GB", "timezone_id": "UTC"} | options)
    context.set_default_timeout(PATIENCE_MS)
    trouble = Trouble()
    try:
        page = await context.new_page()
        trouble.watch(page)
        await page.goto(url)
        chat = Chat(page)
        await chat.is_ready()
        yield chat
    finally:
        await context.close()
    assert trouble.found == []
