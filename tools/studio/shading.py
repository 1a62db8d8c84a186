"""Loads the GLSL programs, resolving `#include "file"`."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent / "shaders"
_INCLUDE = re.compile(r'^#include "([\w.]+)"\n', re.MULTILINE)


def shader(name: str) -> str:
    """Source text of a shader file with its includes in place."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    while match := _INCLUDE.search(text):
        text = text[: match.start()] + (FOLDER / match[1]).read_text(encoding="utf-8") + text[match.end() :]
    return text
