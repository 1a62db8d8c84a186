"""Command lines: the original's scripts with their own flags, and our tools on either side of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model_hosts.talking_gaussian_upstream.settings import Settings
from model_hosts.talking_gaussian_upstream.workspace import Place

_FLAGS = {
    "mouth": (),
    "face": ("--init_num", "2000", "--densify_grad_threshold", "0.0005"),
    "fuse": ("--opacity_lr", "0.001"),
}
_OURS = "model_hosts.talking_gaussian.upstream"
LICENSE = "LicenseRef-Inria-non-commercial"
"""Of what the original's code makes."""


@dataclass(frozen=True)
class Commands:
    """Command lines for one avatar.

    Attributes:
        settings: Of the operator.
        place: Of the avatar.
    """

    settings: Settings
    place: Place

    def train(self, stage: str, start: Path | None) -> list[str]:
        """A stage of the training, from a checkpoint of its own or from its beginning."""
        command = [*self._script(f"train_{stage}.py"), *_FLAGS[stage], *self._extractor()]
        if stage != "fuse":
            command += ["--iterations", str(self.settings.iterations)]
        if start is not None:
            command += ["--start_checkpoint", self.settings.mounts.outward(start)]
        return command

    def synthesize(self, features: Path) -> list[str]:
        """The recording's frames with other speech."""
        audio = self.settings.mounts.outward(features)
        return [
            *(*self._script("synthesize_fuse.py"), "--use_train", "--fast", "--audio", audio),
            *self._extractor(),
        ]

    def export(self, recording: Path, encoder: Path, out: Path) -> list[str]:
        """Our recording in the original's layout."""
        return self._tool("export", recording, "--encoder", encoder, "--out", out)

    def features(self, wav: Path, encoder: Path, out: Path) -> list[str]:
        """Audio features of speech, of the kind that the recording's are."""
        data = self.place.data
        return self._tool("features", wav, "--data", data, "--encoder", encoder, "--out", out)

    def film(self, pictures: Path, wav: Path, out: Path) -> list[str]:
        """The original's silent video with its speech, as a fragmented MP4."""
        return self._tool("film", pictures, "--wav", wav, "--out", out)

    def bundle(self, encoder: Path, out: Path, name: str, display_name: str, voice: str) -> list[str]:
        """The trained avatar as a bundle, which our renderer draws."""
        card = ["--name", name, "--display-name", display_name or name, "--license", LICENSE]
        card += ["--voice", voice] if voice else []
        data = ("--data", self.place.data, "--encoder", encoder)
        return [*self._tool("import", self.place.latest("fuse"), *data, "--out", out), *card]

    def _script(self, name: str) -> list[str]:
        outward = self.settings.mounts.outward
        place = ["-s", outward(self.place.data), "-m", outward(self.place.model)]
        return [*self.settings.interpreter, "-u", name, *place]

    def _extractor(self) -> list[str]:
        return ["--audio_extractor", self.settings.audio_extractor]

    def _tool(self, name: str, *arguments: object) -> list[str]:
        return [str(self.settings.viseme_python), "-m", _OURS, name, *map(str, arguments)]
