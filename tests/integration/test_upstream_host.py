"""The host that runs the original's scripts, with a stand-in for its repository: real processes and gRPC."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import sys
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import psutil
import pytest
from viseme.host.v1 import host_pb2

from server.environment_choice import EnvironmentChoice
from server.errors import (
    AssetMissing,
    AudioTooLong,
    AvatarNotReady,
    ConfigInvalid,
    DeviceUnsuitable,
    TrainingDiverged,
    UpstreamFailed,
    VisemeError,
)
from server.host_calls import calling, renderer, trainer
from server.hosts import HostPool
from server.hosts.interpreters import find_interpreter
from server.hosts.manifest import PythonRange
from tests.doubles.conda import install_conda

ROOT = Path(__file__).parents[2]
DOUBLES = ROOT / "tests" / "doubles"
NAME = "talking_gaussian_upstream"
STEPS = 20000


@dataclass
class World:
    """A machine of an operator who has the original's repository, and our host on it."""

    directory: Path
    pool: HostPool

    @property
    def repository(self) -> Path:
        return self.directory / "the original"

    def wish(self, **wishes: str) -> None:
        (self.repository / "wish.json").write_text(json.dumps(wishes), encoding="utf-8")

    def calls(self) -> list[dict[str, Any]]:
        lines = (self.repository / "calls.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def scripts(self) -> list[str]:
        return [Path(call["argv"][0]).stem for call in self.calls()]

    def request(self, **values: str) -> host_pb2.TrainRequest:
        told = {
            "recording": str(self.directory / "recording"),
            "bundle": str(self.directory / "bundle"),
            "checkpoint": str(self.directory / "checkpoint"),
            "preview": str(self.directory / "preview.png"),
            "name": "ada",
        }
        return host_pb2.TrainRequest(**{**told, **values})

    async def train(self, **values: str) -> list[host_pb2.TrainResponse]:
        async with calling(NAME):
            call = trainer(await self.pool.channel(NAME)).Train(self.request(**values))
            return [response async for response in call]

    async def render(self, seconds: float) -> list[host_pb2.RenderResponse]:
        async def requests() -> AsyncIterator[host_pb2.RenderRequest]:
            bundle = str(self.directory / "bundle")
            config = host_pb2.RenderRequest.Config(bundle=bundle, sample_rate=24000)
            yield host_pb2.RenderRequest(config=config)
            for _ in range(2):
                pcm = bytes(2 * round(seconds / 2 * 24000))
                yield host_pb2.RenderRequest(speech=host_pb2.RenderRequest.Speech(pcm=pcm))

        async with calling(NAME):
            call = renderer(await self.pool.channel(NAME)).Render(requests())
            return [response async for response in call]

    def pool_with(
        self,
        host_python: Path | None = Path(sys.executable),
        environments: dict[str, EnvironmentChoice] | None = None,
        **changes: str,
    ) -> HostPool:
        settings = {
            "repository": str(self.repository),
            "python": sys.executable,
            "viseme_python": str(self.directory / "tools"),
            "iterations": str(STEPS),
            **changes,
        }
        hosts = self.directory / "hosts"
        if not hosts.exists():
            hosts.mkdir()
            shutil.copytree(ROOT / "model_hosts" / NAME, hosts / NAME)
        return HostPool(
            self.directory / "home",
            hosts,
            asset_path=lambda name: self.directory / "encoder" if name == "whisper-base" else None,
            threads=1,
            python=host_python,
            environments=environments,
            settings={NAME: {name: value for name, value in settings.items() if value}},
        )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    # Spaces and links in paths are ordinary.
    place = tmp_path / "a machine"
    place.mkdir()
    shutil.copytree(DOUBLES / "upstream_repository", place / "the original")
    (place / "encoder").mkdir()
    (place / "really").mkdir()
    (place / "recording").symlink_to(place / "really")
    with wave.open(str(place / "recording" / "audio.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(32000))
    tools = place / "tools"
    run = f"cd {ROOT} && exec {sys.executable} -m tests.doubles.upstream_tools"
    code = f'#!/bin/sh\n{run} "$@"\n'
    tools.write_text(code, encoding="ascii")
    tools.chmod(0o755)
    world = World(place, None)  # type: ignore[arg-type]
    world.pool = world.pool_with()
    yield world
    await world.pool.close()


async def test_trains_with_the_originals_own_command_lines(world: World) -> None:
    told = await world.train(display_name="Ada", default_voice="voices/af_heart", device="1")
    data, model = (
        world.directory / "home" / "upstream" / "ada" / "training" / name for name in ("data", "model")
    )
    place = ["-s", str(data), "-m", str(model)]
    extractor = ["--audio_extractor", "deepspeech"]
    steps = ["--iterations", str(STEPS)]
    face = ["--init_num", "2000", "--densify_grad_threshold", "0.0005"]
    assert [call["argv"] for call in world.calls()] == [
        ["train_mouth.py", *place, *extractor, *steps],
        ["train_face.py", *place, *face, *extractor, *steps],
        ["train_fuse.py", *place, "--opacity_lr", "0.001", *extractor],
    ]
    for call in world.calls():
        assert call["cwd"] == str(world.repository)
        assert call["CUDA_VISIBLE_DEVICES"] == "1"
        assert call["PYTHONPATH"] is None, "the original does not see our packages"
    progress = [response.progress for response in told if response.WhichOneof("payload") == "progress"]
    assert list(dict.fromkeys(one.stage for one in progress)) == ["export", "mouth", "face", "fuse", "import"]
    shares = [one.total for one in progress]
    assert shares == sorted(shares)
    last = [one for one in progress if one.stage == "face" and one.loss][-1]
    assert (last.step, last.steps) == (STEPS, STEPS)
    assert last.loss == pytest.approx(1 / STEPS, abs=1e-5)
    # The bar of a step comes before the evaluation of the same step.
    assert last.psnr == pytest.approx(20 + (STEPS - 2000) / 2000)
    assert any(one.seconds_left > 0 for one in progress)
    notes = [response.note.text for response in told if response.WhichOneof("payload") == "note"]
    assert f"Stage mouth, step {STEPS}: the original saved its checkpoint." in notes
    assert dict(told[-1].result.metrics) == {"face_psnr": pytest.approx(30)}
    card = json.loads((world.directory / "bundle" / "avatar.json").read_text(encoding="utf-8"))
    assert (card["name"], card["display_name"]) == ("ada", "Ada")
    assert "non-commercial" in card["license"]
    assert (world.directory / "preview.png").exists()


@pytest.mark.parametrize(
    ("wish", "expected", "kind"),
    [
        ("fail", r"train_face.py ended with status 1:\n(.*\n)*ZeroDivisionError: the lips", UpstreamFailed),
        ("memory", "CUDA out of memory", DeviceUnsuitable),
        ("nan", "loss in stage face is no number at step", TrainingDiverged),
        ("die", "train_face.py was killed by SIGKILL, perhaps for want of memory", UpstreamFailed),
        ("idle", "train_face.py ended without its checkpoint of step 20000", UpstreamFailed),
    ],
)
async def test_a_script_that_fails_is_told_with_its_last_lines(
    world: World, wish: str, expected: str, kind: type[VisemeError]
) -> None:
    world.wish(train_face=wish)
    with pytest.raises(kind, match=expected):
        await world.train()
    assert not (world.directory / "bundle").exists()


@pytest.mark.parametrize("wish", ["die", "torn"])
async def test_goes_on_from_the_originals_own_checkpoints(world: World, wish: str) -> None:
    world.wish(train_face=wish)
    with pytest.raises(UpstreamFailed):
        await world.train()
    world.wish()
    told = await world.train()
    assert world.scripts() == ["train_mouth", "train_face", "train_face", "train_fuse"]
    argv = world.calls()[2]["argv"]
    start = argv[argv.index("--start_checkpoint") + 1]
    assert Path(start).name == "chkpnt_face_10000.pth"
    face = [one.progress.step for one in told if one.progress.stage == "face" and one.progress.loss]
    assert min(face) > 10000
    assert max(face) == STEPS
    notes = [one.note.text for one in told]
    assert "The training goes on from what the original had saved." in notes
    damaged = "chkpnt_face_20000.pth is damaged; the stage goes on from an older state."
    assert (damaged in notes) == (wish == "torn")


async def test_without_the_servers_checkpoint_it_begins_anew(world: World) -> None:
    world.wish(train_fuse="fail")
    with pytest.raises(UpstreamFailed):
        await world.train()
    world.wish()
    # As the server does when a training is finished.
    (world.directory / "checkpoint").unlink()
    await world.train()
    assert world.scripts() == ["train_mouth", "train_face", "train_fuse"] * 2


async def _hanging(world: World, **values: str) -> tuple[Any, list[psutil.Process]]:
    world.wish(train_mouth="hang")
    call = trainer(await world.pool.channel(NAME)).Train(world.request(**values))

    async def listen() -> None:
        async for _ in call:
            pass

    listening = asyncio.create_task(listen())
    pids = world.repository / "pids.txt"
    async with asyncio.timeout(60):
        # Written by a process that nobody here knows.
        while not pids.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    processes = [psutil.Process(int(pid)) for pid in pids.read_text(encoding="ascii").split()]
    assert len(processes) == 2
    call.listening = listening  # type: ignore[attr-defined]
    return call, processes


async def test_cancelling_ends_all_that_the_script_started(world: World) -> None:
    call, processes = await _hanging(world)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.listening
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, 15)
    assert not alive, "the script ignored SIGTERM, and had a child"
    world.wish()
    assert (await world.train())[-1].HasField("result"), "the next one has its turn"


async def test_a_host_that_is_killed_leaves_no_script_behind(world: World) -> None:
    call, processes = await _hanging(world)
    (status,) = world.pool.snapshot()
    assert status.pid is not None
    psutil.Process(status.pid).kill()
    with pytest.raises(Exception, match=r"Socket closed|UNAVAILABLE|reset"):
        await call.listening
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, 15)
    assert not alive


@pytest.mark.slow
async def test_runs_on_the_originals_own_python(world: World) -> None:
    python = find_interpreter(PythonRange.parse("==3.7"))
    if python is None:
        pytest.skip("no Python 3.7 that runs, neither on PATH nor in $PYENV_ROOT/versions nor among uv's")
    choice = EnvironmentChoice(python=python.executable)
    pool = world.pool_with(None, {NAME: choice}, python=str(python.executable))
    await world.pool.close()
    world.pool = pool
    world.wish(train_face="die")
    with pytest.raises(UpstreamFailed):
        await world.train()
    world.wish()
    assert (await world.train())[-1].HasField("result")
    (status,) = pool.snapshot()
    assert status.python_version.startswith("3.7.")


async def test_runs_in_a_conda_environment(world: World) -> None:
    conda = install_conda(world.directory / "bin" / "conda")
    named = {"python": "", "conda": str(conda), "conda_environment": "talking_gaussian"}
    await world.pool.close()
    world.pool = world.pool_with(**named)
    assert (await world.train())[-1].HasField("result")
    assert world.calls()[0]["argv"][0] == "train_mouth.py"
    call, processes = await _hanging(world, name="other")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.listening
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, 15)
    assert not alive, "conda stands between"
    await world.pool.close()
    world.pool = world.pool_with(**{**named, "conda_environment": "absent"})
    with pytest.raises(UpstreamFailed, match="Not a conda environment: /opt/conda/envs/absent"):
        await world.train(name="third")


async def test_odd_output_and_lingering_children_do_no_harm(world: World) -> None:
    world.wish(train_mouth="odd", train_face="linger")
    assert (await asyncio.wait_for(world.train(), 60))[-1].HasField("result")


async def test_draws_with_the_originals_script(world: World) -> None:
    with pytest.raises(AvatarNotReady, match="was not trained with the original"):
        await world.render(1.0)
    await world.train()
    told = await world.render(1.3)
    argv = world.calls()[-1]["argv"]
    assert argv[0] == "synthesize_fuse.py"
    assert {"--use_train", "--fast", "--audio"} < set(argv)
    summary = told[-1].summary
    assert (summary.frame_count, summary.sample_count) == (33, 2 * round(0.65 * 24000))
    fragments = [response.fragment for response in told[:-1]]
    assert fragments[0].frame_count == 0
    assert sum(fragment.frame_count for fragment in fragments) == 33
    with av.open(io.BytesIO(b"".join(fragment.data for fragment in fragments))) as film:
        video, audio = film.streams.video[0], film.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert sum(1 for _ in film.decode(video)) == 33
    with pytest.raises(AudioTooLong, match=r"at most as much as it was trained on, 2\.0 s"):
        await world.render(2.5)
    world.wish(synthesize_fuse="idle")
    with pytest.raises(UpstreamFailed, match="ended without writing"):
        await world.render(1.0)
    assert not list((world.directory / "home" / "upstream" / "ada" / "trained").glob("speech-*"))


async def test_what_is_wrong_is_said_in_plain_words(world: World) -> None:
    (world.directory / "really" / "broken").touch()
    with pytest.raises(
        UpstreamFailed, match=r"The export of the recording ended with status 1:\nerror: labels\.npz"
    ):
        await world.train()
    with pytest.raises(DeviceUnsuitable, match="not on 'cpu'"):
        await world.train(device="cpu")
    async with calling(NAME):
        with pytest.raises(ConfigInvalid, match="prepares none"):
            async with calling(NAME):
                call = trainer(await world.pool.channel(NAME)).Prepare(host_pb2.PrepareRequest(size=512))
                async for _ in call:
                    pass


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"repository": ""}, "The setting repository is missing."),
        ({"repository": "/usr"}, "/usr is not the original's repository: it lacks train_mouth.py"),
        ({"python": ""}, "Say either which Python has the original's packages"),
        ({"conda_environment": "talking_gaussian"}, "Say either which Python"),
        ({"viseme_python": "/nowhere/python"}, "/nowhere/python is not a Python that can be run."),
        ({"iterations": "9"}, "iterations is '9', and the original needs more than 10000."),
        ({"mounts": "here=/there"}, "mounts cannot be used: 'here=/there' is not two absolute paths"),
        ({"speed": "high"}, "There is no setting 'speed'."),
    ],
)
async def test_wrong_settings_are_described(world: World, changes: dict[str, str], problem: str) -> None:
    pool = world.pool_with(**changes)
    try:
        description = await pool.describe(NAME)
        assert not description.ready
        assert description.problem.startswith(problem)
        assert description.fix
        with pytest.raises((ConfigInvalid, AssetMissing)):
            async with calling(NAME):
                async for _ in trainer(await pool.channel(NAME)).Train(world.request()):
                    pass
    finally:
        await pool.close()
