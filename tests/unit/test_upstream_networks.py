"""The original's networks, written once more in torch; its checkpoints as torch saves them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from model_hosts.talking_gaussian.upstream.audio import audio_codes  # noqa: E402
from model_hosts.talking_gaussian.upstream.bundle import UpstreamBundle  # noqa: E402
from model_hosts.talking_gaussian.upstream.checkpoint import CheckpointInvalid, read_checkpoint  # noqa: E402
from model_hosts.talking_gaussian.upstream.deformer import BEHIND, UpstreamDeformer  # noqa: E402
from model_hosts.talking_gaussian.upstream.features import triplane_features  # noqa: E402
from model_hosts.talking_gaussian.upstream.model import (  # noqa: E402
    UpstreamModel,
    level_sides,
    level_starts,
    read_model,
)
from tests.doubles import upstream  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def avatar() -> UpstreamBundle:
    return upstream.make_bundle(upstream.make_model(50, 20, seed=4))


def tensors(network: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in network.items()}


# The networks, written once more in torch.


def torch_codes(network: dict[str, Tensor], windows: Tensor) -> Tensor:
    codes = []
    for i in range(len(windows)):
        around = [
            windows[j] if 0 <= j < len(windows) else torch.zeros_like(windows[0]) for j in range(i - 4, i + 4)
        ]
        x = torch.stack(around).permute(0, 2, 1)
        for k in (0, 2, 4, 6):
            name = f"audio_net.encoder_conv.{k}"
            x = functional.leaky_relu(
                functional.conv1d(x, network[f"{name}.weight"], network[f"{name}.bias"], 2, 1), 0.02
            )
        x = x[:, :, 0]
        x = functional.linear(
            x, network["audio_net.encoder_fc1.0.weight"], network["audio_net.encoder_fc1.0.bias"]
        )
        x = functional.linear(
            functional.leaky_relu(x, 0.02),
            network["audio_net.encoder_fc1.2.weight"],
            network["audio_net.encoder_fc1.2.bias"],
        )
        y = x.T[None]
        for k in (0, 2, 4, 6, 8):
            name = f"audio_att_net.attentionConvNet.{k}"
            y = functional.leaky_relu(
                functional.conv1d(y, network[f"{name}.weight"], network[f"{name}.bias"], 1, 1), 0.02
            )
        scores = functional.linear(
            y.reshape(1, 8),
            network["audio_att_net.attentionNet.0.weight"],
            network["audio_att_net.attentionNet.0.bias"],
        )
        codes.append(torch.softmax(scores, 1)[0] @ x)
    return torch.stack(codes)


def torch_features(branch: str, network: dict[str, Tensor], xyz: Tensor) -> Tensor:
    """With grid_sample: node k of a level lies at u = (k - 0.5) / scale."""
    unit = (xyz.double() + 0.15) / 0.3
    out = []
    for plane, axes in (("xy", [0, 1]), ("yz", [1, 2]), ("xz", [0, 2])):
        for (scale, side), start in zip(level_sides(branch), level_starts(branch), strict=False):
            grid = network[f"encoder_{plane}.embeddings"][start : start + side * side].double()
            place = (unit[:, axes] * scale + 0.5) / (side - 1) * 2 - 1
            out.append(
                functional.grid_sample(
                    grid.reshape(1, 1, side, side), place[None, None], align_corners=True
                ).flatten()
            )
    return torch.stack(out, 1).float()


def perceptron(network: dict[str, Tensor], name: str, x: Tensor, layers: int = 2) -> Tensor:
    for k in range(layers):
        x = functional.linear(x, network[f"{name}.net.{k}.weight"])
        x = functional.relu(x) if k < layers - 1 else x
    return x


def test_audio_codes_are_those_of_torch(avatar: UpstreamBundle) -> None:
    windows = np.random.default_rng(1).normal(size=(12, 16, upstream.AUDIO_FEATURES)).astype(np.float32)
    for branch in ("face", "mouth"):
        expected = torch_codes(tensors(avatar.group(f"{branch}.net.")), torch.from_numpy(windows))
        found = audio_codes(avatar.group(f"{branch}.net."), windows)
        np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)


@pytest.mark.parametrize("branch", ["face", "mouth"])
def test_triplane_features_are_those_of_grid_sample(avatar: UpstreamBundle, branch: str) -> None:
    xyz = np.random.default_rng(2).uniform(-0.149, 0.149, (500, 3)).astype(np.float32)
    expected = torch_features(branch, tensors(avatar.group(f"{branch}.net.")), torch.from_numpy(xyz))
    found = triplane_features(branch, avatar.group(f"{branch}.net."), xyz)
    np.testing.assert_allclose(found, expected.numpy(), atol=6e-6)


def test_the_deformed_gaussians_are_those_of_torch(avatar: UpstreamBundle) -> None:
    rng = np.random.default_rng(3)
    codes = rng.normal(size=64).astype(np.float32)
    units = np.array([0.3, 1.2, 0.1, 0.0, 2.0, 2.6], np.float32)
    view = avatar.tensor("pose.mean")
    deformer = UpstreamDeformer(avatar)
    splats = deformer.splats(codes, units, view, deformer.workspace())
    stop = splats.segments[0].stop
    face = torch_face(avatar, torch.from_numpy(codes[:32]), torch.from_numpy(units), view)
    np.testing.assert_allclose(splats.planes[:, :stop], face.T.numpy(), atol=3e-5)
    mouth = torch_mouth(avatar, torch.from_numpy(codes[32:]), view)
    mouth[:, :6] *= float(BEHIND)
    np.testing.assert_allclose(splats.planes[:, stop:], mouth.T.numpy(), atol=3e-5)


def torch_face(avatar: UpstreamBundle, code: Tensor, units: Tensor, view: np.ndarray) -> Tensor:
    own, net = tensors(avatar.group("face.")), tensors(avatar.group("face.net."))
    e = torch_features("face", net, own["xyz"])
    audio = code * perceptron(net, "aud_ch_att_net", e)
    expression = torch.cat([perceptron(net, "exp_encode_net", units[:5]), units[5:].clamp(0, 2)])
    expression = expression * functional.relu(perceptron(net, "eye_att_net", e))
    out = perceptron(net, "sigma_net", torch.cat([e, audio, expression], 1), 3)
    xyz = own["xyz"] + out[:, :3] * 0.01
    return torch.cat(
        [
            xyz,
            functional.softplus(own["size"] + out[:, 8:11]),
            own["quat"] + out[:, 3:7],
            functional.logsigmoid(own["opacity"])[:, None],
            torch_colours(own["sh"], xyz, view),
        ],
        1,
    )


def torch_mouth(avatar: UpstreamBundle, code: Tensor, view: np.ndarray) -> Tensor:
    own, net = tensors(avatar.group("mouth.")), tensors(avatar.group("mouth.net."))
    e = torch_features("mouth", net, own["xyz"])
    out = perceptron(net, "sigma_net", torch.cat([e, code.expand(len(e), -1)], 1), 3)
    xyz = own["xyz"] + out * 0.01 / torch.tensor([5.0, 1.0, 5.0])
    return torch.cat(
        [
            xyz,
            functional.softplus(own["size"]),
            own["quat"],
            functional.logsigmoid(own["opacity"])[:, None],
            torch_colours(own["sh"], xyz, view),
        ],
        1,
    )


def torch_colours(sh: Tensor, xyz: Tensor, view: np.ndarray) -> Tensor:
    """Real spherical harmonics as the product of the unit direction's powers (Condon-Shortley phase)."""
    eye = torch.from_numpy(-view[:3, :3].T @ view[:3, 3])
    x, y, z = functional.normalize(xyz - eye, dim=1).unbind(1)
    basis = torch.stack(
        [
            torch.full_like(x, 0.5 / np.sqrt(np.pi)),
            *(np.sqrt(3 / (4 * np.pi)) * value for value in (-y, z, -x)),
            *(np.sqrt(15 / (4 * np.pi)) * value for value in (x * y, -y * z)),
            np.sqrt(5 / (16 * np.pi)) * (3 * z * z - 1),
            -np.sqrt(15 / (4 * np.pi)) * x * z,
            np.sqrt(15 / (16 * np.pi)) * (x * x - y * y),
        ],
        1,
    )
    return (0.5 + torch.einsum("nk,nkc->nc", basis, sh)).clamp(min=0)


# Checkpoints as torch writes them.


def saved_by_torch(model: UpstreamModel) -> tuple[Any, ...]:
    """The content of a fused checkpoint with the types that the original's trainer leaves in it."""

    def capture(branch: str) -> tuple[Any, ...]:
        values = upstream.capture(model, branch)
        leaves = [
            nn.Parameter(torch.from_numpy(np.ascontiguousarray(value)))
            if isinstance(value, np.ndarray)
            else value
            for value in values[:11]
        ]
        optimiser = {"state": {}, "param_groups": [{"lr": np.float64(1e-4), "betas": (0.9, 0.999)}]}
        return (*leaves, optimiser, np.float32(1.1))

    def state(branch: str) -> OrderedDict[str, Tensor]:
        out = OrderedDict(
            (name, torch.from_numpy(value)) for name, value in upstream.network(model, branch).items()
        )
        out._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined] # as torch does
        return out

    return capture("face"), state("face"), capture("mouth"), state("mouth")


def test_checkpoints_that_torch_saved_are_read(tmp_path: Path) -> None:
    model = upstream.make_model(seed=7)
    torch.save(saved_by_torch(model), tmp_path / "fuse.pth")
    found = read_model([tmp_path / "fuse.pth"])
    assert found.tensors.keys() == model.tensors.keys()
    for name, value in model.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], value, err_msg=name)


def test_a_saved_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(
        CheckpointInvalid, match=r"module\.pth holds the instruction NEWOBJ|wants to use torch\.nn"
    ):
        read_checkpoint(tmp_path / "module.pth")


def test_the_old_format_of_torch_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointInvalid, match="no PyTorch checkpoint"):
        read_checkpoint(tmp_path / "old.pth")
