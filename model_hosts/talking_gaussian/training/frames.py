"""The training set on the training device: uploaded once, used by all stages."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_hosts.talking_gaussian.preprocess.dataset import BACKGROUND, HAIR, MOUTH, SKIN, TrainingSet
from model_hosts.talking_gaussian.training.initialise import hanging_row
from model_hosts.talking_gaussian.training.scene import Drive

_LEAST_TRACK = 0.5
_SHARED_BAND = 0.08


class Target(NamedTuple):
    """What B frames should look like.

    Attributes:
        image: [B, 3, H, W] in 0..1.
        head: 1 where face, hair or mouth is seen, [B, 1, H, W].
        mouth: 1 where the mouth's inside is seen.
        person: 1 where the person is.
        head_known: 0 where face and torso branch may share: hanging hair and a band above it.
        lip_corner: Upper left corners of the lip boxes, [B, 2].
        eye_corners: Of the eyes, [B, 2, 2].
    """

    image: Tensor
    head: Tensor
    mouth: Tensor
    person: Tensor
    head_known: Tensor
    lip_corner: Tensor
    eye_corners: Tensor


def track_spread(data: TrainingSet) -> npt.NDArray[np.float32]:
    """What the torso track is divided by before the torso network sees it, float32 [4]."""
    floor = np.array([_LEAST_TRACK, _LEAST_TRACK, 0.003, 0.003], np.float32)
    spread: npt.NDArray[np.float32] = np.maximum(data.track[data.training].std(0), floor)
    return spread


class Frames:
    """Frames, labels and driving values of a clip on a device."""

    def __init__(self, data: TrainingSet, device: torch.device) -> None:
        self.device = device
        self.size = data.size
        self.frames = torch.from_numpy(data.frames).to(device)
        self.labels = torch.from_numpy(data.labels).to(device)
        self.plate = (torch.from_numpy(data.plate).to(device).float() / 255).permute(2, 0, 1)[None]
        self.lip = torch.from_numpy(data.lip).to(device)
        self.expression = torch.from_numpy(data.expression).to(device)
        self.poses = torch.from_numpy(data.poses).to(device)
        statistics = data.pose_statistics
        condition = [statistics.vectors(data.poses) / statistics.std, data.track / track_spread(data)]
        self.condition = torch.from_numpy(np.concatenate(condition, 1)).to(device)
        self.track = torch.from_numpy(data.track).to(device)
        self.lip_corner = torch.from_numpy(data.lip_corner).to(device)
        self.eye_corners = torch.from_numpy(data.eye_corners).to(device)
        self._shared_hair = hanging_row(data) - round(_SHARED_BAND * data.size[1])

    def drive(self, index: Tensor) -> Drive:
        """Driving values of frames."""
        return Drive(
            self.lip[index],
            self.expression[index],
            self.poses[index],
            self.condition[index],
            self.track[index],
        )

    def target(self, index: Tensor) -> Target:
        """Pictures and masks of frames."""
        labels = self.labels[index][:, None]
        head = (labels >= SKIN) & (labels <= MOUTH)
        rows = torch.arange(self.size[0], device=self.device)[None, None, :, None]
        shared = (labels == HAIR) & (rows > self._shared_hair)
        return Target(
            image=self.frames[index].permute(0, 3, 1, 2).contiguous().float() / 255,
            head=head.float(),
            mouth=(labels == MOUTH).float(),
            person=(labels != BACKGROUND).float(),
            head_known=(~shared).float(),
            lip_corner=self.lip_corner[index],
            eye_corners=self.eye_corners[index],
        )
