"""The command line against a running server, as processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from viseme import Client

from server.cli.failures import CommandError, ExitCode
from server.cli.private_server import PrivateServer
from server.media.mp4 import probe
from tests.doubles.recordings import recording, silent_film
from tests.integration.conftest import World

ROOT = Path(__file__).parents[2]


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "protos"))), **more}


@asynccontextmanager
async def started(*arguments: str, cwd: Path, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "server.cli.main",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env=environment(**variables),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def viseme(world: World, cwd: Path, *arguments: str, given: bytes = b"") -> Done:
    """Runs a command that asks the server of the test."""
    async with started(*arguments, cwd=cwd, VISEME_SERVER=world.address) as process:
        out, err = await process.communicate(given)
        assert b"Traceback" not in err
        return Done(process.returncode or 0, out.decode(), err.decode())


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty directory to work in."""
    directory = tmp_path / "place"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("kind", ["ogg", "m4a"])
async def test_say_a_recording(world: World, place: Path, kind: str) -> None:
    (place / "note.bin").write_bytes(recording(kind))
    done = await viseme(world, place, "say", "note.bin", "-o", "answer.mp4")
    assert done.code == 0, done.err
    assert done.out.startswith("Written: answer.mp4 (")
    assert "heard: " in done.err
    assert "says: " in done.err
    info = probe(place / "answer.mp4")
    assert info.video
    assert info.audio
    assert abs(info.video.duration - info.audio.duration) < 1 / 25


async def test_say_from_standard_input_for_programs(world: World, place: Path) -> None:
    done = await viseme(world, place, "say", "-", "--json", given=recording("webm"))
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert set(facts) == {
        *("output", "size_bytes", "transcript", "language", "text", "provider", "frames"),
        *("audio_seconds", "truncated", "seconds", "timings"),
    }
    assert facts["size_bytes"] == (place / "reply.mp4").stat().st_size
    assert {timing["stage"] for timing in facts["timings"]} >= {"transcribe", "reply", "speak", "render"}


async def test_say_a_text(world: World, place: Path) -> None:
    done = await viseme(world, place, "say", "--text", "How are you?", "--avatar", "demo")
    assert done.code == 0, done.err
    assert probe(place / "reply.mp4").faststart


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", ExitCode.REFUSED, "empty"),
        (b"Dear Mira, how are you?" * 100, ExitCode.REFUSED, "not a recording"),
        (silent_film(), ExitCode.REFUSED, "no sound track"),
    ],
    ids=["empty", "text", "film"],
)
async def test_what_cannot_be_heard(
    world: World, place: Path, data: bytes, code: ExitCode, words: str
) -> None:
    (place / "note.ogg").write_bytes(data)
    done = await viseme(world, place, "say", "note.ogg")
    assert done.code == code
    assert words in done.err
    assert "Try:" in done.err
    assert names(place) == ["note.ogg"]
    assert world.temporary_files() == []


async def test_an_avatar_that_does_not_exist(world: World, place: Path) -> None:
    done = await viseme(world, place, "say", "--text", "Hello", "--avatar", "nobody")
    assert done.code == ExitCode.NOT_FOUND
    assert "nobody" in done.err
    assert names(place) == []


async def test_a_name_that_is_a_way_out(world: World, place: Path) -> None:
    done = await viseme(world, place, "avatars", "show", "avatars/../../etc")
    assert done.code == ExitCode.REFUSED


async def test_a_host_that_dies(world: World, place: Path) -> None:
    world.hosts.plan("kokoro", die=True)
    done = await viseme(world, place, "say", "--text", "Hello")
    assert done.code == ExitCode.UNREACHABLE
    assert names(place) == []


async def test_ctrl_c_stops_the_turn_and_leaves_nothing(world: World, place: Path) -> None:
    plan = world.hosts.plan("kokoro", hang=True)
    async with started("say", "--text", "Hello", cwd=place, VISEME_SERVER=world.address) as process:
        async with asyncio.timeout(20):
            await plan.reached.wait()
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
            await plan.cancelled.wait()
    assert process.returncode == ExitCode.INTERRUPTED
    assert err.decode().splitlines()[-1] == "Error: Stopped."
    assert names(place) == []


async def test_render(world: World, place: Path) -> None:
    (place / "speech.flac").write_bytes(recording("flac", 1.5))
    done = await viseme(
        world, place, "render", "--avatar", "demo", "--audio", "speech.flac", "-o", "x.mp4", "--json"
    )
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["frames"] == 38
    info = probe(place / "x.mp4")
    assert info.faststart
    assert info.metadata["comment"].startswith("AI-generated by viseme")
    assert (
        await viseme(world, place, "render", "-a", "speech.flac", "--avatar", "nobody")
    ).code == ExitCode.NOT_FOUND
    assert names(place) == ["speech.flac", "x.mp4"]


async def test_the_life_of_an_avatar(world: World, place: Path) -> None:
    listed = json.loads((await viseme(world, place, "avatars", "list", "--json")).out)["avatars"]
    assert [avatar["name"] for avatar in listed] == ["avatars/demo"]
    assert {"display_name", "synthetic", "width", "license", "size_bytes", "create_time"} <= set(listed[0])
    done = await viseme(world, place, "avatars", "export", "demo")
    assert done.code == 0, done.err
    done = await viseme(world, place, "avatars", "import", "demo.zip", "--name", "twin")
    assert "Stored as avatars/twin" in done.out
    done = await viseme(world, place, "avatars", "import", "demo.zip", "--name", "twin")
    assert (done.code, "already" in done.err) == (ExitCode.REFUSED, True)
    done = await viseme(world, place, "avatars", "show", "twin", "--thumbnail", "twin.png")
    assert "avatars/twin" in done.out
    assert (place / "twin.png").read_bytes()[:4] == b"\x89PNG"
    assert (await viseme(world, place, "avatars", "delete", "twin", "--yes")).code == 0
    done = await viseme(world, place, "avatars", "show", "twin")
    assert done.code == ExitCode.NOT_FOUND
    table = (await viseme(world, place, "avatars", "list")).out.splitlines()
    assert [line.split()[0] for line in table] == ["NAME", "avatars/demo"]


async def test_hosts(world: World, place: Path) -> None:
    hosts = json.loads((await viseme(world, place, "hosts", "list", "--json")).out)["hosts"]
    assert {"hosts/whisper", "hosts/kokoro"} <= {host["name"] for host in hosts}
    assert {"state", "capabilities", "memory_bytes", "restart_count", "problem", "fix", "models"} <= set(
        hosts[0]
    )
    assert "NAME" in (await viseme(world, place, "hosts", "list")).out
    done = await viseme(world, place, "hosts", "restart", "whisper")
    assert done.out.startswith("hosts/whisper is ")
    assert (await viseme(world, place, "hosts", "logs", "whisper", "-n", "3")).code == 0
    done = await viseme(world, place, "hosts", "logs", "nobody")
    assert (done.code, "nobody" in done.err) == (ExitCode.NOT_FOUND, True)


async def test_serve_until_ctrl_c(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    async with started("serve", "--listen", "127.0.0.1:0", cwd=tmp_path, VISEME_HOME=home) as process:
        assert process.stderr
        async with asyncio.timeout(30):
            lines = []
            while not (lines and b"viseme serves at" in lines[-1]):
                lines.append(await process.stderr.readline())
                assert lines[-1], b"".join(lines)
            address = lines[-1].split()[3].rstrip(b".").decode()
            status = await asyncio.to_thread(Client(address).admin.status)
            assert status.home == home
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
    assert process.returncode == 0, err
    assert b"Traceback" not in err


async def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        async with started(
            "serve", "--listen", listen, cwd=tmp_path, VISEME_HOME=str(tmp_path / "home")
        ) as process:
            _, err = await process.communicate()
    assert process.returncode == ExitCode.NOT_READY
    assert "is in use by another program" in err.decode()
    assert "viseme serve --listen" in err.decode()
    assert "Traceback" not in err.decode()


@pytest.mark.parametrize("listen", ["0.0.0.0:50551", "nonsense", "127.0.0.1:99999"])
async def test_addresses_that_are_not_served(tmp_path: Path, listen: str) -> None:
    async with started("serve", "--listen", listen, cwd=tmp_path) as process:
        _, err = await process.communicate()
    assert process.returncode == ExitCode.NOT_READY
    assert "listen" in err.decode()


def test_a_private_server_ends_with_its_command(tmp_path: Path) -> None:
    with PrivateServer(tmp_path / "home", warm=False) as address:
        with Client(address) as client:
            assert client.admin.status().home == str(tmp_path / "home")
        (server,) = [child for child in psutil.Process().children() if "serve" in child.cmdline()]
    assert not server.is_running()


def test_a_private_server_does_not_outlive_a_command_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom server.cli.private_server import PrivateServer\n"
        "with PrivateServer(Path(sys.argv[1]), warm=False) as address:\n"
        "    print(address, flush=True)\n    time.sleep(600)\n"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "home")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert command.stdout
    address = command.stdout.readline().strip()
    (server,) = psutil.Process(command.pid).children()
    command.kill()
    command.wait()
    command.stdout.close()
    server.wait(20)
    with socket.socket() as probing:
        host, _, port = address.partition(":")
        assert probing.connect_ex((host, int(port))) != 0


def test_a_private_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("nonsense = 1\n")
    with (
        pytest.raises(CommandError, match="nonsense") as caught,
        PrivateServer(tmp_path / "home", tmp_path / "wrong.toml", warm=False),
    ):
        pass
    assert caught.value.code == ExitCode.NOT_READY
