"""The blob store against a directory and against a real S3 server: whole or not at all, away, refusing."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.errors import (
    BlobDamaged,
    BlobNotFound,
    BlobsRefused,
    BlobsUnreachable,
    BlobSuperseded,
    ConfigInvalid,
    DiskFull,
)
from server.store.blobs import Blobs, BlobSettings, open_blobs
from server.store.keeper import Keeper
from server.store.trees import TreeStore
from tests.doubles.s3 import BUCKET, KEY, S3Server

pytest.importorskip("fsspec", reason="fsspec is not installed")
ROOT = Path(__file__).parents[2]


def need_s3() -> None:
    for module in ("s3fs", "moto"):
        pytest.importorskip(module, reason=f"{module} is not installed, no S3 server: make test-cluster")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    need_s3()
    server = S3Server(tmp_path_factory.mktemp("s3") / "s3.log")
    yield server
    server.stop()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEY.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["file", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, keys: None) -> Blobs:
    if request.param == "file":
        return open_blobs(BlobSettings(f"file://{tmp_path}/blobs"))
    server: S3Server = request.getfixturevalue("s3")
    return open_blobs(BlobSettings(f"s3://{BUCKET}/{tmp_path.name}", server.endpoint))


def write(root: Path, **files: bytes) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_objects_come_and_go(blobs: Blobs) -> None:
    large = os.urandom(20 * 1024**2)
    blobs.put("a/large", io.BytesIO(large))
    blobs.write("a/small", b"one")
    blobs.write("a/small", b"two")
    assert blobs.read("a/large") == large
    assert blobs.read("a/small") == b"two"
    assert blobs.keys("") == ["a/large", "a/small"]
    blobs.delete(["a/large", "a/never"])
    assert blobs.keys("a") == ["a/small"]
    with pytest.raises(BlobNotFound):
        blobs.read("a/large")
    blobs.sweep()


def test_a_tree_goes_there_and_back(blobs: Blobs, tmp_path: Path) -> None:
    trees = TreeStore(blobs)
    files = {"a": b"1", "b__c": b"22", "same": b"1", "empty": b""}
    first = trees.publish("recordings/ada", write(tmp_path / "from", **files))
    trees.fetch("recordings/ada", tmp_path / "to")
    assert contents(tmp_path / "to") == contents(tmp_path / "from")
    assert trees.digest("recordings/ada") == first
    write(tmp_path / "from", a=b"other")
    (tmp_path / "from" / "b" / "c").unlink()
    second = trees.publish("recordings/ada", tmp_path / "from")
    assert second != first
    trees.fetch("recordings/ada", tmp_path / "again")
    assert contents(tmp_path / "again") == {"a": b"other", "same": b"1", "empty": b""}
    # What the first had and the second has not is gone.
    assert len(blobs.keys("recordings/ada/objects")) == 3
    trees.publish("recordings/ada2", tmp_path / "to")
    trees.delete("recordings/ada2")
    trees.publish("recordings/ad", tmp_path / "to")
    trees.delete("recordings/ad")
    assert trees.keys("recordings") == ["recordings/ada"]
    trees.delete("recordings/ada")
    assert blobs.keys("") == []
    assert trees.digest("recordings/ada") is None
    with pytest.raises(BlobNotFound):
        trees.fetch("recordings/ada", tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_who_was_replaced_stores_nothing_more(blobs: Blobs, tmp_path: Path) -> None:
    trees = TreeStore(blobs)
    trees.publish("trainings/ada", write(tmp_path / "one", step=b"1"), turn="1-1")
    trees.publish("trainings/ada", write(tmp_path / "two", step=b"2"), turn="1-2")
    with pytest.raises(BlobSuperseded):
        trees.publish("trainings/ada", write(tmp_path / "one", step=b"3"), turn="1-1")
    trees.fetch("trainings/ada", tmp_path / "to")
    assert contents(tmp_path / "to") == {"step": b"2"}
    trees.publish("trainings/ada", write(tmp_path / "two", step=b"4"), turn="1-2")


def largest(blobs: Blobs, key: str) -> str:
    return max(blobs.keys(f"{key}/objects"), key=lambda each: len(blobs.read(each)))


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_a_damaged_object_is_named_and_never_used(blobs: Blobs, tmp_path: Path, damage: str) -> None:
    trees = TreeStore(blobs)
    trees.publish("trainings/ada", write(tmp_path / "from", checkpoint=b"x" * 1000, preview=b"small"))
    broken = largest(blobs, "trainings/ada")
    if damage == "missing":
        blobs.delete([broken])
    else:
        blobs.write(broken, b"x" * 900 if damage == "truncated" else b"x" * 999 + b"y")
    with pytest.raises(
        BlobDamaged, match=r"checkpoint of trainings/ada is (damaged|missing) in the blob store"
    ):
        trees.fetch("trainings/ada", tmp_path / "to")
    assert not (tmp_path / "to").exists() and not list(tmp_path.glob(".fetch*"))
    # Work goes on from what is whole.
    (tmp_path / "work").mkdir()
    assert set(trees.fetch_usable("trainings/ada", tmp_path / "work")) == {"checkpoint"}
    assert contents(tmp_path / "work") == {"preview": b"small"}


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{", b"[]", b'{"files": [{"path": "../x", "sha256": "%s", "size": 1}]}' % (b"0" * 64)],
)
def test_a_damaged_list_of_files(blobs: Blobs, tmp_path: Path, manifest: bytes) -> None:
    blobs.write("trainings/ada/tree.json", manifest)
    trees = TreeStore(blobs)
    with pytest.raises(BlobDamaged, match="The list of files of trainings/ada is damaged"):
        trees.fetch("trainings/ada", tmp_path / "to")
    assert trees.fetch_usable("trainings/ada", tmp_path).keys() == {"tree.json"}
    # The next upload puts it right.
    trees.publish("trainings/ada", write(tmp_path / "from", a=b"1"))
    trees.fetch("trainings/ada", tmp_path / "to")


UPLOAD = """
import sys
from pathlib import Path
from server.store.blobs import BlobSettings, open_blobs
from server.store.trees import TreeStore
import server.store.blobs as module

copy = module.shutil.copyfileobj
def slow(source, target, length):
    for _ in range(40):
        target.write(source.read(1 << 20))
    print("half", flush=True)
    sys.stdin.read()
module.shutil.copyfileobj = slow
trees = TreeStore(open_blobs(BlobSettings(sys.argv[1], sys.argv[2])))
trees.publish("trainings/ada", Path(sys.argv[3]))
"""


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_an_upload_that_is_killed_leaves_no_broken_object(
    request: pytest.FixtureRequest, tmp_path: Path, keys: None, kind: str
) -> None:
    if kind == "s3":
        settings = BlobSettings(f"s3://{BUCKET}/{tmp_path.name}", request.getfixturevalue("s3").endpoint)
    else:
        settings = BlobSettings(f"file://{tmp_path}/blobs")
    blobs = open_blobs(settings)
    trees = TreeStore(blobs)
    trees.publish("trainings/ada", write(tmp_path / "from", checkpoint=b"the first"))
    write(tmp_path / "from", checkpoint=os.urandom(60 * 1024**2))
    process = subprocess.Popen(
        [sys.executable, "-c", UPLOAD, settings.url, settings.endpoint, str(tmp_path / "from")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [key for key in blobs.keys("") if not key.startswith(".uploads/")] == [
        *blobs.keys("trainings/ada/objects"),
        "trainings/ada/tree.json",
    ]
    trees.fetch("trainings/ada", tmp_path / "to")
    assert contents(tmp_path / "to") == {"checkpoint": b"the first"}
    trees.publish("trainings/ada", tmp_path / "from")
    trees.fetch("trainings/ada", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "from")


def test_the_store_is_away_and_comes_back(
    tmp_path: Path, keys: None, caplog: pytest.LogCaptureFixture
) -> None:
    need_s3()
    server = S3Server(tmp_path / "s3.log")
    trees = TreeStore(open_blobs(BlobSettings(f"s3://{BUCKET}/x", server.endpoint)))
    write(tmp_path / "from", checkpoint=b"kept")
    server.stop()
    with caplog.at_level(logging.DEBUG), pytest.raises(BlobsUnreachable) as caught:
        trees.publish("trainings/ada", tmp_path / "from")
    assert caught.value.message.startswith(f"The blob store at s3://{BUCKET}/x cannot be reached (")
    assert caught.value.message.endswith("); it was tried 4 times.") and caught.value.retryable
    assert KEY["AWS_SECRET_ACCESS_KEY"] not in caplog.text + caught.value.message
    # It is back before the tries are over.
    returning = threading.Timer(0.6, server.start)
    returning.start()
    try:
        for _ in range(3):
            try:
                trees.publish("trainings/ada", tmp_path / "from")
                break
            except BlobsUnreachable:
                continue
        trees.fetch("trainings/ada", tmp_path / "to")
    finally:
        returning.join()
        server.stop()
    assert contents(tmp_path / "to") == {"checkpoint": b"kept"}


def test_a_store_that_never_answers(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    need_s3()
    monkeypatch.setattr("server.store.blobs._READ_SECONDS", 1)
    # The system takes connections for it, and nobody reads them.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        blobs = open_blobs(BlobSettings(f"s3://{BUCKET}/x", endpoint))
        start = time.monotonic()
        with pytest.raises(BlobsUnreachable, match="cannot be reached"):
            blobs.write("a", b"1")
        assert time.monotonic() - start < 20


def test_wrong_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_s3()
    server = S3Server(tmp_path / "s3.log", authenticate=True)
    credentials = tmp_path / "key.toml"
    credentials.write_text('key = "the-id"\nsecret = "not-the-secret"\n')
    credentials.chmod(0o600)
    try:
        wrong = open_blobs(BlobSettings(f"s3://{BUCKET}", server.endpoint, str(credentials)))
        calls: list[Callable[[], object]] = [
            lambda: wrong.write("a", b"1"), lambda: wrong.read("a"), lambda: wrong.keys(""),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(
                BlobsRefused, match=r"does not let us in: the credentials are wrong"
            ) as caught:
                call()
            assert "not-the-secret" not in str(caught.value)
        for name in KEY:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("HOME", str(tmp_path))
        none = open_blobs(BlobSettings(f"s3://{BUCKET}", server.endpoint))
        with pytest.raises(BlobsRefused):
            none.write("a", b"1")
    finally:
        server.stop()


def test_our_own_disk_is_full(blobs: Blobs) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    blobs.write("a", b"1")
    with pytest.raises(DiskFull):
        blobs.get("a", Full())


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("bucket", "not a URL with a place in it"),
        ("s3://", "not a URL with a place in it"),
        ("s3://key:secret@bucket", "has a key in it"),
        ("nothing://bucket/x", "There is no blob store 'nothing://'"),
    ],
)
def test_urls_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigInvalid, match=message) as caught:
        open_blobs(BlobSettings(url))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ('key = "a"\nsecret = "hush"\n', 0o644, "Others can read the credentials"),
        ('key = "a"\n', 0o600, "must have key and secret"),
        ("hush", 0o600, "is not TOML"),
        (None, 0, "cannot be read: No such file"),
    ],
)
def test_credential_files_that_are_refused(
    tmp_path: Path, content: str | None, mode: int, message: str
) -> None:
    path = tmp_path / "key.toml"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(ConfigInvalid, match=message) as caught:
        open_blobs(BlobSettings("s3://bucket/x", credentials=str(path)))
    assert "hush" not in str(caught.value)


async def test_what_is_worked_on_is_kept_while_it_changes(blobs: Blobs, tmp_path: Path) -> None:
    trees = TreeStore(blobs)
    work = write(tmp_path / "work", other=b"not kept")
    keeper = Keeper(trees, "trainings/ada", work, ["checkpoint"])
    keeper.start()
    for number in range(2):
        write(tmp_path, fresh=b"step %d" % number)
        (tmp_path / "fresh").replace(work / "checkpoint")
        async with asyncio.timeout(10):
            while True:
                (tmp_path / "seen").mkdir(exist_ok=True)
                await asyncio.to_thread(trees.fetch_usable, "trainings/ada", tmp_path / "seen")
                if contents(tmp_path / "seen") == {"checkpoint": b"step %d" % number}:
                    break
                await asyncio.sleep(0.05)
    write(work, checkpoint=b"the last step")
    await keeper.stop()
    trees.fetch("trainings/ada", tmp_path / "to")
    assert contents(tmp_path / "to") == {"checkpoint": b"the last step"}
