"""The avatar while it is trained: three branches of Gaussians with their networks, posed for B frames.

`model.deformation` does the same in numpy for one frame; the two must stay equal (see the parity test).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_hosts.talking_gaussian.rendering.quaternions import multiply
from model_hosts.talking_gaussian.training.initialise import Start
from model_hosts.talking_gaussian.training.networks import POSITION_STEP, SMALL_STEP, Deformation
from model_hosts.talking_gaussian.training.rasterise import Splats
from model_hosts.talking_gaussian.training.settings import BranchSize, Settings

MOST_SCALE = 0.03
_SH1 = 0.4886025
_FIRST_OPACITY = 1.4
CONDITION = 10
PARTS = ("xyz", "rgb", "sh", "log_scale", "quat", "opacity_logit")
"""What a Gaussian is made of, one row of each parameter; a torso has no sh."""
MAPS = 2
"""Channels drawn beside the colour: head (face and mouth), inside of the mouth."""


class Drive(NamedTuple):
    """What drives B frames.

    Lip code [B, L], expression [B, E], pose matrices [B, 4, 4], torso condition [B, 10], torso track [B, 4].
    """

    lip: Tensor
    expression: Tensor
    pose: Tensor
    condition: Tensor
    track: Tensor


class Delta(NamedTuple):
    """What a network changes: positions [B, N, 3], log scales [B, N, 3], colours [B, N, 3]."""

    position: Tensor
    log_scale: Tensor
    colour: Tensor


@dataclass(frozen=True)
class Shape:
    """What the networks of an avatar are sized by."""

    lip: int
    expression: int
    focal: float
    centre: tuple[float, float]
    pivot: tuple[float, float]


class Branch(nn.Module):
    """Gaussians at rest and the network that moves them."""

    centre: Tensor
    first_rgb: Tensor

    def __init__(
        self,
        start: Start,
        size: BranchSize,
        code: int,
        expression: int,
        harmonics: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        count = len(start.xyz)
        low, high = start.xyz.min(0), start.xyz.max(0)
        self.size = size
        self.register_buffer("centre", torch.as_tensor((low + high) / 2))
        bound = float((high - low).max()) / 2 * 1.1 + 1e-6
        self.xyz = nn.Parameter(torch.as_tensor(start.xyz))
        self.rgb = nn.Parameter(torch.as_tensor(start.rgb))
        self.register_buffer("first_rgb", torch.as_tensor(start.rgb).clone())
        self.sh = nn.Parameter(torch.zeros(count, 3, 3)) if harmonics else None
        self.log_scale = nn.Parameter(torch.as_tensor(start.size).log()[:, None].repeat(1, 3))
        self.quat = nn.Parameter(torch.tensor([1.0, 0, 0, 0]).repeat(count, 1))
        self.opacity_logit = nn.Parameter(torch.full((count,), _FIRST_OPACITY))
        self.net = Deformation(size.levels, size.channels, bound, size.hidden, code, expression, generator)

    @property
    def count(self) -> int:
        """Number of Gaussians."""
        return len(self.xyz)

    @property
    def rows(self) -> dict[str, nn.Parameter]:
        """The parameters that have a row for each Gaussian."""
        return {part: getattr(self, part) for part in PARTS if getattr(self, part) is not None}

    def take(self, source: Tensor) -> None:
        """Makes the branch the rows `source` (int64 [N]) of what it was: some left out, some repeated."""
        self.put({part: value.detach()[source] for part, value in self.rows.items()}, self.first_rgb[source])

    def put(self, rows: dict[str, Tensor], first_rgb: Tensor) -> None:
        """Makes the branch these Gaussians, however many there are."""
        for part in self.rows:
            setattr(self, part, nn.Parameter(rows[part].clone()))
        self.first_rgb = first_rgb.clone()

    def deform(self, code: Tensor | None, expression: Tensor | None) -> tuple[Splats, Delta]:
        """The branch deformed for B frames, not yet posed, and the changes themselves."""
        raw = self.net(self.xyz.detach() - self.centre, code, expression)
        position, turn, log_scale, opacity, colour = raw.split([3, 4, 3, 1, 3], -1)
        delta = Delta(position * POSITION_STEP, log_scale * SMALL_STEP, colour * SMALL_STEP)
        splats = Splats(
            self.xyz + delta.position,
            functional.normalize(functional.normalize(self.quat, dim=-1) + turn * SMALL_STEP, dim=-1),
            (self.log_scale + delta.log_scale).exp().clamp(max=MOST_SCALE),
            torch.sigmoid(self.opacity_logit + opacity[..., 0]),
            self.rgb + delta.colour,
        )
        return splats, delta


class Scene(nn.Module):
    """Face, mouth and torso with one embedding of the lip code.

    Args:
        starts: Initial Gaussians of the branches.
        shape: Of the avatar.
        settings: The recipe.
        plate: The picture behind the person [1, 3, H, W], if it is to be learnt too.
    """

    _pivot: Tensor
    _centre: Tensor

    def __init__(
        self, starts: dict[str, Start], shape: Shape, settings: Settings, plate: Tensor | None = None
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(settings.seed)
        self.shape = shape
        code = settings.code
        self.embed = nn.Linear(shape.lip, code)
        nn.init.normal_(self.embed.weight, std=shape.lip**-0.5, generator=generator)
        nn.init.zeros_(self.embed.bias)
        self.face = Branch(starts["face"], settings.face, code, shape.expression, True, generator)
        self.mouth = Branch(starts["mouth"], settings.mouth, code, 0, True, generator)
        self.torso = Branch(starts["torso"], settings.torso, 0, CONDITION, False, generator)
        self.plate = None if plate is None else nn.Parameter(plate.contiguous().clone())
        # Buffers: a constant made in a step would be copied to a GPU each time. They are not saved.
        self.register_buffer("_pivot", torch.tensor(shape.pivot), persistent=False)
        self.register_buffer("_centre", torch.tensor(shape.centre), persistent=False)
        for name in self.branches:
            maps = torch.tensor([float(name != "torso"), float(name == "mouth")])
            self.register_buffer(f"_{name}_maps", maps, persistent=False)

    @property
    def branches(self) -> dict[str, Branch]:
        """The branches by name."""
        return {"face": self.face, "mouth": self.mouth, "torso": self.torso}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state_dict` gave, with as many Gaussians as there were then."""
        for name, branch in self.branches.items():
            device = branch.xyz.device
            rows = {part: state[f"{name}.{part}"].to(device) for part in branch.rows}
            branch.put(rows, state[f"{name}.first_rgb"].to(device))
        self.load_state_dict(state)

    def forward(self, drive: Drive, branches: tuple[str, ...]) -> tuple[Splats, list[Delta]]:
        """Gaussians in camera space of the named branches, with colours rgb + maps, and what moved them."""
        code = self.embed(drive.lip)
        parts, deltas = [], []
        for name in branches:
            branch = self.branches[name]
            if name == "torso":
                splats, delta = branch.deform(None, drive.condition)
                posed = self._follow(splats, drive.track)
            else:
                splats, delta = branch.deform(code, drive.expression if name == "face" else None)
                posed = _pose(splats, branch, drive.pose)
            maps = self.get_buffer(f"_{name}_maps")
            colours = torch.cat([posed.colours.clamp_min(0), maps.expand(*posed.means.shape[:2], MAPS)], -1)
            parts.append(posed._replace(colours=colours))
            deltas.append(delta)
        return Splats(*(torch.cat(values, 1) for values in zip(*parts, strict=True))), deltas

    def _follow(self, splats: Splats, track: Tensor) -> Splats:
        """Moves the torso by a 2-D similarity of the picture at constant depth."""
        depth = splats.means[..., 2:]
        anchor = (self._pivot - self._centre) / self.shape.focal * depth
        offset = splats.means[..., :2] - anchor
        cosine, sine = track[:, 3].cos()[:, None], track[:, 3].sin()[:, None]
        turned = torch.stack(
            [
                cosine * offset[..., 0] - sine * offset[..., 1],
                sine * offset[..., 0] + cosine * offset[..., 1],
            ],
            -1,
        )
        shift = track[:, None, :2] / self.shape.focal * depth
        moved = track[:, 2].exp()[:, None, None] * turned + anchor + shift
        return splats._replace(means=torch.cat([moved, depth], -1))


def _pose(splats: Splats, branch: Branch, pose: Tensor) -> Splats:
    """Into the camera frame, with first-degree harmonics added to the colours."""
    rotation, shift = pose[:, :3, :3], pose[:, :3, 3]
    turn = quaternions(rotation)[:, None].expand_as(splats.quats)
    eye = -(rotation.transpose(1, 2) @ shift[:, :, None])[:, :, 0]
    x, y, z = functional.normalize(branch.xyz.detach() - eye[:, None], dim=-1).unbind(-1)
    assert branch.sh is not None  # noqa: S101 - face and mouth always have them
    shade = _SH1 * (
        -y[..., None] * branch.sh[:, 0] + z[..., None] * branch.sh[:, 1] - x[..., None] * branch.sh[:, 2]
    )
    return splats._replace(
        means=splats.means @ rotation.transpose(1, 2) + shift[:, None],
        quats=multiply(turn, splats.quats),
        colours=splats.colours + shade,
    )


def quaternions(rotation: Tensor) -> Tensor:
    """Quaternions [B, 4] wxyz of view rotations [B, 3, 3] of heads that face the camera.

    Such a rotation is near a half turn about x, where the trace formula is singular: the half turn is
    factored out.
    """
    # R = diag(1, -1, -1) S: rows 1 and 2 change their signs.
    x, y, z = rotation[:, 0], -rotation[:, 1], -rotation[:, 2]
    w = torch.sqrt((1 + x[:, 0] + y[:, 1] + z[:, 2]).clamp_min(1e-9)) / 2
    i, j, k = (
        difference / (4 * w) for difference in (z[:, 1] - y[:, 2], x[:, 2] - z[:, 0], y[:, 0] - x[:, 1])
    )
    # Times the half turn (0, 1, 0, 0) on the left.
    return torch.stack([-i, w, -k, j], -1)
