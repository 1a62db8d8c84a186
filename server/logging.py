"""Logging of the server: structlog, one event a line, no contents of what people say and no keys."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

SPOKEN: Final = frozenset({"text", "transcript", "sentence", "persona", "prompt", "messages"})
"""Fields with contents of users: shown at debug only."""
SECRET: Final = frozenset(
    {"key", "api_key", "openai_api_key", "token", "authorization", "password", "secret"}
)
"""Fields that are never shown."""


def redact(_logger: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hides secrets always, and what users said unless the level is debug."""
    for name in event.keys() & SECRET:
        event[name] = "(hidden)"
    if level != "debug":
        for name in event.keys() & SPOKEN:
            event[name] = f"({len(str(event[name]))} characters)"
    return event


def configure_logging(*, level: int = logging.INFO, json: bool = False) -> None:
    """Sends the log of this process to stderr.

    Args:
        level: Lowest level shown, as in `logging`.
        json: One JSON object a line instead of text for people.
    """
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    if json:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Looked up at each event: whoever replaces stderr, as progress displays do, gets what is logged.
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries: their requests carry keys and texts, so only their warnings are shown.
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    for noisy in ("httpx", "httpx2", "httpcore", "openai", "grpc"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
