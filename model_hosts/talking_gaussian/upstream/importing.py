"""Makes a bundle of the original's checkpoints and the data directory they were trained on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.avatar_info import THUMBNAIL
from model_hosts.talking_gaussian.driving.units import UNIT_NAMES
from model_hosts.talking_gaussian.model.deformation import FrameInput
from model_hosts.talking_gaussian.preprocess.poses import pose_statistics
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser
from model_hosts.talking_gaussian.upstream.audio import recorded_codes
from model_hosts.talking_gaussian.upstream.bundle import UpstreamBundle, UpstreamInfo
from model_hosts.talking_gaussian.upstream.deformer import UpstreamDeformer
from model_hosts.talking_gaussian.upstream.driving import fit_driving
from model_hosts.talking_gaussian.upstream.layout import UpstreamData
from model_hosts.talking_gaussian.upstream.model import BRANCHES, UpstreamModel

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Card:
    """What a bundle says of itself."""

    name: str
    display_name: str
    description: str = ""
    synthetic: bool = False
    license: str = ""
    attribution: str = ""
    voice: str = "voices/af_heart"


def import_avatar(model: UpstreamModel, data: UpstreamData, units: FloatArray, card: Card) -> UpstreamBundle:
    """A bundle of the original's model.

    Args:
        model: Of its checkpoints; copied as it is.
        data: What the model was trained on.
        units: Face units of the recording's frames in our order, [T, 52].
        card: What the bundle says of itself.

    Raises:
        BundleInvalid: The result would be no valid bundle.
        DatasetInvalid: A picture of the recording is missing.
    """
    codes = recorded_codes(model.tensors, data.windows)
    training = data.training
    statistics = pose_statistics(data.views[training])
    height, width = data.plate.shape[:2]
    tensors = dict(model.tensors) | fit_driving(
        codes[training], data.action_units[training], data.opening[training], units[training]
    )
    tensors |= {
        "pose.mean": statistics.mean,
        "pose.std": statistics.std,
        "track.std": np.ones(4, np.float32),
    }
    info = UpstreamInfo(
        name=card.name,
        display_name=card.display_name,
        description=card.description,
        synthetic=card.synthetic,
        license=card.license,
        attribution=card.attribution,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        width=width,
        height=height,
        camera=data.camera,
        default_voice=card.voice,
        branches={name: {"count": model.count(name)} for name in BRANCHES},
        audio_features=model.audio_features,
        drivers={
            "units": {"names": list(UNIT_NAMES)},
            "pose_coupling": statistics.coupling.astype(float).tolist(),
        },
        training={"recipe": "TalkingGaussian", "frames": len(training)},
    )
    # The still behind the talking head: the torso as it was when the head was nearest to its mean pose.
    vectors = statistics.vectors(data.views[training]) / statistics.std
    still = int(training[np.argmin(np.square(vectors).sum(1))])
    bundle = UpstreamBundle(info, tensors, data.behind(still), np.zeros((THUMBNAIL, THUMBNAIL, 3), np.uint8))
    bundle = UpstreamBundle(info, tensors, bundle.background, _thumbnail(bundle))
    bundle.check()
    return bundle


def _thumbnail(bundle: UpstreamBundle) -> ByteArray:
    """The avatar at rest, the middle square of the picture."""
    deformer = UpstreamDeformer(bundle)
    rest = FrameInput(
        bundle.tensor("lip.closed"),
        np.zeros_like(bundle.tensor("expression.mean")),
        np.zeros(6, np.float32),
        np.zeros(4, np.float32),
    )
    splats = deformer.pose(rest, deformer.workspace())
    image = CpuRasteriser(bundle.info.camera, bundle.background).draw_rgb(splats)
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.clip(image[top : top + side, left : left + side], 0, 1).astype(np.float64)
    # Means of the pixels that each thumbnail pixel covers.
    edges = np.arange(THUMBNAIL) * side // THUMBNAIL
    for axis in (0, 1):
        sizes = np.maximum(np.diff([*edges, side]), 1)
        sums = np.add.reduceat(square, edges, axis)
        square = sums / sizes.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    return np.round(square * 255).astype(np.uint8)
