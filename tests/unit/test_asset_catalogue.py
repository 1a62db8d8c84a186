"""The catalogue that ships, and catalogues that are wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.assets import Catalogue, CatalogueError
from server.assets.catalogue import PackageSource, UrlSource

GOOD = """
[thing]
title = "A thing"
license = "MIT"
attribution = "Somebody"
homepage = "https://example.org/"
[thing.files]
"a.bin" = { size = 3, sha256 = "SHA" }
[[thing.sources]]
url = "https://example.org/{file}"
""".replace("SHA", "0" * 64)


def load(path: Path, text: str) -> Catalogue:
    path = path / "catalogue.toml"
    path.write_text(text)
    return Catalogue.load(path)


def test_what_ships_is_complete() -> None:
    catalogue = Catalogue.load()
    assert {asset.name for asset in catalogue if asset.default} == {
        "whisper-base",
        "kokoro-82m-int8",
        "kokoro-voices",
        "smollm2-135m-instruct",
    }
    hashes: list[str] = []
    for asset in catalogue:
        assert asset.license in {"MIT", "Apache-2.0"}
        assert asset.title and asset.attribution and asset.homepage.startswith("https://")
        assert isinstance(asset.sources[0], UrlSource), f"{asset.name}: the official source comes first"
        assert isinstance(asset.sources[-1], PackageSource), f"{asset.name}: has no carrier"
        for file in asset.files:
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            assert all(file.name in source.files for source in asset.sources)
            hashes.append(file.sha256)
        for source in asset.sources:
            if isinstance(source, UrlSource):
                assert all(url.startswith("https://") and "{" not in url for url in source.urls.values())
    assert len(hashes) == len(set(hashes)), "two assets share a file: the lock is for each asset alone"


def test_the_files_are_those_that_were_measured() -> None:
    catalogue = Catalogue.load()

    def prefix(asset: str, file: str) -> str:
        return next(entry.sha256 for entry in catalogue[asset].files if entry.name == file)[:8]

    assert prefix("whisper-base", "model.bin") == "d01c3014"
    assert prefix("kokoro-82m-int8", "kokoro-v1.0.int8.onnx") == "6e742170"
    assert prefix("qwen2.5-coder-0.5b", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf") == "1d961463"
    assert prefix("face-landmarker", "face_landmarker.task") == "64184e22"
    assert prefix("selfie-segmenter", "selfie_segmenter.tflite") == "191ac952"


def test_every_asset_of_a_host_is_in_the_catalogue() -> None:
    from server.hosts.manifest import load_manifests

    catalogue = Catalogue.load()
    manifests = load_manifests(Path(__file__).parents[2] / "model_hosts")
    for manifest in manifests.values():
        for name in manifest.assets:
            assert name in catalogue, f"{manifest.name} wants {name}"


def test_a_good_catalogue(tmp_path: Path) -> None:
    asset = load(tmp_path, GOOD)["thing"]
    assert asset.size == 3
    assert not asset.default
    assert asset.sources == (UrlSource({"a.bin": "https://example.org/a.bin"}),)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0" * 64, "0" * 63, "sha256"),
        ("0" * 64, "G" * 64, "sha256"),
        ("size = 3", "size = 0", "size"),
        ("a.bin", "../a.bin", "plain file name"),
        ('license = "MIT"', 'license = ""', "license"),
        ('license = "MIT"', "", "license"),
        ('title = "A thing"', 'title = "A thing"\ncolour = "red"', "colour"),
        ('url = "https://example.org/{file}"', 'urls = { "b.bin" = "https://example.org" }', "source"),
        ('url = "https://example.org/{file}"', "pypi = ['thing>=1']\nmembers = '{file}'", "version"),
        ('url = "https://example.org/{file}"', "pypi = ['--index-url=x==1']\nmembers = '{file}'", "version"),
        ('url = "https://example.org/{file}"', "npm = ['thing']\nmembers = '{file}'", "version"),
        ("[[thing.sources]]", "[[thing.origins]]", "origins"),
        ("[thing]", "[Thing]", "name"),
        ("[thing]", "[thing", "TOML"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(CatalogueError, match=said):
        load(
            tmp_path,
            GOOD.replace(old, new, 1).replace("[thing.", f"[{'Thing' if new == '[Thing]' else 'thing'}."),
        )
