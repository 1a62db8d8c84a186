"""`viseme avatars create`, `train`, `watch`, `preview` and `cancel` against a running server."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from viseme import AsyncClient
from viseme.host.v1 import host_pb2

from server.cli import operation_view
from server.cli.failures import ExitCode
from server.cli.main import app
from server.errors import InternalError
from tests.integration.commands import Done, names, started
from tests.integration.conftest import StartWorld, World

HOST = "talking_gaussian_train"
CREATE = ("avatars", "create", "ada", "--video", "clip.mp4")


@pytest.fixture
def clip(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the directory that commands run in."""
    monkeypatch.chdir(place)
    path = place / "clip.mp4"
    path.write_bytes(b"a video" * 20_000)
    return path


async def viseme(world: World, *arguments: str, given: str = "") -> Done:
    """Runs a command in this process, in a thread, so that the server can answer."""
    variables = {"VISEME_SERVER": world.address}
    runner = CliRunner(env=variables)
    result = await asyncio.to_thread(runner.invoke, app, list(arguments), input=given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


def finding(code: str, message: str, fix: str, *, refused: bool) -> host_pb2.PrepareResponse.Finding:
    return host_pb2.PrepareResponse.Finding(code=code, message=message, fix=fix, refused=refused)


def lines(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.out.splitlines()]


async def said(process: asyncio.subprocess.Process, words: bytes) -> bytes:
    """What a command has said on standard error until these words."""
    assert process.stderr
    text = b""
    async with asyncio.timeout(30):
        while words not in text:
            line = await process.stderr.readline()
            assert line, text
            text += line
    return text


async def test_from_a_video_to_an_avatar(world: World, place: Path, clip: Path) -> None:
    done = await viseme(world, *CREATE, "--consent", "--display-name", "Ada", "--preset", "quick")
    assert (done.code, done.out) == (0, "avatars/ada is ready.\n"), done.err
    for words in ("Sending clip.mp4", "What next:", "viseme say note.ogg --avatar ada"):
        assert words in done.err
    assert "\x1b" not in done.err
    table = (await viseme(world, "avatars", "list")).out.splitlines()
    assert [line.split()[:2] for line in table] == [
        ["NAME", "STATE"],
        ["avatars/ada", "ready"],
        ["avatars/demo", "ready"],
    ]
    done = await viseme(world, "avatars", "preview", "ada")
    assert done.out == "Written: ada.png (14 B)\n", done.err
    assert (place / "ada.png").read_bytes() == b"\x89PNG preview 4"
    # What is over can still be looked at.
    done = await viseme(world, "avatars", "watch", "ada")
    assert (done.code, done.out) == (0, "avatars/ada is ready.\n")
    done = await viseme(world, "avatars", "cancel", "ada")
    assert (done.code, "nothing to cancel" in done.out) == (0, True)
    assert (await viseme(world, "avatars", "delete", "ada", "--yes")).code == 0
    assert names(place) == ["ada.png", "clip.mp4"]


async def test_for_programs(world: World, place: Path, clip: Path) -> None:
    note = finding("TOO_SHORT", "It is short.", "Record more.", refused=False)
    world.hosts[HOST].findings = [note]
    done = await viseme(world, *CREATE, "--consent", "--no-train", "--size", "256", "--json")
    assert done.code == 0, done.err
    first, *_, last = lines(done)
    assert (first["task"], first["avatar_name"], first["done"]) == ("prepare", "avatars/ada", False)
    assert (last["done"], last["error"], last["avatar"]["state"]) == (True, None, "PREPARED")
    assert last["avatar"]["findings"] == [
        {"code": "TOO_SHORT", "message": "It is short.", "fix": "Record more.", "refused": False}
    ]
    done = await viseme(world, "avatars", "train", "ada", "--seed", "3", "--json")
    last = lines(done)[-1]
    assert (done.code, last["avatar"]["state"], last["psnr"]) == (0, "READY", 24)
    assert world.hosts[HOST].plan.requests[-1].seed == 3
    done = await viseme(world, "avatars", "watch", last["name"], "--json")
    assert lines(done) == [last]
    facts = json.loads((await viseme(world, "avatars", "show", "ada", "--json")).out)
    assert facts == last["avatar"]
    shown = (await viseme(world, "avatars", "show", "ada")).out
    assert "It is short. Record more." in shown
    done = await viseme(world, "avatars", "preview", "ada", "-o", "x.png", "--json")
    assert json.loads(done.out)["size_bytes"] == (place / "x.png").stat().st_size


async def test_prepared_only(world: World, place: Path, clip: Path) -> None:
    world.hosts[HOST].findings = [finding("DARK", "It is dark.", "Use a lamp.", refused=False)]
    done = await viseme(world, *CREATE, "--consent", "--no-train")
    assert (done.code, done.out) == (0, "avatars/ada is prepared.\n"), done.err
    assert "  - It is dark. Use a lamp.\n" in done.err
    assert "viseme avatars train ada" in done.err
    done = await viseme(world, *CREATE, "--consent")
    assert (done.code, "exists" in done.err or "already" in done.err) == (ExitCode.REFUSED, True)


async def test_detached(world: World, place: Path, clip: Path) -> None:
    done = await viseme(world, *CREATE, "--consent", "--detach")
    operation = done.out.strip()
    assert operation.startswith("operations/")
    assert "viseme avatars watch ada" in done.err
    assert (await viseme(world, "avatars", "watch", operation)).out == "avatars/ada is ready.\n"
    done = await viseme(world, "avatars", "train", "ada", "--detach", "--json")
    assert lines(done)[0]["task"] == "train"


async def test_the_person_must_have_agreed(world: World, place: Path, clip: Path) -> None:
    for answer, code, words in (
        ("n\n", ExitCode.FAILED, "ask the person first"),
        ("", ExitCode.USAGE, "--consent"),
    ):
        done = await viseme(world, *CREATE, given=answer)
        assert (done.code, "avatars/ada" in done.out) == (code, False)
        assert "Has the person in this video agreed?" in done.err
        assert "can be made to say anything" in done.err
        assert "Nothing was sent" in done.err and words in done.err
    async with AsyncClient(world.address) as client:
        assert await client.operations.list() == []
    done = await viseme(world, *CREATE, "--no-train", given="y\n")
    assert (done.code, "avatars/ada is prepared." in done.out) == (0, True), done.err


async def test_a_clip_that_is_refused(world: World, place: Path, clip: Path) -> None:
    world.hosts[HOST].findings = [
        finding("TWO_FACES", "There are two people in the picture.", "Film one.", refused=True),
        finding("DARK", "It is dark.", "Use a lamp.", refused=False),
        finding("NO_SPEECH", "Nobody speaks.", "Say something.", refused=True),
    ]
    done = await viseme(world, *CREATE, "--consent")
    assert (done.code, done.out) == (ExitCode.REFUSED, "")
    assert done.err.splitlines()[-4:-1] == [
        "Error: No avatar can be made of this video:",
        "  - There are two people in the picture. Film one.",
        "  - Nobody speaks. Say something.",
    ]
    assert "viseme avatars preview ada" in done.err
    done = await viseme(world, "avatars", "watch", "ada", "--json")
    assert done.code == ExitCode.REFUSED
    assert lines(done)[-1]["error"]["reason"] == "CLIP_REFUSED"
    assert "ada   failed" in (await viseme(world, "avatars", "list")).out


async def test_work_that_fails(world: World, place: Path, clip: Path) -> None:
    world.hosts.plan(HOST, fail=InternalError("The dog ate it."), after=2)
    done = await viseme(world, *CREATE, "--consent")
    assert (done.code, done.out) == (ExitCode.FAILED, "")
    assert done.err.splitlines()[-1] == "Error: The dog ate it."


async def test_ctrl_c_stops_only_the_watching(world: World, place: Path, clip: Path) -> None:
    plan = world.hosts.plan(HOST, hang=True, after=4)
    async with started(*CREATE, "--consent", cwd=place, VISEME_SERVER=world.address) as process:
        await said(process, b"learning the face ...")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            _, err = await process.communicate()
    assert process.returncode == ExitCode.INTERRUPTED
    told = err.decode()
    for words in ("the work goes on", "viseme avatars watch ada", "viseme avatars cancel ada"):
        assert words in told
    assert "Traceback" not in told and not plan.cancelled.is_set()
    done = await viseme(world, "avatars", "train", "ada")
    assert (done.code, "viseme avatars watch" in done.err) == (ExitCode.NOT_READY, True)
    done = await viseme(world, "avatars", "cancel", "ada")
    assert done.out.startswith("Cancelled: operations/"), done.err
    assert "viseme avatars train ada" in done.err
    done = await viseme(world, "avatars", "watch", "ada")
    assert (done.code, "cancelled" in done.err) == (ExitCode.FAILED, True)


async def test_ctrl_c_while_the_video_is_sent_leaves_nothing(world: World, place: Path) -> None:
    with (place / "clip.mp4").open("wb") as file:
        file.truncate(2 * 1024**3 - 1)
    async with started(*CREATE, "--consent", cwd=place, VISEME_SERVER=world.address) as process:
        await said(process, b"Sending clip.mp4")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            _, err = await process.communicate()
    assert (process.returncode, err.decode().splitlines()[-1]) == (ExitCode.INTERRUPTED, "Error: Stopped.")
    recordings = world.home / "store" / "recordings"
    async with asyncio.timeout(10):
        while recordings.exists() and list(recordings.iterdir()):  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.01)
    async with AsyncClient(world.address) as client:
        assert await client.operations.list() == []


async def test_ctrl_c_is_no_consent(world: World, place: Path, clip: Path) -> None:
    async with started(*CREATE, cwd=place, VISEME_SERVER=world.address) as process:
        await said(process, b"Your answer is kept")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            out, err = await process.communicate()
    assert (process.returncode, err.decode().splitlines()[-1]) == (ExitCode.INTERRUPTED, "Error: Stopped.")
    assert out.strip() == b""


async def test_the_server_is_started_again_meanwhile(
    start_world: StartWorld, place: Path, clip: Path
) -> None:
    world = await start_world()
    world.hosts.plan(HOST, hang=True, after=4)
    async with started(*CREATE, "--consent", cwd=place, VISEME_SERVER=world.address) as process:
        await said(process, b"learning the face ...")
        await world.application.stop(0)
        await said(process, b"Asking again")
        await start_world(listen=world.address)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"avatars/ada is ready.\n"), err
    assert b"It was interrupted and goes on." in err


async def test_a_server_that_stays_away(
    start_world: StartWorld, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await start_world()
    plan = world.hosts.plan(HOST, hang=True, after=2)
    monkeypatch.setattr(operation_view, "PATIENCE_SECONDS", 1.0)
    command = asyncio.ensure_future(viseme(world, *CREATE, "--consent"))
    async with asyncio.timeout(60):
        await plan.reached.wait()
        async with AsyncClient(world.address) as client:
            while not (await client.operations.list())[0].stage:  # noqa: ASYNC110 (as a user would look)
                await asyncio.sleep(0.01)
        await world.application.stop(0)
        done = await command
    assert done.code == ExitCode.UNREACHABLE
    assert "the work goes on when a server runs again" in done.err
    assert "viseme avatars watch ada" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("create", "ada", "--video", "missing.mp4"), ExitCode.NOT_FOUND, "no file missing.mp4"),
        (("create", "ada", "--video", "."), ExitCode.REFUSED, "is a directory"),
        (("create", "ada", "--video", "empty.mp4"), ExitCode.REFUSED, "is empty"),
        (("create", "Ada!", "--video", "clip.mp4", "--consent"), ExitCode.REFUSED, "Ada!"),
        (("create", "demo", "--video", "clip.mp4", "--consent"), ExitCode.REFUSED, "demo"),
        (
            ("create", "ada", "--video", "clip.mp4", "--consent", "--size", "7"),
            ExitCode.REFUSED,
            "256 or 512",
        ),
        (
            ("create", "ada", "--video", "clip.mp4", "--no-train", "--preset", "quick"),
            ExitCode.USAGE,
            "later",
        ),
        (("create", "ada"), ExitCode.USAGE, "--video"),
        (("train", "demo"), ExitCode.NOT_FOUND, "no recording"),
        (("train", "nobody"), ExitCode.NOT_FOUND, "nobody"),
        (("watch", "nobody"), ExitCode.NOT_FOUND, "nobody"),
        (("watch", "demo"), ExitCode.NOT_FOUND, "Nothing is or was being done"),
        (("watch", "operations/00"), ExitCode.NOT_FOUND, "operations/00"),
        (("cancel", "demo"), ExitCode.NOT_FOUND, "Nothing is or was being done"),
        (("cancel", "operations/00"), ExitCode.NOT_FOUND, "operations/00"),
        (("preview", "demo"), ExitCode.NOT_FOUND, "no picture"),
        (("preview", "demo", "-o", "no/such.png"), ExitCode.NOT_FOUND, "no directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_mistakes_are_named(
    world: World, place: Path, clip: Path, arguments: tuple[str, ...], code: ExitCode, words: str
) -> None:
    (place / "empty.mp4").touch()
    done = await viseme(world, "avatars", *arguments)
    assert (done.code, done.out) == (code, ""), done.err
    assert words in " ".join(done.err.replace("│", " ").split())
    assert names(place) == ["clip.mp4", "empty.mp4"]
