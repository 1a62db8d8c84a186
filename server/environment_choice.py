"""How the environment of a host is made: what its host.toml says, and what the operator says over it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

MADE_WITH: Final = ("auto", "uv", "venv", "conda", "interpreter")
"""`auto` is uv where there is one, then venv with pip; `conda` is conda, mamba or micromamba."""


@dataclass(frozen=True, slots=True)
class EnvironmentChoice:
    """What an operator chose for one host.

    Attributes:
        made_with: One of `MADE_WITH`; None leaves it to the host.toml.
        python: For `interpreter` the Python that runs the host as it is; else the one to make the environment
            from.
        conda: Path of conda, mamba or micromamba; None looks on PATH.
    """

    made_with: str | None = None
    python: Path | None = None
    conda: Path | None = None
