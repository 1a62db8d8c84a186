"""From a frame's audio codes, action units and pose to the Gaussians that our rasterisers draw."""

from __future__ import annotations

import numpy as np

from model_hosts.talking_gaussian.bundle import FloatArray
from model_hosts.talking_gaussian.model.deformation import PLANES, FrameInput, Segment, Splats
from model_hosts.talking_gaussian.model.network import BranchNetwork, Scratch, Weights
from model_hosts.talking_gaussian.model.pose import view_of_pose
from model_hosts.talking_gaussian.upstream.bundle import UpstreamBundle
from model_hosts.talking_gaussian.upstream.features import perceptron, static_inputs
from model_hosts.talking_gaussian.upstream.model import ACTION_UNITS, BRANCHES, CODE
from model_hosts.talking_gaussian.upstream.shading import shade

BEHIND = np.float32(2)
"""The mouth is drawn this many times larger and farther than it is. From the camera that looks the same, but
the whole mouth then lies behind the whole face: the face covers it as the original's two layers do, in one
pass."""
_STRONGEST_BLINK = 2.0
_XYZ, _SIZE, _QUAT, _OPACITY = slice(0, 3), slice(3, 6), slice(6, 10), 10


class _Branch:
    """Face or mouth; `rest` holds the planes without motion: xyz, raw sizes, raw quaternions, log opacity."""

    def __init__(self, bundle: UpstreamBundle, name: str, start: int) -> None:
        own = {key: np.asarray(value, np.float32) for key, value in bundle.group(f"{name}.").items()}
        network = {key.removeprefix("net."): value for key, value in own.items() if key.startswith("net.")}
        static = static_inputs(name, network, own["xyz"])
        layers = [network[f"sigma_net.net.{layer}.weight"] for layer in (1, 2)]
        out = np.zeros((PLANES, layers[1].shape[1]), np.float32)
        if name == "face":
            # Outputs: shift in centimetres, quaternion, opacity (which the original never applies), raw size.
            out[_XYZ], out[_QUAT], out[_SIZE] = layers[1][0:3] * 0.01, layers[1][3:7], layers[1][8:11]
        else:
            out[_XYZ] = layers[1] * np.array([[0.002], [0.01], [0.002]])
        bias = np.zeros(len(layers[0]), np.float32)
        weights = Weights(static.weights, np.ascontiguousarray(layers[0]), bias, out)
        self.network = BranchNetwork(weights, static.encoded, static.gates)
        self.start, self.stop = start, start + len(own["xyz"])
        self.rest = np.zeros((PLANES, len(own["xyz"])), np.float32)
        self.rest[_XYZ], self.rest[_SIZE], self.rest[_QUAT] = own["xyz"].T, own["size"].T, own["quat"].T
        self.rest[_OPACITY] = -np.logaddexp(0, -own["opacity"])
        self.sh = np.ascontiguousarray(own["sh"].reshape(len(own["xyz"]), -1).T)


class UpstreamWorkspace:
    """What one thread needs to deform frames; its planes are overwritten by every frame."""

    def __init__(self, count: int, widths: list[int]) -> None:
        self.planes = np.empty((PLANES, count), np.float32)
        self.scratch = [Scratch(width) for width in widths]


class UpstreamDeformer:
    """A model of the original ready to be posed. Immutable: threads share it, each with its own workspace.

    Args:
        bundle: The avatar.
    """

    def __init__(self, bundle: UpstreamBundle) -> None:
        self._branches: list[_Branch] = []
        start = 0
        for name in BRANCHES:
            self._branches.append(_Branch(bundle, name, start))
            start = self._branches[-1].stop
        self.count = start
        self._pose_mean = bundle.tensor("pose.mean")
        self._lip_mean, self._expression_mean = bundle.tensor("lip.mean"), bundle.tensor("expression.mean")
        self._expression = {
            name: bundle.tensor(f"face.net.{name}")
            for name in ("exp_encode_net.net.0.weight", "exp_encode_net.net.1.weight")
        }

    def workspace(self) -> UpstreamWorkspace:
        """A workspace for one more thread."""
        return UpstreamWorkspace(self.count, [branch.network.hidden for branch in self._branches])

    def pose(self, frame: FrameInput, workspace: UpstreamWorkspace) -> Splats:
        """Deforms and poses the avatar; the planes belong to the workspace until its next frame.

        Args:
            frame: Lip code: what the frame adds to the mean codes of face and mouth, [64]; expression: what
                it adds to the mean action units, [6]; the torso track is not used.
            workspace: Of the calling thread.
        """
        codes = self._lip_mean + frame.lip
        return self.splats(
            codes,
            self._expression_mean + frame.expression,
            view_of_pose(self._pose_mean, frame.pose),
            workspace,
        )

    def splats(
        self, codes: FloatArray, action_units: FloatArray, view: FloatArray, workspace: UpstreamWorkspace
    ) -> Splats:
        """Like `pose`, from what the original was trained on.

        Args:
            codes: [64] audio codes of face and mouth.
            action_units: [6] intensities in the order of `ACTION_UNITS`.
            view: [3, 4] or [4, 4] head pose, x_camera = R x + t.
            workspace: Of the calling thread.
        """
        units = np.maximum(action_units, 0).astype(np.float32)
        blink = np.minimum(units[5:], _STRONGEST_BLINK)
        expression = np.append(perceptron(self._expression, "exp_encode_net", units[None, :5])[0], blink)
        assert len(expression) == len(ACTION_UNITS)  # noqa: S101 - shapes are checked when a bundle is read
        face, mouth = self._branches
        view = np.ascontiguousarray(view[:3], np.float32)
        eye = -view[:, :3].T @ view[:, 3]
        inputs = np.concatenate([codes[:CODE], expression]), codes[CODE:]
        for number, (branch, condition) in enumerate(zip(self._branches, inputs, strict=True)):
            columns = workspace.planes[:, branch.start : branch.stop]
            branch.network.evaluate(
                condition.astype(np.float32), branch.rest, columns, workspace.scratch[number]
            )
            # Soft-plus. What would be a metre wide is a damaged file's, and must not overflow.
            size = columns[_SIZE]
            np.minimum(size, 1, out=size)
            np.exp(size, out=size)
            np.log1p(size, out=size)
            shade(workspace.planes, branch.start, branch.sh, eye)
        workspace.planes[:6, mouth.start : mouth.stop] *= BEHIND
        far = view * np.array([1, 1, 1, BEHIND], np.float32)
        return Splats(workspace.planes, (Segment(0, face.stop, view), Segment(mouth.start, mouth.stop, far)))
