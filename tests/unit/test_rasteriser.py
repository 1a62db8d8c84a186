"""The vectorised rasteriser against splatting written plainly in float64, for both vector widths."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_hosts.talking_gaussian.bundle import Camera, FloatArray
from model_hosts.talking_gaussian.model.deformation import Deformer, FrameInput, Segment, Splats
from model_hosts.talking_gaussian.rendering.binning import group_by_tile, pair_with_tiles, sort_by_depth
from model_hosts.talking_gaussian.rendering.projection import RECORD, project
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser, native_lanes
from model_hosts.talking_gaussian.rendering.warmup import compile_kernels
from tests.doubles import plain_rasteriser
from tests.doubles.avatar import make_avatar

WIDTHS = pytest.mark.parametrize("lanes", [(0,) * 16, (0,) * 8], ids=["16 lanes", "8 lanes"])
IDENTITY = np.eye(3, 4, dtype=np.float32)


def cloud(seed: int, count: int, spread: float = 0.5, size: float = 0.02, opaque: float = 1.0) -> FloatArray:
    """Random Gaussians around 1 m in front of the camera, some behind it."""
    rng = np.random.default_rng(seed)
    planes = np.empty((14, count), np.float32)
    planes[0:2] = rng.normal(0, spread, (2, count))
    planes[2] = rng.normal(1, 0.4, count)
    planes[3:6] = size * np.exp(rng.normal(0, 0.7, (3, count)))
    planes[6:10] = rng.normal(size=(4, count))
    planes[10] = np.log(rng.uniform(0.002, opaque, count))
    planes[11:14] = rng.uniform(0, 1, (3, count))
    return planes


def splats_of(planes: FloatArray, view: FloatArray = IDENTITY) -> Splats:
    return Splats(planes, (Segment(0, planes.shape[1], view),))


def plate_of(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@WIDTHS
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    count=st.integers(1, 120),
    width=st.integers(32, 90).map(lambda n: 2 * n),
    height=st.integers(32, 90).map(lambda n: 2 * n),
    size=st.sampled_from([0.001, 0.01, 0.05, 0.3]),
    opaque=st.sampled_from([0.01, 0.5, 1.0]),
)
def test_equals_the_plain_rasteriser(
    lanes: tuple[int, ...], seed: int, count: int, width: int, height: int, size: float, opaque: float
) -> None:
    camera = Camera(1.5 * width, width / 2 + 3.25, height / 2 - 1.5)
    splats = splats_of(cloud(seed, count, 0.3, size, opaque))
    plate = plate_of(width, height, seed)
    expected = plain_rasteriser.render(splats, camera, plate)
    actual = CpuRasteriser(camera, plate, lanes).draw_rgb(splats).astype(np.float64)
    assert actual.shape == (height, width, 3)
    # A Gaussian that is right at 1/255 of opacity may be drawn by one and left out by the other.
    assert np.abs(actual - expected).max() < 0.012
    assert plain_rasteriser.psnr(actual, expected) > 60


@WIDTHS
def test_an_avatar_is_at_least_50_db_from_plain_float64(lanes: tuple[int, ...]) -> None:
    bundle = make_avatar(6000, size=256)
    deformer = Deformer(bundle)
    rng = np.random.default_rng(5)
    inputs = (
        rng.normal(size=8),
        rng.normal(size=12),
        rng.normal(0, 0.02, 6),
        rng.normal(0, 1, 4) * (1, 1, 0.01, 0.01),
    )
    frame = FrameInput(*(value.astype(np.float32) for value in inputs))
    splats = deformer.pose(frame, deformer.workspace())
    expected = plain_rasteriser.render(splats, bundle.info.camera, bundle.background)
    actual = CpuRasteriser(bundle.info.camera, bundle.background, lanes).draw_rgb(splats)
    assert plain_rasteriser.psnr(actual.astype(np.float64), expected) > 70


@WIDTHS
def test_draws_front_to_back(lanes: tuple[int, ...]) -> None:
    camera, plate = Camera(100.0, 32.0, 32.0), np.zeros((64, 64, 3), np.uint8)
    planes = np.zeros((14, 2), np.float32)
    planes[2] = 1.2, 1.0
    planes[3:7] = [[0.5, 0.5], [0.5, 0.5], [0.01, 0.01], [1, 1]]
    planes[10] = np.log(0.9)
    planes[11:14] = [[1, 0], [0, 1], [0, 0]]
    red, green, _ = CpuRasteriser(camera, plate, lanes).draw_rgb(splats_of(planes))[32, 32]
    assert green == pytest.approx(0.9, abs=0.01)
    assert red == pytest.approx(0.09, abs=0.01)


@WIDTHS
def test_nothing_but_the_plate(lanes: tuple[int, ...]) -> None:
    camera, plate = Camera(100.0, 40.0, 33.0), plate_of(80, 66)
    behind = cloud(0, 5)
    behind[2] = -1
    invisible = cloud(1, 5)
    invisible[10] = np.log(1 / 300)
    rasteriser = CpuRasteriser(camera, plate, lanes)
    for planes in (np.empty((14, 0), np.float32), behind, invisible):
        image = rasteriser.draw_rgb(splats_of(planes))
        np.testing.assert_allclose(image, plate / np.float32(255), atol=1e-6)


@WIDTHS
def test_survives_gaussians_everywhere_and_degenerate_ones(lanes: tuple[int, ...]) -> None:
    """More pairs than were ever reserved, sizes of zero, and quaternions of any length."""
    camera, plate = Camera(300.0, 128.0, 128.0), plate_of(256, 256)
    planes = cloud(3, 3000, 0.1, 0.3)
    planes[3:6, :100] = 0
    planes[6:10, 100:200] *= 1e-3
    splats = splats_of(planes)
    image = CpuRasteriser(camera, plate, lanes).draw_rgb(splats)
    expected = plain_rasteriser.render(splats, camera, plate)
    assert plain_rasteriser.psnr(image.astype(np.float64), expected) > 60


def test_segments_have_their_own_view() -> None:
    camera, plate = Camera(200.0, 64.0, 64.0), plate_of(128, 128)
    planes = cloud(4, 80, 0.1)
    view = np.concatenate([plain_rotation(0.3), [[0.05], [-0.1], [0.3]]], 1).astype(np.float32)
    both = Splats(planes, (Segment(0, 30, IDENTITY), Segment(30, 80, view)))
    expected = plain_rasteriser.render(both, camera, plate)
    actual = CpuRasteriser(camera, plate).draw_rgb(both).astype(np.float64)
    assert plain_rasteriser.psnr(actual, expected) > 60
    assert plain_rasteriser.psnr(plain_rasteriser.render(splats_of(planes), camera, plate), expected) < 40


def plain_rotation(angle: float) -> npt.NDArray[np.float64]:
    return np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])


@WIDTHS
def test_frames_do_not_depend_on_frames_before(lanes: tuple[int, ...]) -> None:
    camera, plate = Camera(200.0, 64.0, 64.0), plate_of(128, 128)
    used = CpuRasteriser(camera, plate, lanes)
    for seed, count in ((1, 400), (2, 10), (3, 700)):
        used.draw_yuv(splats_of(cloud(seed, count, 0.2)))
    splats = splats_of(cloud(9, 200, 0.2))
    np.testing.assert_array_equal(used.draw_yuv(splats), CpuRasteriser(camera, plate, lanes).draw_yuv(splats))


@WIDTHS
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    width=st.integers(32, 70).map(lambda n: 2 * n),
    height=st.integers(32, 70).map(lambda n: 2 * n),
)
def test_writes_bt601_limited_range(lanes: tuple[int, ...], seed: int, width: int, height: int) -> None:
    camera, plate = Camera(1.5 * width, width / 2, height / 2), plate_of(width, height, seed)
    planes = cloud(seed, 40, 0.3, 0.03)
    planes[11:14] *= 1.5  # brighter than white in places
    rasteriser = CpuRasteriser(camera, plate, lanes)
    splats = splats_of(planes)
    rgb = np.clip(rasteriser.draw_rgb(splats).astype(np.float64), 0, 1)
    yuv = rasteriser.draw_yuv(splats)
    assert yuv.shape == (height * 3 // 2, width)
    # ITU-R BT.601-7, 2.5.1 and 2.5.3.
    luma = 219 * (rgb @ [0.299, 0.587, 0.114]) + 16
    mean = rgb.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    light = mean @ [0.299, 0.587, 0.114]
    cb = 224 * (mean[..., 2] - light) / 1.772 + 128
    cr = 224 * (mean[..., 0] - light) / 1.402 + 128
    chroma = yuv[height:].reshape(2, height // 2, width // 2)
    for actual, expected in ((yuv[:height], luma), (chroma[0], cb), (chroma[1], cr)):
        assert np.abs(actual - expected).max() <= 0.51


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    size=st.sampled_from([0.002, 0.02, 0.2]),
    high=st.sampled_from([16, 32]),
)
def test_culling_never_loses_a_pixel(seed: int, size: float, high: int) -> None:
    """Every tile with a pixel of at least 1/255 of opacity has the Gaussian in its list, in depth order."""
    width = height = 160
    camera = Camera(240.0, 80.0, 80.0)
    splats = splats_of(cloud(seed, 60, 0.3, size))
    count = splats.planes.shape[1]
    records, depth = np.empty((count, RECORD), np.float32), np.empty(count, np.float32)
    boxes = np.empty(count, np.int32)
    tile, grid = np.array([32, high]), np.array([5, height // high])
    project(
        splats.planes,
        IDENTITY,
        np.array([camera.focal, camera.cx, camera.cy], np.float32),
        tile,
        np.array([width, height]),
        0,
        count,
        records,
        depth,
        boxes,
    )
    order = np.empty((2, count), np.uint32)
    visible = sort_by_depth(depth, np.empty((2, count), np.uint32), order)
    assert np.all(np.diff(depth[order[0, :visible]]) >= -1e-6)
    tiles = int(grid.prod())
    counts, offsets = np.empty(tiles, np.int32), np.empty(tiles + 1, np.int32)
    pairs, listed = np.empty((count * tiles, 2), np.int32), np.empty(count * tiles, np.int32)
    length = pair_with_tiles(records, boxes, order[0], visible, tile, grid, counts, pairs)
    assert length >= 0
    group_by_tile(counts, pairs, length, offsets, listed)
    assert offsets[-1] == length
    seen = plain_rasteriser.project(splats, camera, width, height)
    ys, xs = np.mgrid[:height, :width]
    rank = np.argsort(order[0, :visible])
    place = {int(index): int(rank[k]) for k, index in enumerate(np.sort(order[0, :visible]))}
    lists = [listed[offsets[t] : offsets[t + 1]].tolist() for t in range(tiles)]
    for own in lists:
        assert len(own) == len(set(own))
        assert [place[i] for i in own] == sorted(place[i] for i in own)
    for centre, covariance, opacity, index in zip(
        seen.centre, seen.covariance, seen.opacity, seen.index, strict=True
    ):
        d = np.stack([xs - centre[0], ys - centre[1]], -1)
        power = -0.5 * np.einsum("...i,ij,...j", d, np.linalg.inv(covariance), d)
        matters = opacity * np.exp(power) >= 1.02 / 255
        numbers = (ys[matters] // high) * grid[0] + xs[matters] // 32
        for number in np.unique(numbers):
            assert int(index) in lists[number]


def test_tells_when_pairs_do_not_fit() -> None:
    records = np.zeros((1, RECORD), np.float32)
    boxes = np.array([0 | (3 << 8) | (0 << 16) | (0 << 24)], np.int32)
    arguments = (np.zeros(1, np.uint32), 1, np.array([32, 32]), np.array([4, 1]), np.empty(4, np.int32))
    assert pair_with_tiles(records, boxes, *arguments, np.empty((3, 2), np.int32)) == -1
    assert pair_with_tiles(records, boxes, *arguments, np.empty((4, 2), np.int32)) == 4


def test_warming_up_compiles_all_that_a_render_needs() -> None:
    from model_hosts.talking_gaussian.model import kernels
    from model_hosts.talking_gaussian.rendering import binning, blending, projection

    compiled = [
        kernels.add_relu,
        kernels.add_bias_relu,
        kernels.shade,
        kernels.follow_track,
        projection.project,
        binning.sort_by_depth,
        binning.pair_with_tiles,
        binning.group_by_tile,
        blending.blend_yuv,
    ]
    compile_kernels()
    before = [list(kernel.signatures) for kernel in compiled]
    bundle = make_avatar(700)
    deformer = Deformer(bundle)
    frame = FrameInput(*(np.zeros(n, np.float32) for n in (8, 12, 6, 4)))
    splats = deformer.pose(frame, deformer.workspace())
    CpuRasteriser(bundle.info.camera, bundle.background, native_lanes()).draw_yuv(splats)
    assert [list(kernel.signatures) for kernel in compiled] == before
