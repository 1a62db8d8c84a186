"""Paths as the original's scripts see them, and back.

The scripts may run where our directories have other names (a container, another mount), write relative paths
that count from the repository, and know nothing of `~` and links.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Mounts:
    """Pairs of directories: what is `ours` for us is `theirs` for the scripts."""

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Mounts:
        """Reads `OURS=THEIRS`, several of them with `:` between.

        Raises:
            ValueError: A pair is not two absolute paths.
        """
        pairs = []
        for part in filter(None, text.split(":")):
            ours, _, theirs = part.partition("=")
            if not (Path(ours).is_absolute() and Path(theirs).is_absolute()):
                raise ValueError(f"'{part}' is not two absolute paths with = between")
            pairs.append((os.path.normpath(ours), os.path.normpath(theirs)))
        # The longest first: a directory inside another one may be mounted elsewhere.
        return cls(tuple(sorted(pairs, key=lambda pair: -len(pair[0]))))

    def outward(self, path: Path) -> str:
        """A path of ours as the scripts know it: absolute, without links."""
        return _moved(os.path.realpath(str(path.expanduser())), self.pairs)

    def inward(self, text: str, repository: Path) -> Path:
        """A path that a script wrote as we know it.

        Args:
            text: Absolute, or relative to the repository.
            repository: Ours.
        """
        back = sorted(((theirs, ours) for ours, theirs in self.pairs), key=lambda pair: -len(pair[0]))
        there = PurePosixPath(self.outward(repository)) / text
        return Path(_moved(os.path.normpath(str(there)), tuple(back)))


def _moved(path: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for source, target in pairs:
        try:
            rest = PurePosixPath(path).relative_to(source)
        except ValueError:
            continue
        return os.path.normpath(str(PurePosixPath(target) / rest))
    return path
