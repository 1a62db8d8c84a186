"""The render host's cache of avatars: loaded once, dropped when old, loaded again when changed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from model_hosts.talking_gaussian.bundle import BundleInvalid, Camera
from model_hosts.talking_gaussian.images import RgbImage
from model_hosts.talking_gaussian.rendering.avatar import Avatar, AvatarCache
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser, Rasteriser
from tests.doubles.avatar import make_avatar


def rasteriser(camera: Camera, plate: RgbImage) -> Rasteriser:
    return CpuRasteriser(camera, plate)


def test_keeps_what_was_used_last(tmp_path: Path) -> None:
    for name in ("ada", "bob", "cleo"):
        make_avatar(60, size=64).write(tmp_path / name)
    cache = AvatarCache(rasteriser, size=2)
    ada, bob = cache.get(tmp_path / "ada"), cache.get(tmp_path / "bob")
    assert cache.get(tmp_path / "ada") is ada
    cache.get(tmp_path / "cleo")
    assert cache.get(tmp_path / "ada") is ada
    assert cache.get(tmp_path / "bob") is not bob


@pytest.mark.parametrize("name", ["ada", "ada.zip"])
def test_loads_again_what_changed(tmp_path: Path, name: str) -> None:
    make_avatar(60, size=64).write(tmp_path / name)
    cache = AvatarCache(rasteriser)
    first = cache.get(tmp_path / name)
    assert cache.get(tmp_path / name) is first
    make_avatar(80, size=64).write(tmp_path / name)
    second = cache.get(tmp_path / name)
    assert second is not first
    assert second.deformer.count == 80
    if name == "ada.zip":
        (tmp_path / name).unlink()
        with pytest.raises(BundleInvalid, match=r"ada\.zip is not a usable avatar"):
            cache.get(tmp_path / name)


def test_callers_at_one_time_load_once(tmp_path: Path) -> None:
    make_avatar(60, size=64).write(tmp_path / "ada")
    cache = AvatarCache(rasteriser)
    start = threading.Barrier(4)
    found: list[Avatar] = []

    def work() -> None:
        start.wait()
        found.append(cache.get(tmp_path / "ada"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({id(avatar) for avatar in found}) == 1


def test_a_broken_bundle_does_not_stay_broken(tmp_path: Path) -> None:
    cache = AvatarCache(rasteriser)
    with pytest.raises(BundleInvalid):
        cache.get(tmp_path / "ada")
    make_avatar(60, size=64).write(tmp_path / "ada")
    assert cache.get(tmp_path / "ada").bundle.info.name == "double"


def test_desks_are_used_again_but_never_shared(tmp_path: Path) -> None:
    avatar = Avatar(make_avatar(60, size=64), rasteriser)
    desks = [avatar.take_desk() for _ in range(6)]
    assert len({id(desk) for desk in desks}) == 6
    for desk in desks:
        avatar.return_desk(desk)
    again = [avatar.take_desk() for _ in range(6)]
    assert len({id(desk) for desk in again}) == 6
    assert 1 <= len({id(desk) for desk in again} & {id(desk) for desk in desks}) <= 4
