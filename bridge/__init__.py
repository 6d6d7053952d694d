"""The bridge between Slack and Kapa.ai: a question in Slack is answered from Kapa in its thread."""

__version__ = "0.1.0"
