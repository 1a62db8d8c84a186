"""Avatars ready to be rendered, and the cache of those used last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_hosts.talking_gaussian.bundle import Bundle, BundleInvalid, Camera
from model_hosts.talking_gaussian.driving.personal_lips import PersonalLips
from model_hosts.talking_gaussian.images import RgbImage
from model_hosts.talking_gaussian.kinds import AnyBundle, deformer_of, read_bundle
from model_hosts.talking_gaussian.rendering.batches import Painter
from model_hosts.talking_gaussian.rendering.rasteriser import Rasteriser

MakeRasteriser = Callable[[Camera, RgbImage], Rasteriser]
MakePainter = Callable[[Bundle], Painter]

_FILES = ("avatar.json", "model.safetensors", "background.png", "thumbnail.png")
_Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Desk:
    """What one thread needs to draw frames of an avatar."""

    workspace: Any
    rasteriser: Rasteriser


class Avatar:
    """A loaded avatar. Threads share it; each frame in work has a desk of its own.

    Args:
        bundle: The avatar.
        make_rasteriser: Makes the rasteriser of a desk.
        make_painter: Makes what draws many frames at once, where there is a GPU.

    Attributes:
        painter: Draws many frames at once; None where frames are drawn at desks.

    Raises:
        BundleInvalid: The lips of the bundle cannot be used.
    """

    def __init__(
        self, bundle: AnyBundle, make_rasteriser: MakeRasteriser, make_painter: MakePainter | None = None
    ) -> None:
        self.bundle = bundle
        self.lips = PersonalLips.of(bundle)
        self.deformer = deformer_of(bundle)
        self.painter = make_painter(bundle) if make_painter and isinstance(bundle, Bundle) else None
        self._make_rasteriser = make_rasteriser
        self._free: list[Desk] = []

    def take_desk(self) -> Desk:
        """A desk that nobody uses; give it back with `return_desk`."""
        try:
            return self._free.pop()
        except IndexError:
            return Desk(
                self.deformer.workspace(),
                self._make_rasteriser(self.bundle.info.camera, self.bundle.background),
            )

    def return_desk(self, desk: Desk) -> None:
        """Makes a desk free again; a few are kept for later."""
        if len(self._free) < 4:
            self._free.append(desk)


class AvatarCache:
    """Loads avatars by path and keeps those used last. A bundle that changed on disk is loaded again.

    Args:
        make_rasteriser: Makes rasterisers of the avatars.
        size: Avatars to keep.
        make_painter: Makes what draws many frames at once, where there is a GPU.
    """

    def __init__(
        self, make_rasteriser: MakeRasteriser, size: int = 3, make_painter: MakePainter | None = None
    ) -> None:
        self._make_rasteriser, self._make_painter = make_rasteriser, make_painter
        self._size = size
        self._lock = threading.Lock()
        self._loading: dict[Path, threading.Lock] = {}
        self._avatars: OrderedDict[Path, tuple[_Stamp, Avatar]] = OrderedDict()

    def get(self, path: Path) -> Avatar:
        """The avatar of a bundle. Blocks while it is loaded; two callers load it once.

        Raises:
            BundleInvalid: There is no usable bundle.
        """
        with self._lock:
            loading = self._loading.setdefault(path, threading.Lock())
        with loading:
            stamp = _stamp(path)
            with self._lock:
                found = self._avatars.get(path)
                if found is not None and found[0] == stamp:
                    self._avatars.move_to_end(path)
                    return found[1]
            avatar = Avatar(read_bundle(path), self._make_rasteriser, self._make_painter)
            with self._lock:
                self._avatars[path] = stamp, avatar
                self._avatars.move_to_end(path)
                while len(self._avatars) > self._size:
                    dropped, _ = self._avatars.popitem(last=False)
                    self._loading.pop(dropped, None)
        return avatar


def _stamp(path: Path) -> _Stamp:
    """Changes whenever the bundle does: time and size of its files."""
    files = [path / name for name in _FILES] if path.is_dir() else [path]
    try:
        return tuple((status.st_mtime_ns, status.st_size) for status in (file.stat() for file in files))
    except OSError as error:
        raise BundleInvalid(f"{path.name} is not a usable avatar: {error.strerror}") from error
