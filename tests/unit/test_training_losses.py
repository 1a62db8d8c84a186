"""Losses of the trainer, and the dense rasteriser of the tests, against plain references."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

torch = pytest.importorskip("torch")

from model_hosts.talking_gaussian.bundle import Camera  # noqa: E402
from model_hosts.talking_gaussian.model.deformation import Segment  # noqa: E402
from model_hosts.talking_gaussian.model.deformation import Splats as Planes  # noqa: E402
from model_hosts.talking_gaussian.rendering.quaternions import multiply  # noqa: E402
from model_hosts.talking_gaussian.training.losses import (  # noqa: E402
    Structure,
    crop,
    masked_mean,
    psnr,
    pyramid,
)
from model_hosts.talking_gaussian.training.rasterise import Splats  # noqa: E402
from model_hosts.talking_gaussian.training.scene import quaternions  # noqa: E402
from tests.doubles.dense_rasteriser import dense, rotation_matrices  # noqa: E402
from tests.doubles.plain_rasteriser import render  # noqa: E402

pytestmark = pytest.mark.torch


def pictures(seed: int, shape: tuple[int, ...] = (2, 3, 20, 26)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(shape, generator=generator)
    return image, (image + 0.2 * torch.randn(shape, generator=generator)).clamp(0, 1)


def test_structure_is_ssim_with_a_gaussian_window():
    image, target = pictures(0)

    def blur(value: np.ndarray) -> np.ndarray:
        for axis in (2, 3):
            value = gaussian_filter1d(value, 1.5, axis=axis, mode="constant", radius=5)
        return value

    a, b = image.double().numpy(), target.double().numpy()
    mean_a, mean_b = blur(a), blur(b)
    covariance = blur(a * b) - mean_a * mean_b
    variance = blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2
    wanted = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    wanted /= (mean_a**2 + mean_b**2 + 1e-4) * (variance + 9e-4)
    structure = Structure(image.device)
    np.testing.assert_allclose(structure(image, target), wanted, atol=2e-4)
    torch.testing.assert_close(structure(image, image), torch.ones_like(image), atol=1e-4, rtol=0)


def test_the_gradient_of_structure_is_that_of_ssim_in_float64():
    image, target = pictures(1)
    window = torch.exp(-0.5 * (torch.arange(-5, 6).double() / 1.5) ** 2)
    window = window / window.sum()

    def blur(value: torch.Tensor) -> torch.Tensor:
        value = value.flatten(0, 1)[:, None]
        value = torch.nn.functional.conv2d(value, window[None, None, :, None], padding=(5, 0))
        value = torch.nn.functional.conv2d(value, window[None, None, None], padding=(0, 5))
        return value.reshape(image.shape)

    weight = torch.randn(image.shape, generator=torch.Generator().manual_seed(2))
    a, b = image.double().requires_grad_(), target.double()
    mean_a, mean_b = blur(a), blur(b)
    covariance = blur(a * b) - mean_a * mean_b
    variance = blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2
    wanted = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    wanted = wanted / ((mean_a**2 + mean_b**2 + 1e-4) * (variance + 9e-4))
    (expected,) = torch.autograd.grad((wanted * weight).sum(), a)
    structure = Structure(image.device)
    image.requires_grad_()
    (gradient,) = torch.autograd.grad((structure(image, target) * weight).sum(), image)
    assert (gradient - expected).norm() < 1e-3 * expected.norm()


def test_a_crop_is_the_slice_and_sends_its_gradient_there():
    image, _ = pictures(2)
    image.requires_grad_()
    corner = torch.tensor([[3, 5], [10, 0]])
    box = crop(image, corner, (8, 6))
    torch.testing.assert_close(box[0], image[0, :, 5:11, 3:11])
    torch.testing.assert_close(box[1], image[1, :, 0:6, 10:18])
    (gradient,) = torch.autograd.grad(box.sum(), image)
    assert gradient[0, :, 5:11, 3:11].eq(1).all()
    assert gradient.sum() == 2 * 3 * 8 * 6


def test_a_masked_mean_counts_only_the_mask_and_an_empty_one_is_zero():
    value = torch.arange(12.0).reshape(1, 3, 2, 2).requires_grad_()
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    assert masked_mean(value, mask).item() == pytest.approx((0 + 4 + 8) / 3)
    nothing = masked_mean(value, torch.zeros_like(mask))
    assert nothing == 0
    (gradient,) = torch.autograd.grad(nothing, value)
    assert gradient.eq(0).all()


def test_the_pyramid_sees_lost_edges_but_no_change_of_brightness():
    image, _ = pictures(3, (1, 3, 32, 32))
    soft = torch.nn.functional.avg_pool2d(image, 3, 1, 1)
    assert pyramid(image, image) == 0
    assert pyramid(image + 0.1, image) < 1e-5
    assert pyramid(soft, image) > 0.05
    assert pyramid(soft, image, torch.zeros(1, 1, 32, 32)) == 0


def test_decibels():
    assert psnr(0.01) == pytest.approx(20)
    assert psnr(0.0) == pytest.approx(100)


def test_quaternions_of_heads_that_face_the_camera():
    generator = torch.Generator().manual_seed(4)
    small = torch.nn.functional.normalize(
        torch.tensor([1.0, 0, 0, 0]) + 0.2 * torch.randn(6, 4, generator=generator), dim=-1
    )
    view = torch.diag(torch.tensor([1.0, -1, -1])) @ rotation_matrices(small)
    torch.testing.assert_close(rotation_matrices(quaternions(view)), view, atol=1e-5, rtol=0)
    product = rotation_matrices(multiply(small[:3], small[3:]))
    torch.testing.assert_close(product, rotation_matrices(small[:3]) @ rotation_matrices(small[3:]))


def test_the_dense_rasteriser_draws_what_the_plain_one_draws():
    rng = np.random.default_rng(5)
    count, size, focal = 60, 40, 90.0
    means = np.c_[rng.uniform(-0.25, 0.25, (count, 2)), rng.uniform(0.9, 1.4, count)]
    quats = rng.normal(size=(count, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    scales = np.exp(rng.uniform(np.log(0.004), np.log(0.04), (count, 3)))
    opacities = rng.uniform(0.1, 0.98, count)
    colours = rng.uniform(0, 1, (count, 3))
    tensors = [
        torch.from_numpy(value.astype(np.float32))[None]
        for value in (means, quats, scales, opacities, colours)
    ]
    drawn = dense(Splats(*tensors), focal, (size / 2, size / 2), (size, size))
    planes = np.concatenate([means.T, scales.T, quats.T, np.log(opacities)[None], colours.T])
    splats = Planes(planes.astype(np.float32), (Segment(0, count, np.eye(3, 4, dtype=np.float32)),))
    plate = np.full((size, size, 3), 128, np.uint8)
    wanted = render(splats, Camera(focal, size / 2, size / 2), plate)
    ours = drawn[0, :3] + (1 - drawn[0, 3:]) * 128 / 255
    np.testing.assert_allclose(ours.permute(1, 2, 0), wanted, atol=4e-3)
