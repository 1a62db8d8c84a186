"""Any recording is heard or refused by name; no file gets at the server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from server.errors import (
    AudioEmpty,
    AudioError,
    AudioNotFound,
    AudioTooLarge,
    AudioTooLong,
    AudioTruncated,
    AudioUnreadable,
    FieldInvalid,
)
from server.media.decode import AudioDecoder, DecodedAudio, DecodeLimits, decode_audio
from tests.doubles.recordings import CONTAINERS, recording, silent_film

OUTCOMES = {
    "AUDIO_EMPTY",
    "AUDIO_UNREADABLE",
    "AUDIO_NOT_FOUND",
    "AUDIO_TRUNCATED",
    "AUDIO_TOO_LONG",
}


@pytest.fixture
def decoder(tmp_path: Path) -> Iterator[AudioDecoder]:
    """A decoder of its own, whose scratch directory must be empty afterwards."""
    scratch = tmp_path / "tmp"
    made = AudioDecoder(scratch)
    made.warm()
    yield made
    made.close()
    assert not scratch.exists() or not list(scratch.iterdir())


def hertz(audio: DecodedAudio) -> float:
    """The strongest frequency."""
    spectrum = np.abs(np.fft.rfft(audio.pcm * np.hanning(len(audio.pcm))))
    return float(np.argmax(spectrum)) * audio.sample_rate / len(audio.pcm)


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("layout", ["mono", "stereo"])
async def test_every_usual_container(decoder: AudioDecoder, kind: str, layout: str) -> None:
    audio = await decoder.decode(recording(kind, 2.0, layout))
    assert audio.pcm.dtype == np.int16
    assert audio.sample_rate == 16000
    assert audio.duration == pytest.approx(2.0, abs=0.06)
    assert hertz(audio) == pytest.approx(440, abs=1.5)
    # A correlated stereo pair is mixed to the level of one channel.
    assert np.abs(audio.pcm.astype(int)).max() == pytest.approx(0.3 * 32767, rel=0.2)
    assert not audio.truncated
    assert audio.source_format.count("/") == 1


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg"])
async def test_eight_channels_are_mixed_down(decoder: AudioDecoder, kind: str) -> None:
    rate = 48000
    audio = await decoder.decode(recording(kind, 1.0, "7.1", rate))
    assert audio.duration == pytest.approx(1.0, abs=0.05)
    assert hertz(audio) == pytest.approx(440, abs=2)


async def test_eight_channels_without_positions(decoder: AudioDecoder) -> None:
    frames = np.tile(np.round(8000 * np.sin(np.arange(16000) * 0.2)).astype("<i2")[:, None], (1, 8))
    header = struct.pack(
        "<4sI8sIHHIIHH", b"RIFF", 36 + frames.nbytes, b"WAVEfmt ", 16, 1, 8, 16000, 256000, 16, 16
    )
    audio = await decoder.decode(header + struct.pack("<4sI", b"data", frames.nbytes) + frames.tobytes())
    assert audio.duration == pytest.approx(1.0, abs=0.01)
    assert np.abs(audio.pcm.astype(int)).max() > 1000


async def test_the_content_decides_and_not_the_name(decoder: AudioDecoder, tmp_path: Path) -> None:
    path = tmp_path / "note.txt.wav"
    path.write_bytes(recording("ogg"))
    assert (await decoder.decode(path)).source_format == "ogg/opus"


async def test_an_upload_as_it_arrives(decoder: AudioDecoder) -> None:
    data = recording("webm")

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 777):
            yield data[start : start + 777]

    assert (await decoder.decode(chunks())).duration == pytest.approx(2.0, abs=0.05)


async def test_an_upload_is_refused_before_it_is_all_there(decoder: AudioDecoder) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield bytes(65536)

    with pytest.raises(AudioTooLarge, match="1 MiB"):
        await decoder.decode(endless(), DecodeLimits(max_upload_bytes=2**20))
    assert sent <= 2**20 + 65536


async def test_half_a_gigabyte_is_refused_at_once(decoder: AudioDecoder, tmp_path: Path) -> None:
    path = tmp_path / "huge.wav"
    with path.open("wb") as file:
        file.truncate(500 * 2**20)
    began = time.monotonic()
    with pytest.raises(AudioTooLarge, match="500 MiB"):
        await decoder.decode(path)
    assert time.monotonic() - began < 0.2


@pytest.mark.parametrize("source", [b"", "file"])
async def test_an_empty_file(decoder: AudioDecoder, tmp_path: Path, source: bytes | str) -> None:
    path = tmp_path / "empty.ogg"
    path.touch()
    with pytest.raises(AudioEmpty) as caught:
        await decoder.decode(path if source == "file" else b"")
    assert caught.value.fix


@pytest.mark.parametrize("kind", ["wav", "flac", "m4a", "webm", "ogg"])
async def test_a_recording_of_no_length(decoder: AudioDecoder, kind: str) -> None:
    with pytest.raises((AudioEmpty, AudioNotFound, AudioTruncated)):
        await decoder.decode(recording(kind, 0.0))


async def test_a_wav_without_samples_is_empty(decoder: AudioDecoder) -> None:
    header = struct.pack(
        "<4sI8sIHHIIHH4sI", b"RIFF", 36, b"WAVEfmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", 0
    )
    with pytest.raises(AudioEmpty, match="no samples"):
        await decoder.decode(header)


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
async def test_a_video_without_sound(decoder: AudioDecoder, kind: str) -> None:
    with pytest.raises(AudioNotFound, match="no sound track"):
        await decoder.decode(silent_film(kind))


@pytest.mark.parametrize(
    "data",
    [
        b"Dear Mira, how are you?\n" * 50,
        b"\x00" * 100_000,
        random.Random(1).randbytes(100_000),
        b"\x89PNG\r\n\x1a\n" + random.Random(2).randbytes(5000),
        b"%PDF-1.7\n" + random.Random(3).randbytes(5000),
        b"PK\x03\x04" + random.Random(4).randbytes(5000),
        b"<html><body>Not found</body></html>",
        b"x",
    ],
)
async def test_what_is_no_sound(decoder: AudioDecoder, data: bytes) -> None:
    with pytest.raises(AudioUnreadable) as caught:
        await decoder.decode(data)
    assert "format" in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
    ],
)
async def test_playlists_cannot_name_files_of_the_server(
    decoder: AudioDecoder, tmp_path: Path, playlist: str
) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(recording("wav"))
    with pytest.raises(AudioUnreadable):
        await decoder.decode(playlist.format(secret).encode())


async def test_long_silence_fails_fast(decoder: AudioDecoder) -> None:
    # Frames of silence are a few bytes long, so a long one is small.
    long = recording("ogg", 200.0, silent=True)
    assert len(long) < 2**18
    began = time.monotonic()
    with pytest.raises(AudioTooLong, match=r"3\.33 minutes; at most 20 seconds") as caught:
        await decoder.decode(long, DecodeLimits(max_audio_seconds=20))
    assert time.monotonic() - began < 0.5
    assert caught.value.fix


async def test_a_three_hour_wav_is_not_decoded(decoder: AudioDecoder, tmp_path: Path) -> None:
    size = 3 * 3600 * 16000 * 2
    path = tmp_path / "three_hours.wav"
    with path.open("wb") as file:
        file.write(
            struct.pack(
                "<4sI8sIHHIIHH4sI",
                b"RIFF",
                36 + size,
                b"WAVEfmt ",
                16,
                1,
                1,
                16000,
                32000,
                2,
                16,
                b"data",
                size,
            )
        )
        file.truncate(44 + size)
    began = time.monotonic()
    with pytest.raises(AudioTooLong, match="3 hours; at most 5 minutes"):
        await decoder.decode(path, DecodeLimits(max_upload_bytes=2**30))
    assert time.monotonic() - began < 0.5


async def test_a_length_that_only_the_header_claims_is_not_believed(decoder: AudioDecoder) -> None:
    data = bytearray(recording("wav", 2.0))
    data[4:8] = struct.pack("<I", 3 * 3600 * 44100)
    position = data.index(b"data") + 4
    data[position : position + 4] = struct.pack("<I", 3 * 3600 * 44100)
    audio = await decoder.decode(bytes(data))
    assert audio.duration == pytest.approx(2.0, abs=0.01)
    assert audio.truncated


async def test_a_stream_that_hides_its_length_is_stopped_at_the_limit(decoder: AudioDecoder) -> None:
    data = bytearray(recording("wav", 9.0))
    position = data.index(b"data") + 4
    data[4:8] = data[position : position + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(AudioTooLong, match="5 seconds"):
        await decoder.decode(bytes(data), DecodeLimits(max_audio_seconds=5))
    assert (await decoder.decode(bytes(data), DecodeLimits(max_audio_seconds=9))).duration == pytest.approx(
        9.0, abs=0.01
    )


@pytest.mark.parametrize("kind", CONTAINERS)
async def test_a_recording_that_is_cut_off(decoder: AudioDecoder, kind: str) -> None:
    data = recording(kind, 4.0)
    for share in (0.9, 0.7, 0.5, 0.3, 0.15, 0.05, 0.01, 0.001):
        piece = data[: max(1, int(len(data) * share))]
        try:
            audio = await decoder.decode(piece)
        except AudioError as error:
            assert error.reason in OUTCOMES
            assert error.reason == "AUDIO_TRUNCATED" or len(piece) < 64
        else:
            assert 0.5 < audio.duration < 4.0
            assert audio.truncated


async def test_most_of_a_note_is_enough(decoder: AudioDecoder) -> None:
    data = recording("ogg", 4.0)
    audio = await decoder.decode(data[: len(data) * 9 // 10])
    assert audio.duration > 2.5
    assert audio.truncated


def mutants(count: int) -> list[bytes]:
    """Files that are damaged, most of them in their headers; the same ones every time."""
    chance = random.Random(20)
    originals = [recording(kind, 0.7) for kind in CONTAINERS] + [silent_film(seconds=0.2)]
    made = []
    for number in range(count):
        data = bytearray(originals[number % len(originals)])
        for _ in range(chance.randint(1, 12)):
            at = chance.randrange(min(len(data), 200 if number % 3 else len(data)))
            match chance.randrange(4):
                case 0:
                    data[at] ^= 1 << chance.randrange(8)
                case 1:
                    data[at : at + 4] = chance.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
                case 2:
                    del data[at : at + chance.randint(1, 40)]
                case _:
                    data[at:at] = chance.randbytes(chance.randint(1, 40))
        made.append(bytes(data))
    return made


async def test_damaged_files_are_heard_or_refused_by_name(decoder: AudioDecoder) -> None:
    for data in mutants(40):
        try:
            audio = await decoder.decode(data)
        except AudioError as error:
            assert error.reason in OUTCOMES
            assert error.message.endswith(".")
        else:
            assert 0 < audio.duration <= 300.2


def test_damage_does_not_get_the_better_of_the_decoder(tmp_path: Path) -> None:
    """Several hundred damaged files in one child: each has an outcome, and none ends the process."""
    from server.media import _decode_child

    files = mutants(500)
    for number, data in enumerate(files):
        (tmp_path / f"{number}").write_bytes(data)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import _decode_child as d\n"
        "for number in range(int(sys.argv[3])):\n"
        "    with open(f'{sys.argv[2]}/{number}', 'rb', buffering=0) as file:\n"
        "        print(d._decode(file, len, 300.0, 16000)['outcome'])\n"
    )
    place = str(Path(_decode_child.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, place, str(tmp_path), str(len(files))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = done.stdout.split()
    assert len(outcomes) == len(files)
    assert set(outcomes) <= {"ok", "not_found", "unreadable", "cut_off", "too_long", "out_of_memory"}
    assert "ok" in outcomes
    assert "cut_off" in outcomes


def hanging(tmp_path: Path, body: str) -> AudioDecoder:
    """A decoder whose child runs `body` once it has been given its file."""
    script = tmp_path / "child.py"
    script.write_text(
        "import os, socket, time\nc = socket.socket(fileno=0)\nr = socket.recv_fds(c, 4096, 1)\n"
        f"c.sendall(b'B' + bytes(4))\n{body}\n"
    )
    return AudioDecoder(tmp_path / "tmp", (sys.executable, "-I", str(script)))


def children() -> list[psutil.Process]:
    alive = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # It ended while we looked.
            if child.status() != psutil.STATUS_ZOMBIE:
                alive.append(child)
    return alive


async def test_a_child_that_hangs_is_killed(tmp_path: Path) -> None:
    decoder = hanging(tmp_path, "time.sleep(600)")
    with pytest.raises(AudioUnreadable, match="too long"):
        await decoder.decode(b"x" * 100, DecodeLimits(wall_seconds=0.5))
    decoder.close()
    assert not children_running(tmp_path)


def children_running(tmp_path: Path) -> list[psutil.Process]:
    """Children of this process that run a script below the directory."""
    return [child for child in children() if any(str(tmp_path) in part for part in child.cmdline())]


async def test_cancelling_kills_the_child_within_300_ms(tmp_path: Path) -> None:
    decoder = hanging(tmp_path, "time.sleep(600)")
    task = asyncio.create_task(decoder.decode(b"x" * 100))
    async with asyncio.timeout(10):
        while not children_running(tmp_path):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    decoder.close()
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 0.3
    assert not children_running(tmp_path)
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    "body",
    [
        "os.kill(os.getpid(), 11)",
        "os._exit(0)",
        "c.sendall(b'garbage that is no message at all')",
        "c.sendall(b'P' + bytes([255] * 4) + bytes(100))",
        "c.sendall(b'E\\x02\\x00\\x00\\x00[]')",
        "c.sendall(b'E\\x02\\x00\\x00\\x00\\xff\\xff')",
        "[c.sendall(b'P\\x00\\x00\\x10\\x00' + bytes(1 << 20)) for _ in range(100)]",
    ],
)
async def test_a_child_that_has_been_taken_over_cannot_do_harm(tmp_path: Path, body: str) -> None:
    decoder = hanging(tmp_path, body)
    with pytest.raises(AudioUnreadable):
        await decoder.decode(b"x" * 100, DecodeLimits(max_audio_seconds=10))
    decoder.close()


async def test_a_child_that_died_in_waiting_is_replaced(decoder: AudioDecoder) -> None:
    others = children()
    await decoder.decode(recording("wav"))
    waiting = [child for child in children() if child not in others]
    assert waiting
    for child in waiting:
        child.kill()
    assert (await decoder.decode(recording("wav"))).duration == pytest.approx(2.0, abs=0.01)


async def test_the_child_has_nothing_to_work_with(tmp_path: Path) -> None:
    """In the child, after its file was taken in: no files, no sockets, no environment, no memory to waste."""
    from server.media import _decode_child

    script = tmp_path / "child.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(_decode_child.__file__).parent)!r})\n"
        "import json, os, socket, _decode_child as d\n"
        "def look(file, sink, limit, rate):\n"
        "    found = [k for k in os.environ if not k.startswith(('LC_', '__'))]\n"
        "    for name, attempt in {\n"
        "        'file': lambda: open('/etc/passwd'), 'socket': socket.socket,\n"
        "        'memory': lambda: bytearray(2 << 30), 'pipe': os.pipe}.items():\n"
        "        try: attempt(); found.append(name)\n"
        "        except (OSError, MemoryError): pass\n"
        "    return {'outcome': 'not_found' if not found else 'unreadable'}\n"
        "d._rehearse(); d._decode, d._rehearse = look, lambda: None\n"
        "d.main()\n"
    )
    decoder = AudioDecoder(tmp_path / "tmp", (sys.executable, "-I", str(script)))
    with pytest.raises(AudioNotFound):
        await decoder.decode(b"x" * 100)
    decoder.close()


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe"])
async def test_paths_that_are_no_files(decoder: AudioDecoder, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises((FieldInvalid, AudioUnreadable), match="thing"):
        await decoder.decode(path)


async def test_many_at_once(decoder: AudioDecoder) -> None:
    data = recording("mp3", 1.0)
    heard = await asyncio.gather(*(decoder.decode(data) for _ in range(6)))
    assert all(np.array_equal(audio.pcm, heard[0].pcm) for audio in heard)


@pytest.mark.parametrize(("kind", "rate"), [("mp3", 44100), ("wav", 22050), ("ogg", 48000)])
async def test_a_recording_may_keep_its_own_rate(decoder: AudioDecoder, kind: str, rate: int) -> None:
    audio = await decoder.decode(recording(kind, 1.0), sample_rate=None)
    assert audio.sample_rate == rate
    assert audio.duration == pytest.approx(1.0, abs=0.05)
    assert hertz(audio) == pytest.approx(440, abs=2)


async def test_the_shared_decoder() -> None:
    assert (await decode_audio(recording("ogg"))).duration == pytest.approx(2.0, abs=0.05)
