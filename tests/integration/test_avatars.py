"""Avatars over real gRPC: listed, imported, exported, deleted; bundles that are no good."""

from __future__ import annotations

import io
import json
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from viseme import AsyncClient, Client, VisemeError

from tests.doubles.ask import ask, check_sentence
from tests.integration.conftest import StartWorld, World

FILES = ("avatar.json", "model.safetensors", "background.png", "thumbnail.png")


@pytest.fixture
def bundle(builtin_avatars: Path) -> dict[str, bytes]:
    return {name: (builtin_avatars / "demo" / name).read_bytes() for name in FILES}


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


async def test_shipped_avatar_is_listed(world: World) -> None:
    async with AsyncClient(world.address) as client:
        (avatar,) = await client.avatars.list()
        assert avatar == await client.avatars.get("demo") == await client.avatars.get("avatars/demo")
    assert (avatar.name, avatar.width, avatar.height, avatar.fps) == ("avatars/demo", 64, 64, 25)
    assert avatar.gaussian_count == 60
    assert avatar.thumbnail.startswith(b"\x89PNG")
    assert avatar.size_bytes > 1000 and avatar.display_name and avatar.license


async def test_round_trip(world: World, tmp_path: Path) -> None:
    async with AsyncClient(world.address) as client:
        exported = await client.avatars.export("demo", tmp_path / "one.zip")
        imported = await client.avatars.import_("ada-2", exported)
        assert imported.name == "avatars/ada-2"
        assert [avatar.name for avatar in await client.avatars.list()] == ["avatars/ada-2", "avatars/demo"]
        again = await client.avatars.export("avatars/ada-2", tmp_path / "two.zip")
        assert exported.read_bytes() == again.read_bytes()
        reply, _ = await ask(world.address, text="Hello", avatar="ada-2")
        assert reply.video
        with pytest.raises(VisemeError) as caught:
            await client.avatars.import_("ada-2", exported)
        assert (caught.value.reason, caught.value.status) == ("AVATAR_EXISTS", "ALREADY_EXISTS")
        await client.avatars.delete("ada-2")
        with pytest.raises(VisemeError) as caught:
            await client.avatars.get("ada-2")
        assert caught.value.reason == "AVATAR_NOT_FOUND"
        for change in (client.avatars.delete("demo"), client.avatars.import_("demo", exported)):
            with pytest.raises(VisemeError) as caught:
                await change
            check_sentence(caught.value)
    assert list((world.home / "store" / "avatars").iterdir()) == []
    assert world.temporary_files() == []


def test_synchronous_client(world_in_thread: World, tmp_path: Path) -> None:
    with Client(world_in_thread.address) as client:
        path = client.avatars.export("demo", tmp_path / "demo.zip")
        assert client.avatars.import_("avatars/twin", path.read_bytes()).name == "avatars/twin"
        assert [avatar.name for avatar in client.avatars.list()] == ["avatars/demo", "avatars/twin"]
        assert client.avatars.get("twin").gaussian_count == 60
        client.avatars.delete("twin")
        with pytest.raises(VisemeError):
            client.avatars.export("twin", tmp_path / "twin.zip")
        with pytest.raises(FileNotFoundError):
            client.avatars.import_("other", tmp_path / "missing.zip")
    assert [path.name for path in tmp_path.glob("*.zip")] == ["demo.zip"]


def changed(**fields: object) -> Callable[[dict[str, bytes]], bytes]:
    def change(files: dict[str, bytes]) -> bytes:
        info = json.loads(files["avatar.json"]) | fields
        return zipped({**files, "avatar.json": json.dumps(info).encode()})

    return change


def with_entry(name: str, *, link: bool = False) -> Callable[[dict[str, bytes]], bytes]:
    def change(files: dict[str, bytes]) -> bytes:
        out = io.BytesIO(zipped(files))
        with zipfile.ZipFile(out, "a") as archive:
            entry = zipfile.ZipInfo(name)
            if link:
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # The zipfile module warns of a name that is there already.
                archive.writestr(entry, b"/etc/passwd")
        return out.getvalue()

    return change


def bomb(files: dict[str, bytes]) -> bytes:
    return zipped({**files, "background.png": files["background.png"] + bytes(30_000_000)})


def linked_thumbnail(files: dict[str, bytes]) -> bytes:
    files = dict(files)
    files.pop("thumbnail.png")
    return with_entry("thumbnail.png", link=True)(files)


def corrupted(files: dict[str, bytes]) -> bytes:
    data = bytearray(zipped(files))
    middle = len(data) // 3
    data[middle : middle + 64] = bytes(64)
    return bytes(data)


def claims_less(files: dict[str, bytes]) -> bytes:
    """An archive whose directory says that a file is small."""
    data = bytearray(zipped(files))
    position = data.rfind(b"PK\x01\x02", 0, data.rfind(b"model.safetensors"))
    data[position + 24 : position + 28] = (10).to_bytes(4, "little")
    return bytes(data)


BAD_BUNDLES: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "empty": lambda files: b"",
    "not a zip": lambda files: b"PK but not really" * 100,
    "cut off": lambda files: zipped(files)[:-200],
    "damaged": corrupted,
    "false size": claims_less,
    "climbs out": with_entry("../../evil.txt"),
    "absolute path": with_entry("/tmp/evil.txt"),
    "backslashes": with_entry("..\\evil.txt"),
    "something else inside": with_entry("run.sh"),
    "pickle": with_entry("model.pkl"),
    "twice the same": with_entry("avatar.json"),
    "link": linked_thumbnail,
    "bomb": bomb,
    "file missing": lambda files: zipped({name: files[name] for name in FILES[:3]}),
    "not json": lambda files: zipped({**files, "avatar.json": b"{"}),
    "other format": changed(format="something"),
    "future version": changed(version=2),
    "huge picture": changed(width=100_000),
    "wrong picture size": changed(width=128),
    "other frame rate": changed(fps=60),
    "wrong number of points": changed(branches={name: {"count": 5} for name in ("face", "mouth", "torso")}),
    "branch missing": changed(branches={"face": {"count": 5}}),
    "text for a name": changed(display_name=7),
    "weights cut off": lambda files: zipped({**files, "model.safetensors": files["model.safetensors"][:-8]}),
    "weights with a tail": lambda files: zipped(
        {**files, "model.safetensors": files["model.safetensors"] + b"x"}
    ),
    "weights of nothing": lambda files: zipped({**files, "model.safetensors": b""}),
    "weights with a huge header": lambda files: zipped({**files, "model.safetensors": b"\xff" * 64}),
    "pickled weights": lambda files: zipped({**files, "model.safetensors": b"\x80\x04\x95" + bytes(100)}),
    "picture that is none": lambda files: zipped({**files, "thumbnail.png": b"GIF89a" + bytes(50)}),
}


@pytest.mark.parametrize("name", BAD_BUNDLES)
async def test_bad_bundles_leave_nothing_behind(world: World, bundle: dict[str, bytes], name: str) -> None:
    async with AsyncClient(world.address) as client:
        with pytest.raises(VisemeError) as caught:
            await client.avatars.import_("mallory", BAD_BUNDLES[name](bundle))
        check_sentence(caught.value)
        assert (caught.value.reason, caught.value.status) == ("BUNDLE_INVALID", "INVALID_ARGUMENT")
        assert [avatar.name for avatar in await client.avatars.list()] == ["avatars/demo"]
    assert list((world.home / "store" / "avatars").iterdir()) == []
    assert world.temporary_files() == []
    assert not list(world.home.parent.rglob("evil*"))


@pytest.mark.parametrize("name", ["", "Ada", "a/b", "..", "con", "a" * 64, "ä"])
async def test_bad_names_are_refused(world: World, bundle: dict[str, bytes], name: str) -> None:
    async with AsyncClient(world.address) as client:
        with pytest.raises(VisemeError) as caught:
            await client.avatars.import_(name if "/" not in name else "b_ad!", zipped(bundle))
    assert caught.value.reason in {"FIELD_INVALID", "FIELD_REQUIRED"}


async def test_bundle_too_large(start_world: StartWorld, bundle: dict[str, bytes]) -> None:
    world = await start_world(limits={"max_bundle_bytes": 1000})
    async with AsyncClient(world.address) as client:
        with pytest.raises(VisemeError) as caught:
            await client.avatars.import_("big", zipped(bundle))
    assert caught.value.reason == "BUNDLE_INVALID" and "larger" in caught.value.message


async def test_damaged_avatar_is_left_out(world: World, bundle: dict[str, bytes]) -> None:
    async with AsyncClient(world.address) as client:
        await client.avatars.import_("ada", zipped(bundle))
        (world.home / "store" / "avatars" / "ada" / "model.safetensors").write_bytes(b"")
        assert [avatar.name for avatar in await client.avatars.list()] == ["avatars/demo"]
        with pytest.raises(VisemeError) as caught:
            await client.avatars.get("ada")
        assert caught.value.reason == "BUNDLE_INVALID"
        await client.avatars.delete("ada")
