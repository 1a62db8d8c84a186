"""Recordings: the videos that avatars are made of, with all that is made of them on the way.

`home/store/recordings/ID/` holds the video as it was uploaded (`video`), what is known of it (`about.json`),
the prepared `recording/`, what the quality gate found (`findings.json`), the checkpoint of the training, its
latest picture and which operation came to its end (`trained`). A recording appears whole or not at all, and
goes with its avatar.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from server.errors import AvatarExists
from server.media.spool import disk_full_as_error
from server.store.left_over import sweep
from server.store.paths import parse_resource_name

_ABOUT: Final = "about.json"
_FINDINGS: Final = "findings.json"
_VIDEO: Final = "video"
_TRAINED: Final = "trained"


@dataclass(frozen=True, slots=True)
class Finding:
    """What the quality gate found.

    Attributes:
        code: UPPER_SNAKE.
        message: One sentence: what is the matter.
        fix: One sentence: what to do.
        refused: Whether the recording cannot be used because of it.
    """

    code: str
    message: str
    fix: str
    refused: bool


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a recording.

    Attributes:
        display_name: What people call the avatar.
        file_name: Name of the file that was uploaded.
        size: Width and height of the avatar's picture.
        default_voice: `voices/ID`, or empty.
        consent_time: When the uploader said that the person has agreed; RFC 3339.
    """

    display_name: str
    file_name: str
    size: int
    default_voice: str
    consent_time: str


@dataclass(frozen=True, slots=True)
class StoredRecording:
    """A recording in the store.

    Attributes:
        identifier: Id of its avatar.
        directory: Where everything of it is.
        about: What is known of it.
        findings: What the quality gate found; None until it has looked.
    """

    identifier: str
    directory: Path
    about: About
    findings: Sequence[Finding] | None

    @property
    def video(self) -> Path:
        """The video as it was uploaded."""
        return self.directory / _VIDEO

    @property
    def prepared(self) -> Path:
        """What the preparation makes, and the training learns from."""
        return self.directory / "recording"

    @property
    def checkpoint(self) -> Path:
        """State of the training."""
        return self.directory / "training.safetensors"

    @property
    def preview(self) -> Path:
        """The latest picture of the training."""
        return self.directory / "preview.png"

    @property
    def usable(self) -> bool:
        """Whether it is prepared, and an avatar can be trained from it."""
        return self.findings is not None and not any(finding.refused for finding in self.findings)

    def latest_picture(self) -> Path | None:
        """The latest picture of the training, else the contact sheet of the recording."""
        pictures = [path for path in (self.preview, self.prepared / "sheet.png") if path.is_file()]
        return pictures[0] if pictures else None

    def trained_by(self) -> str:
        """Id of the operation that trained it last and came to its end, or empty."""
        path = self.directory / _TRAINED
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def keep_trained_by(self, operation: str) -> None:
        """Keeps which operation has trained it."""
        _write_text(self.directory / _TRAINED, operation)

    def keep_findings(self, findings: Sequence[Finding]) -> None:
        """Stores what the quality gate found.

        Raises:
            DiskFull: It does not fit.
        """
        _write(self.directory / _FINDINGS, [asdict(finding) for finding in findings])


class RecordingStore:
    """The recordings of this server. Its methods block; they may be called from any thread.

    Args:
        root: Their directory; made when it is missing.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._placing = threading.Lock()
        sweep(root)

    def incoming(self) -> Path:
        """A new directory for an upload; `place` makes it a recording.

        Raises:
            DiskFull: There is no room for it.
        """
        with disk_full_as_error():
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=".incoming-", dir=self._root))

    def place(
        self, incoming: Path, identifier: str, about: About, *, replace: bool = False
    ) -> StoredRecording:
        """Makes an upload, with the video in it as `video`, the recording of an avatar.

        Args:
            incoming: The directory of `incoming`.
            identifier: Id of the avatar.
            about: What is known of the recording.
            replace: Whether one of this name may be replaced.

        Raises:
            AvatarExists: There is one of this name.
            FieldInvalid: The name is not allowed.
            DiskFull: It does not fit.
        """
        name = parse_resource_name(f"avatars/{identifier}", "avatars")
        place = self._root / name.id
        _write(incoming / _ABOUT, asdict(about))
        with self._placing:
            if place.exists():
                if not replace:
                    raise AvatarExists(
                        f"There is already a recording for {name}.",
                        fix=f"Choose another name, or delete it first: viseme avatars delete {name}",
                        avatar=str(name),
                    )
                self._remove(place)
            incoming.rename(place)
        return self._read(place)

    def get(self, identifier: str) -> StoredRecording | None:
        """The recording of an avatar, or None."""
        place = self._root / parse_resource_name(f"avatars/{identifier}", "avatars").id
        return self._read(place) if (place / _ABOUT).is_file() else None

    def list(self) -> Sequence[StoredRecording]:
        """All recordings, ordered by name."""
        if not self._root.is_dir():
            return []
        places = [entry for entry in sorted(self._root.iterdir()) if not entry.name.startswith(".")]
        return [self._read(place) for place in places if (place / _ABOUT).is_file()]

    def delete(self, identifier: str) -> bool:
        """Deletes the recording of an avatar with everything derived from it; False when there is none."""
        place = self._root / parse_resource_name(f"avatars/{identifier}", "avatars").id
        with self._placing:
            if not place.exists():
                return False
            self._remove(place)
        return True

    def _remove(self, place: Path) -> None:
        leaving = Path(tempfile.mkdtemp(prefix=".delete-", dir=self._root))
        place.rename(leaving / place.name)
        shutil.rmtree(leaving, ignore_errors=True)

    def _read(self, place: Path) -> StoredRecording:
        about = json.loads((place / _ABOUT).read_text(encoding="utf-8"))
        findings = None
        if (place / _FINDINGS).is_file():
            found = json.loads((place / _FINDINGS).read_text(encoding="utf-8"))
            findings = [Finding(**finding) for finding in found]
        return StoredRecording(place.name, place, About(**about), findings)


def consent_now() -> str:
    """The time of a consent that is given now."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write(path: Path, value: Any) -> None:
    _write_text(path, json.dumps(value, ensure_ascii=False, indent=1))


def _write_text(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    with disk_full_as_error():
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
