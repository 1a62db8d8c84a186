"""Drawing differentiably on a processor: pictures and gradients against plain torch and gsplat."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from model_hosts.talking_gaussian.bundle import Camera  # noqa: E402
from model_hosts.talking_gaussian.model.deformation import Splats as Planes  # noqa: E402
from model_hosts.talking_gaussian.rendering.quaternions import multiply  # noqa: E402
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser  # noqa: E402
from model_hosts.talking_gaussian.training import threads  # noqa: E402
from model_hosts.talking_gaussian.training.cpu_raster import draw  # noqa: E402
from model_hosts.talking_gaussian.training.rasterise import Splats, rasterise  # noqa: E402
from tests.doubles import plain_rasteriser  # noqa: E402
from tests.doubles.dense_rasteriser import dense, doubtful  # noqa: E402
from tools.gsplat_fixture import IMAGE, STEPS, read_scene  # noqa: E402

pytestmark = pytest.mark.torch
WIDTHS = pytest.mark.parametrize("lanes", [(0,) * 16, (0,) * 8], ids=["16 lanes", "8 lanes"])
NAMES = Splats._fields


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cloud(
    seed: int,
    count: int,
    size: float = 0.015,
    opaque: float = 1.0,
    batch: int = 2,
    channels: int = 5,
    aside: float = 0.25,
) -> Splats:
    """Random Gaussians around 1.1 m in front of the camera, float64; some beside the picture or too near."""
    rng = np.random.default_rng(seed)
    shape = batch, count
    means = np.concatenate([rng.uniform(-aside, aside, (*shape, 2)), rng.uniform(0.9, 1.4, (*shape, 1))], -1)
    means[rng.uniform(size=shape) < 0.03, 2] = -0.3
    quats = rng.normal(size=(*shape, 4))
    scales = size * np.exp(rng.normal(0, 0.7, (*shape, 3)))
    opacities, colours = rng.uniform(0.01, opaque, shape), rng.uniform(0, 1, (*shape, channels))
    quats /= np.linalg.norm(quats, axis=-1, keepdims=True)
    return Splats(*(torch.from_numpy(value) for value in (means, quats, scales, opacities, colours)))


def leaves(splats: Splats, kind: torch.dtype) -> Splats:
    return Splats(*(value.detach().to(kind).requires_grad_() for value in splats))


def unit(splats: Splats) -> Splats:
    return splats._replace(quats=torch.nn.functional.normalize(splats.quats, dim=-1))


def relative(ours: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((ours - wanted).norm() / wanted.norm().clamp_min(1e-6))


@WIDTHS
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    count=st.integers(1, 60),
    width=st.integers(20, 75),
    height=st.integers(20, 75),
    size=st.sampled_from([0.002, 0.01, 0.05]),
    opaque=st.sampled_from([0.02, 0.6, 1.0]),
    channels=st.sampled_from([3, 5]),
)
def test_picture_and_gradients_equal_plain_torch_in_float64(
    lanes: tuple[int, ...],
    seed: int,
    count: int,
    width: int,
    height: int,
    size: float,
    opaque: float,
    channels: int,
):
    splats = cloud(seed, count, size, opaque, channels=channels)
    camera = 1.6 * width, (width / 2 + 2.25, height / 2 - 1.5), (height, width)
    plain, fast = leaves(splats, torch.float64), leaves(splats, torch.float32)
    wanted, drawn = dense(unit(plain), *camera), draw(*fast, *camera, lanes)
    assert drawn.shape == (2, channels + 1, height, width)
    # A Gaussian that is right at 1/255 of opacity may be drawn by one and left out by the other.
    sure = ~doubtful(splats, *camera).expand_as(drawn)
    torch.testing.assert_close(drawn[sure].double(), wanted[sure], atol=2e-4, rtol=0)
    weight = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weight = weight * sure
    expected = torch.autograd.grad((wanted * weight).sum(), list(plain))
    actual = torch.autograd.grad((drawn * weight.float()).sum(), list(fast))
    for name, ours, theirs in zip(NAMES, actual, expected, strict=True):
        assert torch.isfinite(ours).all(), name
        scale = theirs.norm() + 1e-3 * weight.norm()
        assert (ours - theirs).norm() < 2e-3 * scale, name


def test_the_gradients_of_the_yardstick_are_its_finite_differences():
    splats = leaves(cloud(3, 4, 0.03, 0.8, batch=1, aside=0.08), torch.float64)
    camera = 30.0, (8.0, 8.0), (16, 16)
    sure = ~doubtful(splats, *camera)
    assert sure.float().mean() > 0.9

    def picture(*values: torch.Tensor) -> torch.Tensor:
        return dense(unit(Splats(*values)), *camera) * sure

    assert torch.autograd.gradcheck(picture, list(splats), eps=1e-7, atol=1e-5, fast_mode=True)


@WIDTHS
def test_draws_what_the_renderer_draws(lanes: tuple[int, ...]):
    splats = cloud(8, 900, 0.006, batch=1, channels=3)
    size, focal = 128, 220.0
    planes = torch.cat(
        [
            splats.means[0].T,
            splats.scales[0].T,
            splats.quats[0].T,
            splats.opacities.log(),
            splats.colours[0].T,
        ]
    )
    segment = read_scene()[0].segments[0]
    segment.start, segment.stop, segment.view = 0, 900, np.eye(3, 4, dtype=np.float32)
    plate = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    renderer = CpuRasteriser(Camera(focal, size / 2, size / 2), plate, lanes)
    wanted = renderer.draw_rgb(Planes(planes.numpy().astype(np.float32), (segment,)))
    drawn = draw(*(value.float() for value in splats), focal, (size / 2, size / 2), (size, size), lanes)
    ours = over(drawn, plate)
    assert plain_rasteriser.psnr(ours, wanted.astype(np.float64)) > 60


def over(drawn: torch.Tensor, plate: np.ndarray) -> np.ndarray:
    """The picture [H, W, 3] of a frame over a plate."""
    behind = torch.from_numpy(plate / 255).permute(2, 0, 1)
    return (drawn[0, :3] + (1 - drawn[0, -1:]) * behind).permute(1, 2, 0).double().numpy()


def fixed_scene() -> tuple[Splats, tuple[float, tuple[float, float], tuple[int, int]], np.ndarray]:
    """The scene that gsplat drew, in camera space."""
    scene, camera, plate = read_scene()
    planes = torch.from_numpy(scene.planes).double()
    quats = torch.nn.functional.normalize(planes[6:10].T, dim=-1)
    means, turned = torch.empty(planes.shape[1], 3).double(), torch.empty_like(quats)
    for segment in scene.segments:
        own = slice(segment.start, segment.stop)
        view = torch.from_numpy(np.asarray(segment.view, np.float64))
        means[own] = planes[:3, own].T @ view[:, :3].T + view[:, 3]
        turned[own] = multiply(quaternion(view[:, :3])[None], quats[own])
    splats = Splats(means, turned, planes[3:6].T, planes[10].exp(), planes[11:14].T)
    size = plate.shape[:2]
    return (
        Splats(*(value.float()[None].contiguous() for value in splats)),
        (camera.focal, (camera.cx, camera.cy), size),
        plate,
    )


def quaternion(rotation: torch.Tensor) -> torch.Tensor:
    """wxyz of a rotation matrix: the eigenvector of the largest eigenvalue (Bar-Itzhack, 2000)."""
    m = rotation
    k = torch.zeros(4, 4, dtype=m.dtype)
    k[0, 0] = m.trace()
    k[0, 1:] = torch.stack([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
    k[1:, 0] = k[0, 1:]
    k[1:, 1:] = m + m.T - m.trace() * torch.eye(3, dtype=m.dtype)
    return torch.linalg.eigh(k).eigenvectors[:, -1]


@WIDTHS
def test_draws_what_gsplat_drew(lanes: tuple[int, ...]):
    if not IMAGE.exists():
        pytest.skip(
            f"{IMAGE.name} was not recorded yet: run `python -m tools.gsplat_fixture image` with CUDA"
        )
    splats, camera, plate = fixed_scene()
    with np.load(IMAGE) as stored:
        expected = stored["image"] / STEPS
    image = over(draw(*splats, *camera, lanes), plate)
    assert np.abs(np.clip(image, 0, 1) - expected).mean() < 0.1 / 255
    assert plain_rasteriser.psnr(image, expected) > 50


@pytest.mark.gpu
def test_gradients_equal_those_of_gsplat():
    pytest.importorskip("gsplat")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    splats, camera, _ = fixed_scene()
    colours = torch.rand(*splats.colours.shape[:2], 5, generator=torch.Generator().manual_seed(0))
    ours = leaves(splats._replace(colours=colours), torch.float32)
    theirs = Splats(*(value.detach().cuda().requires_grad_() for value in ours))
    a, b = rasterise(ours, *camera), rasterise(theirs, *camera)
    assert (a - b.cpu()).abs().mean() < 1e-4
    weight = torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
    actual = torch.autograd.grad((a * weight).sum(), list(ours))
    expected = torch.autograd.grad((b * weight.cuda()).sum(), list(theirs))
    for name, mine, other in zip(NAMES, actual, expected, strict=True):
        assert relative(mine, other.cpu()) < 0.01, name


def test_a_gaussian_that_nothing_shows_gets_no_gradient():
    splats = cloud(5, 40, 0.02, batch=1)
    splats.means[0, :10] = torch.tensor([0.0, 0.0, -1.0]).double()
    splats.means[0, 10:20] = torch.tensor([50.0, 0.0, 1.0]).double()
    splats.opacities[0, 20:30] = 0
    values = leaves(splats, torch.float32)
    draw(*values, 80.0, (24.0, 24.0), (48, 48)).sum().backward()
    for value in values:
        assert torch.isfinite(value.grad).all()
        assert value.grad[0, :30].eq(0).all()
    assert values.means.grad[0, 30:].ne(0).any()


def test_behind_many_opaque_layers_gradients_stay_finite_and_those_in_front_count():
    count = 200
    means = torch.zeros(1, count, 3)
    means[0, :, 2] = torch.linspace(1, 2, count)
    splats = Splats(
        means,
        torch.tensor([1.0, 0, 0, 0]).expand(1, count, 4),
        torch.full((1, count, 3), 0.5),
        torch.full((1, count), 0.9),
        torch.rand(1, count, 5, generator=torch.Generator().manual_seed(0)),
    )
    values = leaves(splats, torch.float32)
    drawn = draw(*values, 60.0, (16.0, 16.0), (32, 32))
    assert (drawn[:, -1] > 0.9998).all()
    drawn.sum().backward()
    plain = leaves(Splats(*(value[:, :12] for value in splats)), torch.float64)
    dense(unit(plain), 60.0, (16.0, 16.0), (32, 32)).sum().backward()
    for value, wanted in zip(values, plain, strict=True):
        assert torch.isfinite(value.grad).all()
        assert relative(value.grad[:, :3], wanted.grad[:, :3]) < 0.01
    assert values.colours.grad[0, 12:].abs().max() == 0


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_threads_change_nothing_but_rounding(batch: int, monkeypatch: pytest.MonkeyPatch):
    splats = cloud(6, 400, 0.01, batch=batch)
    results = []
    for count in (1, 3, 3):
        monkeypatch.setattr(threads, "_given", [count])
        values = leaves(splats, torch.float32)
        drawn = draw(*values, 150.0, (50.0, 45.0), (90, 100))
        drawn.square().sum().backward()
        results.append([drawn.detach(), *(value.grad for value in values)])
    for alone, several, again in zip(*results, strict=True):
        torch.testing.assert_close(several, alone, rtol=1e-4, atol=1e-3)
        assert torch.equal(several, again)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_goes_in_and_comes_out(name: str, wrong: float):
    splats = cloud(9, 30)
    getattr(splats, name)[1, 4] = wrong
    values = leaves(splats, torch.float32)
    drawn = draw(*values, 80.0, (24.0, 24.0), (48, 48))
    assert drawn.isnan().all()
    drawn.sum().backward()
    assert all(value.grad.isnan().all() for value in values)


def test_refuses_what_it_cannot_draw():
    splats = cloud(7, 3)
    with pytest.raises(ValueError, match="only float32 on the CPU"):
        draw(*splats, 80.0, (24.0, 24.0), (48, 48))
    six = cloud(7, 3, channels=6)
    with pytest.raises(ValueError, match="6 channels"):
        draw(*(value.float() for value in six), 80.0, (24.0, 24.0), (48, 48))


def test_the_scene_of_gsplat_is_read_as_it_was_meant():
    scene, camera, plate = read_scene()
    wanted = plain_rasteriser.render(cast(Planes, scene), Camera(camera.focal, camera.cx, camera.cy), plate)
    splats, view, _ = fixed_scene()
    assert plain_rasteriser.psnr(over(draw(*splats, *view), plate), wanted) > 60
