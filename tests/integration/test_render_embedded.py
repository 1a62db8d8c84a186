"""The render host in its own locked environment, with Whisper's encoder: lips that follow audio alone."""

from __future__ import annotations

import io
import os
from pathlib import Path

import av
import numpy as np
import pytest
from viseme.host.v1 import host_pb2, host_pb2_grpc

from server.assets.installer import AssetInstaller
from server.hosts.environments import EnvironmentBuilder
from server.hosts.manifest import load_manifest
from tests.doubles.avatar import make_avatar
from tests.render_process import RATE, ROOT, config, render, render_process, speech

HOME = Path(os.environ.get("VISEME_HOME", Path.home() / ".local" / "share" / "viseme"))

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600)]


async def test_speech_without_phonemes_is_drawn(tmp_path: Path) -> None:
    encoder = AssetInstaller(HOME).ensure("whisper-base")
    manifest = load_manifest(ROOT / "model_hosts" / "talking_gaussian")
    environment = await EnvironmentBuilder(HOME).ensure(manifest)
    make_avatar(600, size=128).write(tmp_path / "ada")
    with render_process(
        tmp_path / "host", HOME, python=environment.python, assets={"whisper-base": encoder}
    ) as host:
        description = host_pb2_grpc.HostServiceStub(host.channel).Describe(host_pb2.DescribeRequest())
        assert [(model.name, model.installed) for model in description.models] == [("whisper-base", True)]
        pieces = [speech(0.7, k, end=k == 3, phonemes=False) for k in range(4)]
        rendered = render(host, config(tmp_path / "ada"), *pieces)
        mixed = render(host, config(tmp_path / "ada"), speech(0.5, phonemes=False), speech(0.5))
    assert rendered.summary.sample_count == round(2.8 * RATE)
    assert rendered.summary.frame_count == 70
    assert mixed.summary.frame_count == 25
    with av.open(io.BytesIO(rendered.data)) as container:
        frames = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])
    assert (np.abs(np.diff(frames.astype(int), axis=0)).mean((1, 2)) > 0.05).mean() > 0.5
