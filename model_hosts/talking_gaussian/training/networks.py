"""The deformation network of a branch, in torch; `model.deformation` is the same in numpy for inference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

OUTPUTS = 14
POSITION_STEP = 0.01
SMALL_STEP = 0.1
_CODE_ATTENTION = 32
_EXPRESSION_ATTENTION = 16


class TriPlanes(nn.Module):
    """Dense multi-level tri-planes xy, yz, xz; bilinear, corners aligned, clamped at the border."""

    def __init__(
        self, levels: Sequence[int], channels: int, bound: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.bound = bound
        self.levels = nn.ParameterList(
            [
                nn.Parameter(0.01 * torch.randn(3, channels, side, side, generator=generator))
                for side in levels
            ]
        )
        self.encoding = 3 * channels * len(levels)

    def forward(self, offset: Tensor) -> Tensor:
        """Features [N, encoding] of positions [N, 3] relative to the cube's centre."""
        unit = offset / self.bound
        # Slices: indices in a list would be copied to a GPU in each step, which no graph can hold.
        where = torch.stack([unit[:, 0:2], unit[:, 1:3], unit[:, 0::2]])[:, None]
        features = [
            functional.grid_sample(level, where, align_corners=True, padding_mode="border")[:, :, 0]
            for level in self.levels
        ]
        return torch.cat([level.permute(2, 0, 1).reshape(len(offset), -1) for level in features], 1)


class Deformation(nn.Module):
    """Moves a branch's Gaussians by lip code and expression (for the torso: its condition).

    Args:
        levels: Sides of the tri-planes.
        channels: Features of a cell.
        bound: Half the side of the cube of the tri-planes, metres.
        hidden: Width.
        code: Lip code inputs, 0 for none.
        expression: Expression inputs, 0 for none.
        generator: Source of the initial weights.
    """

    def __init__(
        self,
        levels: Sequence[int],
        channels: int,
        bound: float,
        hidden: int,
        code: int,
        expression: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.planes = TriPlanes(levels, channels, bound, generator)
        features = self.planes.encoding
        self.encode = nn.Linear(features, hidden)
        self.hidden = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, OUTPUTS)
        self.code = nn.Linear(code, hidden, bias=False) if code else None
        self.expr = nn.Linear(expression, hidden, bias=False) if expression else None
        self.code_attention = _attention(features, _CODE_ATTENTION, code) if code else None
        self.expr_attention = _attention(features, _EXPRESSION_ATTENTION, expression) if expression else None
        _initialise(self, generator)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, offset: Tensor, code: Tensor | None, expression: Tensor | None) -> Tensor:
        """Raw outputs [B, N, 14] for positions [N, 3], codes [B, A] and expressions [B, E]."""
        features = self.planes(offset)
        gates, weights = [], []
        for value, layer, attention in (
            (code, self.code, self.code_attention),
            (expression, self.expr, self.expr_attention),
        ):
            if value is not None and layer is not None and attention is not None:
                gates.append(1 + attention(features))
                weights.append(layer.weight * value[:, None])
        # W (v * gate) = (W * v) gate: weights for each frame cost less than inputs for each Gaussian of each.
        gate, weight = torch.cat(gates, 1), torch.cat(weights, 2)
        batch = len(weight)
        hidden = torch.baddbmm(
            self.encode(features).expand(batch, -1, -1), gate.expand(batch, -1, -1), weight.transpose(1, 2)
        )
        raw: Tensor = self.out(functional.relu(self.hidden(functional.relu(hidden))))
        return raw


def _attention(features: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, outputs))


def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Torch's own initial distribution of linear layers, drawn from `generator` so that a seed fixes it."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            limit = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -limit, limit, generator=generator)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -limit, limit, generator=generator)
