"""How the bridge logs: structlog for itself and for the libraries below it, one line an event, to stderr.

Event names are constants and everything else is a field. What is logged where does not live here.
"""

import logging
import re
import sys
from collections.abc import Iterable
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_TOKEN = re.compile(r"xox[a-z]-[\w-]+|xapp-[\w-]+|(?<=://)[^\s/@]+:[^\s/@]+(?=@)|(?<=ticket=)[\w-]+")
_LIBRARIES = {
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
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _Redactor(secrets),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if is_json
        else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_library_event, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name, least in _LIBRARIES.items():
        # The libraries log people's words and tokens at debug and info, so that stays off.
        logging.getLogger(name).setLevel(max(least, root.level))


def _library_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Give a library's sentence a constant event name, and keep the sentence as a field."""
    record: logging.LogRecord = event["_record"]
    return {**event, "event": "library_log", "library": record.name, "message": event.get("event")}


class _Redactor:
    """Cuts known secrets and everything that looks like a Slack token or a URL's password out of a log line."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = "|".join(re.escape(secret) for secret in sorted(filter(None, secrets), key=len, reverse=True))
        self._pattern = re.compile(f"{known}|{_TOKEN.pattern}" if known else _TOKEN.pattern)

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {
            key: self._pattern.sub("[secret]", value) if isinstance(value, str) else value
            for key, value in event.items()
        }
