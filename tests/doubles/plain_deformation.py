"""docs/bundle.md, "How a frame is drawn", steps 1 to 6, in plain float64 for one Gaussian at a time.

Shares no code with the deformation it is the yardstick of.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.bundle import Bundle

Doubles = npt.NDArray[np.float64]


def _feature(bundle: Bundle, branch: str, point: Doubles) -> Doubles:
    info = bundle.info.branches[branch]
    unit = (point - np.array(info.centre)) / info.bound
    values = []
    for level in range(len(info.levels)):
        grid = bundle.tensor(f"{branch}.grid.{level}").astype(np.float64)
        side = grid.shape[-1]
        for plane, (across, down) in enumerate(((0, 1), (1, 2), (0, 2))):
            column = min(max((unit[across] + 1) / 2 * (side - 1), 0), side - 1)
            row = min(max((unit[down] + 1) / 2 * (side - 1), 0), side - 1)
            c, r = min(int(column), side - 2), min(int(row), side - 2)
            u, v = column - c, row - r
            cell = grid[plane, :, r : r + 2, c : c + 2]
            values.append(
                cell[:, 0, 0] * (1 - u) * (1 - v)
                + cell[:, 0, 1] * u * (1 - v)
                + cell[:, 1, 0] * (1 - u) * v
                + cell[:, 1, 1] * u * v
            )
    return np.concatenate(values)


def outputs(bundle: Bundle, branch: str, index: int, code: Doubles, expression: Doubles) -> Doubles:
    """Scaled outputs [14] of the network for one Gaussian."""

    def tensor(name: str) -> Doubles:
        return bundle.tensor(f"{branch}.net.{name}").astype(np.float64)

    def attention(name: str, e: Doubles) -> Doubles:
        inner = np.maximum(tensor(f"{name}.0.weight") @ e + tensor(f"{name}.0.bias"), 0)
        return 1 + tensor(f"{name}.1.weight") @ inner + tensor(f"{name}.1.bias")

    info = bundle.info.branches[branch]
    e = _feature(bundle, branch, bundle.tensor(f"{branch}.xyz")[index].astype(np.float64))
    hidden = tensor("encode.weight") @ e + tensor("encode.bias")
    if info.code:
        hidden = hidden + tensor("code.weight") @ (code * attention("code_attention", e))
    if info.expression:
        hidden = hidden + tensor("expr.weight") @ (expression * attention("expr_attention", e))
    hidden = np.maximum(hidden, 0)
    hidden = np.maximum(tensor("hidden.weight") @ hidden + tensor("hidden.bias"), 0)
    raw = tensor("out.weight") @ hidden + tensor("out.bias")
    return raw * np.repeat([0.01, 0.1, 0.1, 1.0, 0.1], [3, 4, 3, 1, 3])


def rotation(vector: Doubles) -> Doubles:
    """Rotation matrix of a rotation vector, by the power series of the exponential."""
    x, y, z = vector
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    total, term = np.eye(3), np.eye(3)
    for k in range(1, 30):
        term = term @ skew / k
        total = total + term
    return total


def gaussian(
    bundle: Bundle, branch: str, index: int, lip: Doubles, expression: Doubles, pose: Doubles, track: Doubles
) -> Doubles:
    """One column [14] of the splat planes: head branches in the head frame, the torso in the camera frame."""

    def own(name: str) -> Doubles:
        return bundle.tensor(f"{branch}.{name}")[index].astype(np.float64)

    code = bundle.tensor("lip.embed.weight").astype(np.float64) @ lip + bundle.tensor("lip.embed.bias")
    if branch == "torso":
        condition = np.concatenate([pose / bundle.tensor("pose.std"), track / bundle.tensor("track.std")])
        change = outputs(bundle, branch, index, code, condition)
    else:
        change = outputs(bundle, branch, index, code, expression)
    xyz = own("xyz") + change[0:3]
    quat = own("quat") / np.linalg.norm(own("quat")) + change[3:7]
    scale = np.minimum(np.exp(own("log_scale") + change[7:10]), 0.03)
    log_opacity = -math.log(1 + math.exp(-(float(own("opacity_logit")) + change[10])))
    rgb = own("rgb") + change[11:14]
    if branch == "torso":
        camera, pivot = bundle.info.camera, bundle.info.torso_pivot
        v = (np.array(pivot) - (camera.cx, camera.cy)) / camera.focal * xyz[2]
        turn = np.array([[math.cos(track[3]), -math.sin(track[3])], [math.sin(track[3]), math.cos(track[3])]])
        xy = math.exp(track[2]) * turn @ (xyz[:2] - v) + v + track[:2] / camera.focal * xyz[2]
        xyz = np.array([*xy, xyz[2]])
    else:
        mean = bundle.tensor("pose.mean").astype(np.float64)
        r, t = rotation(pose[:3]) @ mean[:3, :3], mean[:3, 3] + pose[3:]
        d = own("xyz") + r.T @ t
        d /= np.linalg.norm(d)
        c = own("sh")
        rgb = rgb + 0.4886025 * (-d[1] * c[0] + d[2] * c[1] - d[0] * c[2])
    return np.concatenate([xyz, scale, quat, [log_opacity], np.maximum(rgb, 0)])
