"""The bridge between Slack and Kapa.ai: a question in Slack is answered from Kapa in its thread."""

import sys

__version__ = "0.1.0"
# What others import wherever it is installed, each a tenth of a start: redis-py OpenTelemetry, which is kept out until
# `app` wants traces, and structlog rich, which nothing here uses.
sys.modules.setdefault("opentelemetry", None)  # type: ignore[arg-type] # None: it cannot be imported
sys.modules.setdefault("rich", None)  # type: ignore[arg-type] # as above
