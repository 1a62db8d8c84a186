"""The voices of Kokoro-82M: a file of styles each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from model_hosts.kokoro.splitting import MAX_SYMBOLS

STYLE_SIZE: Final = 256
_LANGUAGES: Final = {"a": "en-US", "b": "en-GB", "z": "zh-CN"}


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice.

    Attributes:
        id: Such as `af_heart`: language (a American, b British, z Mandarin), sex (f, m), name.
        language: BCP 47 tag.
        display_name: Its name alone, such as `Heart`.
    """

    id: str
    language: str
    display_name: str


def voice_of(name: str) -> Voice | None:
    """The voice of an id, or None when it is in a language that we cannot phonemise."""
    language = _LANGUAGES.get(name[:1])
    if language is None or name[1:3] not in {"f_", "m_"} or not name[3:]:
        return None
    return Voice(name, language, name[3:].capitalize())


class VoiceFiles:
    """The voices in a directory, read when first needed."""

    def __init__(self, directory: Path) -> None:
        """Lists the voices.

        Args:
            directory: Holds `ID.bin` files.
        """
        found = ((path, voice_of(path.stem)) for path in sorted(directory.glob("*.bin")))
        self._paths = {voice.id: path for path, voice in found if voice is not None}
        self._styles: dict[str, npt.NDArray[np.float32]] = {}

    def all(self) -> list[Voice]:
        """All voices, in order of id."""
        return [voice for name in self._paths if (voice := voice_of(name)) is not None]

    def __contains__(self, name: str) -> bool:
        return name in self._paths

    def styles(self, name: str) -> npt.NDArray[np.float32]:
        """The styles of a voice: [510, 256], one for every number of symbols.

        Raises:
            KeyError: There is no such voice.
        """
        if name not in self._styles:
            content = np.fromfile(self._paths[name], "<f4")
            self._styles[name] = content.reshape(MAX_SYMBOLS, STYLE_SIZE)
        return self._styles[name]
