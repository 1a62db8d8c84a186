"""What can go wrong with one source; the installer then tries the next one."""

# ruff: noqa: N818 (a failure is named after what happened)

from __future__ import annotations

import errno
from typing import Final

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SourceError(Exception):
    """A source did not give the file.

    Attributes:
        source: Which one, in words for a user.
        problem: What happened.
    """

    def __init__(self, source: str, problem: str) -> None:
        self.source = source
        self.problem = problem
        super().__init__(f"{source}: {problem}")


class SourceUnreachable(SourceError):
    """There is no way to the source from this machine now."""


class SourceCorrupt(SourceError):
    """The source gave something else than the catalogue says.

    Attributes:
        file: Name of the file.
        expected: What it should be.
        got: What came.
    """

    def __init__(self, source: str, file: str, expected: str, got: str) -> None:
        self.file = file
        self.expected = expected
        self.got = got
        super().__init__(source, f"{file} is {got}, expected {expected}")


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an exception, or the one that caused it, says that no space is left."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return True
        error = error.__cause__ or error.__context__
    return False
