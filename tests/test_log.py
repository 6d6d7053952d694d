import errno
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import stamina
import structlog
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.web import RequestPayloadError
from hypothesis import given
from hypothesis import strategies as st

from bridge import log

# Words that stand nowhere else in a log line: not in a path of a traceback, not in a timestamp.
KEY = 'kapa-"Zq7Key"-\\Zq0123Zq'
PASSWORD = "Zq7p@ss/w0rdZq7"
REDIS = "redis://:Zq7p%40ss%2Fw0rdZq7@redis:6379/0"
SENTINEL = (
    "rediss+sentinel://ann:Zq8a%40Zq8b%2CZq8c@one:26379,two/my/0?sentinel_password=Zq8d%2BZq8e%40Zq8f&ssl_ca_certs=/a@b"
)
SOCKET = "unix:///redis.sock?db=0&password=Zq8g"
SECRETS = ("xoxb-Zq7known-1", "xapp-Zq7known-1", "Zq0123Zq", KEY, REDIS, SENTINEL, SOCKET)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def a_stream() -> Iterator[io.StringIO]:
    """Give a stream to log to, and put all of logging back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    levels = {name: logging.getLogger(name).level for name in log._LIBRARIES}
    yield io.StringIO()
    root.handlers = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    with a_stream() as stream:
        yield stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().split("\n") if line]


def configured(stream: io.StringIO, level: str = "info") -> Any:
    log.configure("json", level, secrets=SECRETS, stream=stream)
    return structlog.get_logger()


def test_an_event_is_one_line_of_json(stream: io.StringIO) -> None:
    logger = configured(stream)
    structlog.contextvars.bind_contextvars(channel="C1")
    logger.info("question_accepted", question="1.2", count=3, ok=True, nothing=None, share=0.5)
    [line] = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "question_accepted",
        "level": "info",
        "channel": "C1",
        "question": "1.2",
        "count": 3,
        "ok": True,
        "nothing": None,
        "share": 0.5,
    }


SPELLINGS = [
    "xoxb-Zq7known-1",
    "xoxb-123-Zq7unknown",
    "xoxp-123-Zq7unknown",
    "xapp-1-A-Zq7unknown",
    "Zq0123Zq",
    KEY,
    REDIS,
    PASSWORD,
    "Zq7p%40ss%2Fw0rdZq7",
    SENTINEL,
    "Zq8a@Zq8b,Zq8c",
    "Zq8a%40Zq8b%2CZq8c",
    "Zq8d+Zq8e@Zq8f",
    "Zq8d%2BZq8e%40Zq8f",
    SOCKET,
    "Zq8g",
    "redis+cluster://user:Zq7hunter2@one:6379,two:6379",
    "redis://user:Zq7hunter2@host/0",
    "redis://:Zq7hunter2@host/0",
    "redis://user:hunt@Zq7er2X@host/0",
    "https://user:Zq7hunter2@host",
    "wss://host/link?ticket=Zq7hunter2-x&app_id=A1",
]
# What must not be left of any of them: its beginning, its end, or a part between two marks.
FORBIDDEN = [
    "Zq7known-1",
    "-Zq7unknown",
    "Zq0123Zq",
    "Zq7Key",
    "Zq7p@ss",
    "Zq7p%40ss",
    "w0rdZq7",
    "Zq7hunter2",
    "hunt@Zq7er2X",
    "Zq7er2X",
    "Zq8",
]


class Odd:
    """An object that shows a secret when it is shown."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return f"Odd({self._text!r})"


WRAPPINGS: dict[str, Callable[[str], object]] = {
    "text": lambda secret: secret,
    "within a text": lambda secret: f"before {secret} after",
    "list": lambda secret: [1, secret],
    "dict": lambda secret: {"a": {"b": [secret]}},
    "key": lambda secret: {secret: 1},
    "tuple": lambda secret: (secret,),
    "set": lambda secret: {secret},
    "error": RuntimeError,
    "object": Odd,
    "bytes": lambda secret: secret.encode(),
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize("secret", SPELLINGS)
def test_secrets_are_cut_out_wherever_they_stand(
    secret: str, wrap: Callable[[str], object], stream: io.StringIO
) -> None:
    configured(stream).warning("something", field=wrap(secret), other="kept")
    [line] = lines(stream)
    assert not any(part in stream.getvalue() for part in FORBIDDEN)
    assert (line["event"], line["other"]) == ("something", "kept")
    assert "[secret]" in json.dumps(line)


@pytest.mark.parametrize("secret", SPELLINGS)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_secrets_are_cut_out_of_tracebacks_and_of_libraries(secret: str, log_format: str, stream: io.StringIO) -> None:
    log.configure(log_format, "debug", secrets=SECRETS, stream=stream)
    try:
        raise RuntimeError(f"it broke at {secret} there")
    except RuntimeError:
        structlog.get_logger().exception("something")
        logging.getLogger("redis").exception("connecting to %s failed", secret)
        logging.getLogger("elsewhere").debug("about", extra={"address": secret})
    shown = stream.getvalue()
    assert shown.count("RuntimeError: it broke at") == 2
    assert shown.count("library_log") == 2
    assert not any(part in shown for part in FORBIDDEN)


@pytest.mark.parametrize(
    "text",
    ["https://acme.slack.com/archives/C1/p1", "a:b@c", "10:30@noon", "mail@example.com", "https://x.y/?a=1:2@3"],
)
def test_what_is_no_secret_stays(text: str, stream: io.StringIO) -> None:
    configured(stream).info("something", field=text)
    assert lines(stream)[0]["field"] == text


def test_a_weak_password_does_not_cut_events_up(stream: io.StringIO) -> None:
    log.configure("json", "info", secrets=["redis://:bridge@redis"], stream=stream)
    structlog.get_logger().info("bridge_ready", field="at the bridge")
    [line] = lines(stream)
    assert (line["event"], line["field"]) == ("bridge_ready", "at the [secret]")


def test_no_secrets_at_all_do_no_harm(stream: io.StringIO) -> None:
    log.configure("json", "info", secrets=["", ""], stream=stream)
    structlog.get_logger().info("something", field="text")
    assert lines(stream)[0]["field"] == "text"


FIELDS = st.recursive(
    st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8
)


@given(FIELDS)
def test_any_field_can_be_logged(field: object) -> None:
    with a_stream() as stream:
        configured(stream).info("something", field=field)
        [line] = lines(stream)
    assert line["field"] == field


def test_a_library_s_sentence_has_a_constant_event(stream: io.StringIO) -> None:
    configured(stream)
    logging.getLogger("redis.asyncio").warning("lost %d connections", 3)
    [line] = lines(stream)
    assert (line["event"], line["library"], line["message"]) == ("library_log", "redis.asyncio", "lost 3 connections")


@pytest.mark.parametrize("library", ["aiohttp.access", "asyncio", "redis", "slack_sdk.web", "slack_bolt.AsyncApp"])
@pytest.mark.parametrize("level", ["debug", "info"])
def test_libraries_are_quiet_whatever_level_they_set_themselves(library: str, level: str, stream: io.StringIO) -> None:
    configured(stream, level)
    logger = logging.getLogger(library)
    before = logger.level
    # So Bolt does with its loggers.
    logger.setLevel(logging.root.level)
    try:
        logger.log(logging.getLevelName(level.upper()), "what a person wrote")
        logger.error("broken")
    finally:
        logger.setLevel(before)
    assert [line["message"] for line in lines(stream)] == ["broken"]


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(level: str, shown: list[str], stream: io.StringIO) -> None:
    logger = configured(stream, level)
    for name in ("debug", "info", "warning", "error"):
        logger.log(logging.getLevelName(name.upper()), "something", text="what a person wrote")
    assert [line["level"] for line in lines(stream)] == shown


@pytest.mark.parametrize(
    ("log_format", "is_terminal", "is_json"),
    [
        ("auto", False, True),
        ("auto", True, False),
        ("json", True, True),
        ("json", False, True),
        ("console", False, False),
        ("console", True, False),
    ],
)
def test_formats(log_format: str, is_terminal: bool, is_json: bool, stream: io.StringIO) -> None:
    output = Terminal() if is_terminal else stream
    log.configure(log_format, "info", secrets=SECRETS, stream=output)
    structlog.get_logger().info("something", field="Zq0123Zq")
    shown = output.getvalue()
    assert shown.startswith("{") is is_json
    assert "something" in shown
    assert "Zq0123Zq" not in shown
    # Colours are for terminals.
    assert ("\x1b[" in shown) is (is_terminal and not is_json)


def test_a_traceback_shows_no_values_of_variables(stream: io.StringIO) -> None:
    log.configure("console", "info", stream=stream)
    question = "".join(["what a ", "person wrote"])
    try:
        raise RuntimeError(len(question))
    except RuntimeError:
        structlog.get_logger().exception("something")
    assert "RuntimeError: 20" not in stream.getvalue()
    assert "RuntimeError: 19" in stream.getvalue()
    assert "what a person wrote" not in stream.getvalue()


def test_configuring_again_does_not_log_twice(stream: io.StringIO) -> None:
    configured(stream)
    configured(stream).info("something")
    assert len(lines(stream)) == 1


class Full(io.StringIO):
    """A file on a disk that is full."""

    tried = 0

    def write(self, text: str) -> int:
        self.tried += 1
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_event_of_any_kind_is_logged(stream: io.StringIO) -> None:
    configured(stream).info(Odd("something"))
    assert lines(stream)[0]["event"] == "Odd('something')"


def test_who_logs_does_not_fail_where_nothing_can_be_written(stream: io.StringIO) -> None:
    stream.close()
    full = Full()
    for nowhere in (stream, full):
        configured(nowhere).error("something")
    assert full.tried == 1


def test_logs_go_to_stderr(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    assert stream.getvalue() == ""
    log.configure("json", "info", stream=sys.stderr)
    structlog.get_logger().info("something")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "something"


def test_a_retry_logs_no_arguments(stream: io.StringIO) -> None:
    log.configure("json", "debug", stream=stream)

    @stamina.retry(on=ValueError, attempts=2, wait_initial=0, wait_jitter=0)
    def fail(words: str) -> None:
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail("marmalade")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("error", [BadHttpMessage("no HTTP"), RequestPayloadError("no gzip")])
def test_what_is_no_http_is_a_line_and_no_fault(stream: io.StringIO, error: Exception) -> None:
    log.configure("json", "info", stream=stream)
    try:
        raise error
    except type(error):
        logging.getLogger("aiohttp.server").exception("Error handling request")
    [line] = lines(stream)
    assert (line["event"], line["level"]) == ("library_log", "warning")
    assert "Traceback" not in stream.getvalue()
