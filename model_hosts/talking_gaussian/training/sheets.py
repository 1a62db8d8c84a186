"""Contact sheets: pictures to look at, because figures do not see a wrong smile."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from model_hosts.talking_gaussian.preprocess.dataset import TrainingSet
from model_hosts.talking_gaussian.training.losses import crop
from model_hosts.talking_gaussian.training.portrait import Portrait

_COLUMNS = 6
_MAGNIFIED = 3
_GAIN = 4.0

ByteArray = npt.NDArray[np.uint8]


def telling_frames(data: TrainingSet) -> npt.NDArray[np.int64]:
    """Frames worth a look: closed, widest and held-out mouths, a blink, the head turned each way."""
    turn = data.pose_statistics.vectors(data.poses)[:, 1]
    held = data.held_out[np.argsort(-data.opening[data.held_out])]
    quiet = np.abs(data.lip - data.closed).sum(1)
    blink = data.expression[:, 0]
    picks = [
        np.argmin(quiet),
        np.argmax(data.opening),
        held[0],
        np.argmax(blink),
        turn.argmin(),
        turn.argmax(),
    ]
    return np.array([int(pick) for pick in picks])


def preview_frame(data: TrainingSet) -> int:
    """The frame to watch while training: of those held out the one whose mouth is widest."""
    if not len(data.held_out):
        return data.key
    return int(data.held_out[np.argmax(data.opening[data.held_out])])


def beside_truth(portrait: Portrait, frame: int) -> ByteArray:
    """A frame of the clip and beside it the same frame drawn, uint8 [H, 2 W, 3]."""
    drawn = portrait.picture(portrait.frames.drive(torch.tensor([frame], device=portrait.device)))[0]
    picture: ByteArray = (drawn * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return np.concatenate([portrait.data.frames[frame], picture], 1)


def contact_sheet(portrait: Portrait, chosen: npt.NDArray[np.int64]) -> ByteArray:
    """Six frames: truth, drawn, four times their difference; below them lips and left eyes, magnified.

    Returns:
        uint8 [height, width, 3]; of lips and eyes the truth is above the drawn.
    """
    index = torch.as_tensor(chosen[:_COLUMNS], device=portrait.device)
    drawn, target = portrait.picture(portrait.frames.drive(index)), portrait.frames.target(index)
    difference = ((drawn - target.image).abs() * _GAIN).clamp(0, 1)
    width = drawn.shape[-1]
    rows = [target.image, drawn, difference]
    for corner, box in (
        (target.lip_corner, portrait.data.lip_box),
        (target.eye_corners[:, 0], portrait.data.eye_box),
    ):
        for picture in (target.image, drawn):
            large = functional.interpolate(
                crop(picture, corner, box), scale_factor=_MAGNIFIED, mode="nearest"
            )
            rows.append(
                functional.pad(large, (0, width - large.shape[-1])) if large.shape[-1] < width else large
            )
    sheet = torch.cat([torch.cat(list(row[..., :width]), -1) for row in rows], -2)
    return (sheet * 255).round().byte().permute(1, 2, 0).cpu().numpy()
