"""Draws frames of an imported model from what it was trained on: audio windows, action units, poses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.rendering.avatar import MakeRasteriser
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser
from model_hosts.talking_gaussian.upstream.audio import recorded_codes
from model_hosts.talking_gaussian.upstream.bundle import UpstreamBundle
from model_hosts.talking_gaussian.upstream.deformer import UpstreamDeformer
from model_hosts.talking_gaussian.upstream.layout import UpstreamData

ByteArray = npt.NDArray[np.uint8]


def render_frames(
    bundle: UpstreamBundle,
    data: UpstreamData,
    frames: Sequence[int],
    paste_torso: bool = True,
    make_rasteriser: MakeRasteriser = CpuRasteriser,
) -> Iterator[ByteArray]:
    """Draws frames of a recording as the original does: face over mouth over what was recorded behind them.

    Args:
        bundle: The model.
        data: The recording that drives it.
        frames: Numbers of its frames.
        paste_torso: Draw over the recorded torso of each frame; else over the background of the bundle.
        make_rasteriser: What draws.

    Yields:
        uint8 [height, width, 3] RGB, values cut off as the original does when it stores them.

    Raises:
        DatasetInvalid: A torso picture is missing.
        ValueError: The audio features are not those the model was trained on.
    """
    codes = recorded_codes(bundle.tensors, data.windows)
    deformer = UpstreamDeformer(bundle)
    workspace = deformer.workspace()
    rasteriser = make_rasteriser(bundle.info.camera, bundle.background)
    for frame in frames:
        if paste_torso:
            rasteriser = make_rasteriser(bundle.info.camera, data.behind(frame))
        splats = deformer.splats(codes[frame], data.action_units[frame], data.views[frame], workspace)
        yield np.clip(rasteriser.draw_rgb(splats) * 255, 0, 255).astype(np.uint8)
