"""How the bridge logs: structlog for itself and for the libraries below it, one line an event, to stderr.

Event names are constants and everything else is a field. The bridge's own events do not take the way through `logging`,
which takes longer than all else that a line needs. What is logged where does not live here.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, TextIO
from urllib.parse import unquote, unquote_plus

import stamina
import structlog
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError
from structlog.typing import EventDict, Processor, WrappedLogger

# A Slack token, a URL's user and password (which may be empty and which may hold an @), a Socket Mode ticket.
_TOKEN: Final = re.compile(r"xox[a-z]-[\w-]+|xapp-[\w-]+|(?<=://)[^\s/?#\"']*:[^\s/?#\"']*(?=@)|(?<=ticket=)[\w-]+")
# What is made here, from constants and the clock, and what structlog needs as it is.
_UNTOUCHED: Final = frozenset({"event", "level", "timestamp", "_record", "_from_structlog"})
_LIBRARIES: Final = {
    "aiohttp": logging.WARNING,
    "asyncio": logging.WARNING,
    "redis": logging.WARNING,
    # Bolt warns of a token in the environment, which it reads although it is told not to need one.
    "slack_bolt": logging.ERROR,
    "slack_sdk": logging.WARNING,
}


def configure(log_format: str, level: str, *, secrets: Iterable[str] = (), stream: TextIO = sys.stderr) -> None:
    """Set logging up once, for the process.

    `log_format`: auto, json or console; `level`: debug, info, warning or error. `secrets` are cut out of every
    line, whatever brought them there.
    """
    is_json = log_format == "json" or (log_format == "auto" and not stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _Redactor(secrets),
    ]
    renderer = _json() if is_json else _console(stream)
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=lambda *_: _Lines(stream),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_library_event, structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_is_wanted)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name, least in _LIBRARIES.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    # By itself it logs a retry's arguments, under a name of its own.
    stamina.instrumentation.set_on_retry_hooks([])


def _json() -> Processor:
    # Made once: json.dumps would make an encoder for every line.
    encoder = json.JSONEncoder(ensure_ascii=False, default=repr)
    return structlog.processors.JSONRenderer(serializer=lambda event, **_: encoder.encode(event))


def _console(stream: TextIO) -> Processor:
    # A richer one would show the values of variables, people's words and tokens among them.
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)


class _Lines:
    """What structlog logs to: writes lines to a stream. One that takes none is no trouble of who logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def _write(self, line: str) -> None:
        with suppress(OSError, ValueError):  # there is nowhere left to tell of it
            self._stream.write(f"{line}\n")
            self._stream.flush()

    debug = info = warning = error = critical = _write


def _is_wanted(record: logging.LogRecord) -> bool:
    """Keep off what the libraries log at debug and info, people's words and tokens among it.

    The loggers' own levels do not serve: Bolt sets those of its loggers to the root's.
    """
    if record.exc_info and isinstance(record.exc_info[1], (HttpProcessingError, RequestPayloadError)):
        # Anybody may send what is no HTTP: a line is enough, and it is no fault of the bridge.
        record.exc_info, record.exc_text = None, None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return record.levelno >= _LIBRARIES.get(record.name.partition(".")[0], logging.NOTSET)


def _library_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Give a library's sentence a constant event name, and keep the sentence as a field."""
    record: logging.LogRecord = event["_record"]
    return {**event, "event": "library_log", "library": record.name, "message": event.get("event")}


class _Redactor:
    """Cuts known secrets and everything that looks like a Slack token or a URL's password out of a log line."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = sorted({part for secret in secrets for part in _spellings(secret)}, key=len, reverse=True)
        self._pattern = re.compile("|".join([*map(re.escape, known), _TOKEN.pattern]))

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {key: value if key in _UNTOUCHED else self._clean(value) for key, value in event.items()}

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._pattern.sub("[secret]", value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {self._clean(str(key)): self._clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(item) for item in value]
        # What the renderer would do, only that the secrets are out.
        return self._pattern.sub("[secret]", repr(value))


def _spellings(secret: str) -> Iterable[str]:
    """Give a secret, and where it is a URL the passwords in it, in every form that a log line may carry."""
    found = {secret, repr(secret)[1:-1]}
    _, is_url, rest = secret.partition("://")
    if is_url:
        # An @ in the query may not make what comes before it a part of the password, nor one in it end it.
        for part in (rest, re.split(r"[/?#]", rest, maxsplit=1)[0]):
            password = part.rpartition("@")[0].partition(":")[2]
            found |= {password, unquote(password)}
        for password in re.findall(r"[?&]\w*password=([^&#]+)", rest):
            found |= {password, unquote_plus(password)}
    return filter(None, found)
