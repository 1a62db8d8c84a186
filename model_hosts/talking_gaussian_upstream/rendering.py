"""One video by the original's synthesize script: features of the speech, its frames, sound beside them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import wave
from pathlib import Path
from typing import Iterator, Sequence

import grpc
from viseme.host.v1 import host_pb2

from model_hosts.sdk import Cancellation, HostError
from model_hosts.talking_gaussian_upstream.commands import Commands
from model_hosts.talking_gaussian_upstream.fragments import read_fragments
from model_hosts.talking_gaussian_upstream.process import run, script_environment
from model_hosts.talking_gaussian_upstream.settings import Settings
from model_hosts.talking_gaussian_upstream.workspace import Place, Workspace, read_json

FPS = 25
_FRAMES_OUT = ("train", "ours_None", "renders", "out.mp4")
Rendered = host_pb2.RenderResponse


class Rendering:
    """Draws one avatar speaking.

    Args:
        settings: Of the operator.
        config: What to draw.
        encoder: Directory of the asset whisper-base.
        cancellation: Ends it.
    """

    def __init__(
        self,
        settings: Settings,
        config: host_pb2.RenderRequest.Config,
        encoder: Path,
        cancellation: Cancellation,
    ) -> None:
        self._settings = settings
        self._rate = config.sample_rate
        self._encoder = encoder
        self._cancellation = cancellation
        self._place = _trained(settings, Path(config.bundle))

    def run(self, pieces: Sequence[bytes]) -> Iterator[host_pb2.RenderResponse]:
        """Draws what is spoken in these pieces of PCM; yields the video.

        Raises:
            HostError: It cannot; with a script's last lines where one failed.
            Cancelled: Nobody waits any more.
        """
        samples = sum(map(len, pieces)) // 2
        if not samples:
            raise _refused("FIELD_REQUIRED", "There is no speech to draw.")
        self._check_length(samples / self._rate)
        directory = Path(tempfile.mkdtemp(prefix="speech-", dir=str(self._place.directory)))
        try:
            yield from self._draw(directory, pieces, samples)
        finally:
            shutil.rmtree(str(directory), ignore_errors=True)

    def _draw(
        self, directory: Path, pieces: Sequence[bytes], samples: int
    ) -> Iterator[host_pb2.RenderResponse]:
        speech, features, film = (directory / name for name in ("speech.wav", "aud.npy", "film.mp4"))
        _write_wav(speech, pieces, self._rate)
        commands = Commands(self._settings, self._place)
        self._tool("The reading of the speech", commands.features(speech, self._encoder, features))
        pictures = self._place.model.joinpath(*_FRAMES_OUT)
        if pictures.exists():
            pictures.unlink()
        self._run(
            "The original's synthesize_fuse.py",
            commands.synthesize(features),
            self._settings.repository,
            script_environment(),
        )
        if not pictures.is_file():
            raise HostError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "UPSTREAM_FAILED",
                f"The original's synthesize_fuse.py ended without writing {pictures}.",
                "viseme hosts logs talking_gaussian_upstream",
            )
        self._tool("The joining of sound and pictures", commands.film(pictures, speech, film))
        frames = 0
        for data, count in read_fragments(film):
            self._cancellation.check()
            yield Rendered(fragment=Rendered.Fragment(data=data, first_frame=frames, frame_count=count))
            frames += count
        yield Rendered(summary=Rendered.Summary(frame_count=frames, sample_count=samples))

    def _tool(self, what: str, command: list[str]) -> None:
        self._run(what, command, Path.cwd(), dict(os.environ))

    def _run(self, what: str, command: list[str], directory: Path, environment: dict[str, str]) -> None:
        for _ in run(what, command, directory, environment, self._cancellation):
            pass

    def _check_length(self, seconds: float) -> None:
        """The original draws each frame of its recording once and no more."""
        try:
            text = (self._place.data / "transforms_train.json").read_text(encoding="utf-8")
            frames = len(json.loads(text)["frames"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HostError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "AVATAR_NOT_READY",
                f"The data that the original trained on cannot be read any more ({error}).",
                "Train the avatar again with this host.",
            ) from error
        if seconds * FPS > frames:
            raise _refused(
                "AUDIO_TOO_LONG",
                f"The original draws at most as much as it was trained on, {frames / FPS:.1f} s, and this "
                f"speech has {seconds:.1f} s.",
                "Draw it with the host talking_gaussian, which draws any length.",
            )


def _trained(settings: Settings, bundle: Path) -> Place:
    """Where the original's model of a bundle is."""
    name = str(read_json(bundle / "avatar.json").get("name", ""))
    # The name comes from a file: it may not lead anywhere else.
    place = Workspace(settings.workspace / Path(name).name).trained
    if not name or name != Path(name).name or not place.latest("fuse").is_file():
        raise HostError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "AVATAR_NOT_READY",
            f"The avatar '{name}' was not trained with the original on this machine.",
            "Train it with this host, or draw it with the host talking_gaussian.",
        )
    return place


def _write_wav(path: Path, pieces: Sequence[bytes], rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        for piece in pieces:
            file.writeframes(piece)


def _refused(reason: str, message: str, fix: str | None = None) -> HostError:
    return HostError(grpc.StatusCode.INVALID_ARGUMENT, reason, message, fix)
