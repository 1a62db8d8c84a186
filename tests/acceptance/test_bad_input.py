"""What a user may hand in by mistake or malice, at the command line: one sentence, what helps, nothing left.

The server has doubles instead of models here; `test_faults` does the same to the real one.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from viseme import AsyncClient, VisemeError

from server.cli.failures import ExitCode
from tests.acceptance.product import Done, environment, finish, start
from tests.doubles.ask import ask, check_sentence
from tests.doubles.recordings import recording, silent_film
from tests.integration.conftest import World


@dataclass(frozen=True)
class Bad:
    """A recording that cannot be used, how the server refuses it, and words of what the user reads."""

    name: str
    data: Callable[[], bytes]
    reason: str
    words: str
    fix: str


def long_wav(seconds: int) -> bytes:
    """The beginning of a WAV file, whose rest is a hole."""
    size = seconds * 32000
    parts = b"RIFF", 36 + size, b"WAVEfmt ", 16, 1, 1, 16000, 32000, 2, 16, b"data", size
    return struct.pack("<4sI8sIHHIIHH4sI", *parts)


BAD = [
    Bad("empty.ogg", bytes, "AUDIO_EMPTY", "is empty: not one byte", "Record it again"),
    Bad("cut.ogg", lambda: recording("ogg")[:200], "AUDIO_TRUNCATED", "cut off or damaged", "Send it again"),
    Bad(
        "cut.m4a", lambda: recording("m4a")[:-3000], "AUDIO_TRUNCATED", "cut off or damaged", "Send it again"
    ),
    Bad("cut.flac", lambda: recording("flac")[:90], "AUDIO_TRUNCATED", "cut off or damaged", "Send it again"),
    Bad(
        "picture.ogg", lambda: b"\x89PNG\r\n\x1a\n" * 500, "AUDIO_UNREADABLE", "not a recording", "convert it"
    ),
    Bad(
        "question.txt",
        lambda: b"What is the capital of France?\n",
        "AUDIO_UNREADABLE",
        "not a recording",
        "convert",
    ),
    Bad("film.mp4", silent_film, "AUDIO_NOT_FOUND", "no sound track", "microphone"),
    Bad("nothing.wav", lambda: recording("wav", 0), "AUDIO_EMPTY", "no samples", "Record it again"),
    Bad(
        "long.ogg",
        lambda: recording("ogg", 330, silent=True),
        "AUDIO_TOO_LONG",
        "at most 5 minutes",
        "in parts",
    ),
]


async def viseme(world: World, cwd: Path, *arguments: str, **options: Any) -> Done:
    """Runs a command that asks the server of the test."""
    env = environment(cwd, cwd, VISEME_SERVER=world.address)
    return await asyncio.to_thread(lambda: finish(start(*arguments, cwd=cwd, env=env, **options)))


def is_kind(done: Done, code: ExitCode, words: str, fix: str) -> None:
    """The failure is told in one sentence with these words, and what helps."""
    assert done.code == code, done.err
    sentence, _, helps = done.told.partition(" Try: ")
    assert sentence.startswith("Error: ") and sentence.endswith("."), done.err
    assert words in sentence, done.err
    assert fix in helps, done.err


def left(world: World, place: Path, *given: str) -> list[str]:
    """Files that were not there before."""
    return [
        *(path.name for path in place.iterdir() if path.name not in given),
        *(path.name for path in world.temporary_files()),
    ]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty directory to work in."""
    directory = tmp_path / "place"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
async def test_recordings_that_cannot_be_used(world: World, place: Path, bad: Bad) -> None:
    note = place / bad.name
    note.write_bytes(bad.data())
    is_kind(await viseme(world, place, "say", bad.name), ExitCode.REFUSED, bad.words, bad.fix)
    assert left(world, place, bad.name) == []
    if bad.reason != "AUDIO_TOO_LONG":  # A render may be longer.
        done = await viseme(world, place, "render", "--audio", bad.name)
        is_kind(done, ExitCode.REFUSED, bad.words, bad.fix)
    with pytest.raises(VisemeError) as caught:
        await ask(world.address, note)
    check_sentence(caught.value)
    assert (caught.value.reason, caught.value.status) == (bad.reason, "INVALID_ARGUMENT")
    assert not caught.value.retryable
    assert left(world, place, bad.name) == []
    await world.idle()
    assert (await viseme(world, place, "say", "--text", "Hello")).code == 0


@pytest.mark.parametrize(
    ("seconds", "size", "words"),
    [(3 * 3600, 3 * 3600 * 32000, "at most 64 MiB"), (16000, 500 * 2**20, "at most 64 MiB")],
    ids=["3 hours", "500 MB"],
)
async def test_recordings_that_are_far_too_large(
    world: World, place: Path, seconds: int, size: int, words: str
) -> None:
    with (place / "large.wav").open("wb") as file:
        file.write(long_wav(seconds))
        file.truncate(size)
    is_kind(await viseme(world, place, "say", "large.wav"), ExitCode.REFUSED, words, "compress it")
    assert left(world, place, "large.wav") == []
    await world.idle()


@pytest.mark.parametrize("kind", ["eight channels", "wrong extension"])
async def test_unusual_recordings_that_can_be_used(world: World, place: Path, kind: str) -> None:
    data = recording("flac", layout="7.1") if kind == "eight channels" else recording("ogg")
    (place / "note.mp3").write_bytes(data)
    done = await viseme(world, place, "say", "note.mp3", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["transcript"]


async def test_nobody_speaks(world: World, place: Path) -> None:
    world.hosts["whisper"].heard = ""
    (place / "silent.ogg").write_bytes(recording("ogg", silent=True))
    is_kind(await viseme(world, place, "say", "silent.ogg"), ExitCode.REFUSED, "I ", "a little louder")
    assert left(world, place, "silent.ogg") == []


@pytest.mark.parametrize(
    ("arguments", "code", "words", "fix"),
    [
        (("--text", ""), ExitCode.USAGE, "The text is blank", "viseme say --text"),
        (("--text", " \t "), ExitCode.USAGE, "The text is blank", "viseme say --text"),
        (("--text", "a" * 2001), ExitCode.REFUSED, "2001 characters; at most 2000", "fewer words"),
        ((), ExitCode.USAGE, "either a recording or --text", "viseme say note.ogg"),
        (("note.ogg", "--text", "Hi"), ExitCode.USAGE, "either a recording or --text", "viseme say"),
        (("--text", "Hi", "--avatar", "nobody"), ExitCode.NOT_FOUND, "avatars/nobody", "viseme avatars list"),
        (("--text", "Hi", "--avatar", "../../etc/passwd"), ExitCode.REFUSED, "passwd", "avatars/demo"),
        (("--text", "Hi", "--avatar", "avatars/../demo"), ExitCode.REFUSED, "../demo", "lower-case"),
        (("--text", "Hi", "--avatar", "C:\\x"), ExitCode.REFUSED, "C:\\x", "lower-case"),
        (("--text", "Hi", "--voice", "nobody"), ExitCode.NOT_FOUND, "voices/nobody", "voices/af_heart"),
        (("--text", "Hi", "--voice", "../x"), ExitCode.REFUSED, "'../x'", "voices/af_heart"),
        (("--text", "Hi", "-o", "no/where.mp4"), ExitCode.NOT_FOUND, "no directory no", "-o"),
        (("--text", "Hi", "-o", "."), ExitCode.USAGE, "is a directory", "Name a file"),
        (("--text", "Hi", "-o", "/proc/x.mp4"), ExitCode.FAILED, "cannot be written", "-o"),
        (("nowhere.ogg",), ExitCode.NOT_FOUND, "There is no file nowhere.ogg", ""),
        ((".",), ExitCode.REFUSED, "is a directory, not a recording", ""),
        (("--text", "Hi", "--server", "127.0.0.1:1"), ExitCode.UNREACHABLE, "No viseme server", "serve"),
    ],
)
async def test_requests_that_cannot_be_met(
    world: World, place: Path, arguments: tuple[str, ...], code: ExitCode, words: str, fix: str
) -> None:
    is_kind(await viseme(world, place, "say", *arguments), code, words, fix)
    assert left(world, place) == []


async def test_a_wrong_voice_is_told_before_anything_is_written(world: World, place: Path) -> None:
    done = await viseme(world, place, "say", "--text", "Hi", "--voice", "nobody")
    assert "says" not in done.err
    assert world.hosts["kokoro"].plan.requests == []


async def test_an_output_that_exists_stays_until_the_new_one_is_complete(world: World, place: Path) -> None:
    video = place / "reply.mp4"
    video.write_bytes(b"the old one")
    (place / "empty.ogg").touch()
    assert (await viseme(world, place, "say", "empty.ogg")).code == ExitCode.REFUSED
    assert video.read_bytes() == b"the old one"
    assert (await viseme(world, place, "say", "--text", "Hi")).code == 0
    assert video.stat().st_size > 1000
    assert left(world, place, "empty.ogg", "reply.mp4") == []


async def test_the_disk_is_full_where_the_video_goes(world: World, place: Path) -> None:
    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    done = await viseme(world, place, "say", "--text", "Hi", preexec_fn=no_room)
    is_kind(done, ExitCode.NOT_READY, "no room left on the disk", "Free some space")
    assert left(world, place) == []
    await world.idle()


ABSOLUTE = Path("/tmp/evil")
BUNDLE = ("avatar.json", "model.safetensors", "background.png", "thumbnail.png")


def bundle_with(path: Path, avatar: Path, extra: zipfile.ZipInfo | str, data: bytes = b"x") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in BUNDLE:
            archive.write(avatar / name, name)
        archive.writestr(extra, data)


def escaped(home: Path) -> list[Path]:
    """What a bundle has put where it must not."""
    return [*home.rglob("*evil*"), *([ABSOLUTE] if ABSOLUTE.exists() else [])]


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    "extra", ["../evil", str(ABSOLUTE), "..\\evil", "C:\\evil", "avatars/../../evil", "evil", link("evil")]
)
async def test_bundles_that_want_out(
    world: World, place: Path, builtin_avatars: Path, extra: zipfile.ZipInfo | str
) -> None:
    bundle_with(place / "evil.zip", builtin_avatars / "demo", extra)
    done = await viseme(world, place, "avatars", "import", "evil.zip", "--name", "evil")
    is_kind(done, ExitCode.REFUSED, "evil", "")
    assert left(world, place, "evil.zip") == []
    assert escaped(world.home) == []


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "con", "A", "", "x" * 64, "/etc/x"])
async def test_imports_under_names_that_are_none(world: World, builtin_avatars: Path, name: str) -> None:
    async with AsyncClient(world.address) as client:
        with pytest.raises(VisemeError) as caught:
            await client.avatars.import_(name, b"never looked at")
        check_sentence(caught.value)
        assert caught.value.status == "INVALID_ARGUMENT"
        assert caught.value.reason in {"FIELD_INVALID", "FIELD_REQUIRED"}
        assert [avatar.name for avatar in await client.avatars.list()] == ["avatars/demo"]


async def test_a_file_that_is_no_bundle(world: World, place: Path) -> None:
    (place / "note.zip").write_text("no bundle")
    done = await viseme(world, place, "avatars", "import", "note.zip")
    is_kind(done, ExitCode.REFUSED, "not a .zip", "viseme avatars export")


def run(home: Path, place: Path, *arguments: str) -> Done:
    return finish(start(*arguments, cwd=place, env=environment(home, place)))


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--listen", "127.0.0.1:0"),
        ("demo",),
        ("say", "--text", "Hi", "--local"),
        ("assets", "install", "whisper-base"),
        ("hosts", "install", "whisper"),
    ],
)
def test_a_home_that_cannot_be_written(place: Path, arguments: tuple[str, ...]) -> None:
    # Root may write everywhere, but not below a file.
    home = place / "home"
    home.touch()
    is_kind(
        run(home / "viseme", place, *arguments), ExitCode.NOT_READY, "cannot write to its home", "VISEME_HOME"
    )
    assert [path.name for path in place.iterdir()] == ["home"]


@pytest.mark.parametrize(
    ("arguments", "code", "words", "fix"),
    [
        (("assets", "install", "nothing"), ExitCode.NOT_READY, "no asset 'nothing'", "viseme assets list"),
        (("hosts", "install", "nothing"), ExitCode.NOT_FOUND, "no host 'nothing'", "whisper"),
        (("serve", "--listen", "nonsense"), ExitCode.NOT_READY, "HOST:PORT", ""),
        (("serve", "--config", "nowhere.toml"), ExitCode.NOT_READY, "nowhere.toml", ""),
        (("demo", "--question", "nowhere.ogg"), ExitCode.NOT_FOUND, "There is no file", ""),
        (("demo", "--question", " "), ExitCode.USAGE, "The question is empty", "viseme demo"),
    ],
)
def test_commands_of_the_operator(
    place: Path, arguments: tuple[str, ...], code: ExitCode, words: str, fix: str
) -> None:
    is_kind(run(place / "home", place, *arguments), code, words, fix)


def test_a_wrong_option_is_named(place: Path) -> None:
    done = run(place, place, "say", "--seed", "none")
    assert done.code == ExitCode.USAGE
    assert "--seed" in done.err


async def test_the_reader_of_our_output_has_gone(world: World, place: Path) -> None:
    env = environment(place, place, VISEME_SERVER=world.address)
    reader, writer = os.pipe()
    os.close(reader)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "server.cli.main", "avatars", "list", "--json"],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=place,
        env=env,
        check=False,
    )
    os.close(writer)
    assert b"Traceback" not in done.stderr and b"Error" not in done.stderr
