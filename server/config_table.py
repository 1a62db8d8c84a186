"""What all tables of the settings have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """A table of the file; a key it does not know is a mistake worth telling."""

    model_config = ConfigDict(extra="forbid", frozen=True)
