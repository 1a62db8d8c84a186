"""The lips with the real models: speech of voices never trained on, made and heard by the embedded hosts."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from server.assets.installer import AssetInstaller
from server.hosts.environments import EnvironmentBuilder
from server.hosts.manifest import load_manifests

ROOT = Path(__file__).parents[2]
HOME = Path(os.environ.get("VISEME_HOME", Path.home() / ".local" / "share" / "viseme"))

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600)]


async def test_the_lips_follow_unknown_voices(tmp_path: Path) -> None:
    installer = AssetInstaller(HOME)
    whisper = installer.ensure("whisper-base")
    for name in ("kokoro-82m-int8", "kokoro-voices"):
        installer.ensure(name)
    manifests = load_manifests(ROOT / "model_hosts")
    environments = EnvironmentBuilder(HOME)
    speaking = await environments.ensure(manifests["kokoro"])
    hearing = await environments.ensure(manifests["talking_gaussian"])

    def run(*command: str | Path, expected: tuple[int, ...] = (0,)) -> str:
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"}
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode in expected, done.stdout + done.stderr
        return done.stdout

    speech = tmp_path / "speech"
    corpus = ("-m", "tools.lips.corpus", speech, "--held-out", "--seed", "5", "--minutes", "0.5")
    run(speaking.python, *corpus, "--assets", whisper.parent)
    measure = ("-m", "benchmarks.lips", speech, "--encoder", whisper, "--json")
    # 1 means that a bound of the benchmark is missed: so few sentences may.
    found = json.loads(run(hearing.python, *measure, expected=(0, 1)))
    figures = {name: figure["value"] for name, figure in found["figures"].items()}
    assert figures["p, b, m that close, with phonemes"] == 1.0
    assert figures["opening"] > 0.85
    assert figures["p, b, m that close"] > 0.85
    assert figures["lag"] <= 1
