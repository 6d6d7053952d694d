"""The bridge between Slack and Kapa.ai: a question in Slack is answered from Kapa in its thread."""

import sys

__version__ = "0.1.0"
# redis-py imports OpenTelemetry wherever it is installed, a tenth of a start: kept out until `app` wants traces.
sys.modules.setdefault("opentelemetry", None)  # type: ignore[arg-type] # None: it cannot be imported
