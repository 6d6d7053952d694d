"""The browser that the tests and the pictures are made with: the system's own Chromium, seen by nobody."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_NEEDED = "Chromium is not on PATH; install it and an emoji font: apt-get install chromium fonts-noto-color-emoji"


class NoBrowserError(Exception):
    """There is no browser here; says what to install."""


def executable() -> str:
    """Find the browser; raises NoBrowserError."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        raise NoBrowserError(_NEEDED)
    return found


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """Give a browser that ends with the block; raises NoBrowserError."""
    path = executable()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(_QUIET))
        try:
            yield browser
        finally:
            await browser.close()
