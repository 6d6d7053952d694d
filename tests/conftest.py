"""What all tests share: a real Redis, and a rig with the real bridge between a simulated Slack and Kapa."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import hypothesis
import pytest
import structlog
from redis.asyncio import Redis

from bridge import app, redis_client
from bridge.embedded_redis import EmbeddedRedis
from tests.rig import Rig

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("without deadlines", deadline=None)
hypothesis.settings.load_profile("without deadlines")

# What traces are exported can be read in every test.
app.let_opentelemetry_in()

FIGURE = "figure"
_OUTSIDE = ("SLACK_", "KAPA_", "BRIDGE_", "REDIS_", "OTEL_", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Give the means to tell a proof's figures at the end of the run."""
    return partial(record_property, FIGURE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that tests told, in whichever process they ran."""
    ended = [report for name in ("passed", "failed") for report in terminalreporter.getreports(name)]
    figures = [value for report in ended for name, value in report.user_properties if name == FIGURE]
    if figures:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.write_line(str(line))


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine that runs the tests reaches them."""
    for name in [name for name in os.environ if name.startswith(_OUTSIDE)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def log_of_its_own() -> Iterator[None]:
    """No test logs at the level, or to where, that another one wanted."""
    yield
    structlog.reset_defaults()


@pytest.fixture
async def redis_url(tmp_path: Path) -> AsyncIterator[str]:
    """Give the URL of an empty Redis of the test's own."""
    async with EmbeddedRedis(tmp_path / "redis").own() as url:
        yield url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """Give a client of the test's own Redis."""
    client = redis_client.connect(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def rig(redis_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    """Give a simulated Slack and Kapa, and the means to run bridges between them."""
    async with Rig.serving(redis_url, tmp_path) as rig:
        yield rig
