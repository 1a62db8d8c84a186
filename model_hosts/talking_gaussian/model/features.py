"""What an avatar's networks compute from positions alone: computed once per avatar."""

from __future__ import annotations

import numpy as np

from model_hosts.talking_gaussian.bundle import BranchInfo, Bundle, FloatArray

_PLANES = ((0, 1), (1, 2), (0, 2))


def triplane_features(info: BranchInfo, grids: list[FloatArray], xyz: FloatArray) -> FloatArray:
    """Samples the tri-planes at points, as torch's grid_sample(align_corners=True, padding "border") does.

    Args:
        info: Sizes of the branch.
        grids: One [3, C, R, R] array for each level.
        xyz: [N, 3] points in metres.

    Returns:
        [N, 3 * C * levels], level by level, plane by plane, channel by channel.
    """
    centre = np.asarray(info.centre, np.float32)
    unit = (xyz - centre) / np.float32(info.bound)
    features = []
    for grid in grids:
        side = grid.shape[-1]
        cell = np.clip((unit + 1) * (0.5 * (side - 1)), 0, side - 1)
        low = np.minimum(cell.astype(np.int32), side - 2)
        fraction = (cell - low).astype(np.float32)
        for plane, (across, down) in zip(grid, _PLANES, strict=True):
            column, row = low[:, across], low[:, down]
            fx, fy = fraction[:, across], fraction[:, down]
            top = plane[:, row, column] * (1 - fx) + plane[:, row, column + 1] * fx
            bottom = plane[:, row + 1, column] * (1 - fx) + plane[:, row + 1, column + 1] * fx
            features.append(top * (1 - fy) + bottom * fy)
    return np.ascontiguousarray(np.concatenate(features).T, np.float32)


def static_inputs(bundle: Bundle, branch: str) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The position-dependent part of a branch's first layer.

    The layer is `encode(e) + W @ (condition * gate(e))` with the condition [lip code embedding, expression];
    only the condition changes from frame to frame.

    Returns:
        `encode(e)` as [H, N], `gate(e)` as [A + X, N], and W as [H, A + X]. Features come first and Gaussians
        last, so that every later step reads and writes contiguous planes.
    """
    info = bundle.info.branches[branch]
    own = bundle.group(f"{branch}.")
    grids = [own[f"grid.{level}"] for level in range(len(info.levels))]
    features = triplane_features(info, grids, own["xyz"]).T
    encoded = own["net.encode.weight"] @ features + own["net.encode.bias"][:, None]
    gates = [np.zeros((0, info.count), np.float32)]
    weights = [np.zeros((info.hidden, 0), np.float32)]
    for part, attention, inputs in (
        ("code", "code_attention", info.code),
        ("expr", "expr_attention", info.expression),
    ):
        if inputs:
            first, second = (
                (own[f"net.{attention}.{layer}.weight"], own[f"net.{attention}.{layer}.bias"][:, None])
                for layer in (0, 1)
            )
            inner = np.maximum(first[0] @ features + first[1], 0)
            gates.append(1 + second[0] @ inner + second[1])
            weights.append(own[f"net.{part}.weight"])
    return (
        np.ascontiguousarray(encoded, np.float32),
        np.ascontiguousarray(np.concatenate(gates), np.float32),
        np.ascontiguousarray(np.concatenate(weights, 1), np.float32),
    )
