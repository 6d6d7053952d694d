"""One browser for all tests, one playground for each module, and a page of its own for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.chat import Chat, at_page
from tests.browser.chromium import NoBrowserError, launched
from tests.playground_process import Visitor, playground, visiting

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let all of them share one event loop, as they share the browser."""
    for item in items:
        if HERE in item.path.parents and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Give the browser; without one, all ends here with a sentence that says what is missing."""
    try:
        async with launched() as browser:
            yield browser
    except NoBrowserError as error:
        pytest.exit(str(error), returncode=1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def visitor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Visitor]:
    """Give someone who talks to the module's playground without a browser."""
    async with playground(tmp_path_factory.mktemp("playground")) as process, visiting(process) as visitor:
        yield visitor


@pytest_asyncio.fixture(loop_scope="session")
async def chat(browser: Browser, visitor: Visitor) -> AsyncIterator[Chat]:
    """Give the page of the module's playground, opened anew."""
    async with at_page(browser, visitor.url) as chat:
        yield chat
