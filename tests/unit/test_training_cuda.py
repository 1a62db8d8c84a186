"""Training on an NVIDIA GPU: the same numbers as on a processor, whatever is recorded and repeated there."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("gsplat")
if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device", allow_module_level=True)

from dataclasses import replace  # noqa: E402

from model_hosts.talking_gaussian.preprocess.dataset import load  # noqa: E402
from model_hosts.talking_gaussian.training.events import Note, Outcome  # noqa: E402
from model_hosts.talking_gaussian.training.graphs import RecordedStep  # noqa: E402
from model_hosts.talking_gaussian.training.learner import Learner  # noqa: E402
from model_hosts.talking_gaussian.training.losses import Structure  # noqa: E402
from model_hosts.talking_gaussian.training.portrait import Portrait  # noqa: E402
from model_hosts.talking_gaussian.training.rasterise import Splats, rasterise  # noqa: E402
from model_hosts.talking_gaussian.training.settings import PRESETS, BranchSize, Growth  # noqa: E402
from model_hosts.talking_gaussian.training.stages import Sampler, stages  # noqa: E402
from model_hosts.talking_gaussian.training.step import Step  # noqa: E402
from model_hosts.talking_gaussian.training.trainer import Intervals, Trainer  # noqa: E402
from tests.doubles import talking_head  # noqa: E402
from tests.doubles.dense_rasteriser import dense  # noqa: E402

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
TINY = replace(
    PRESETS["quick"],
    batch=2,
    mouth_steps=30,
    face_steps=60,
    fuse_steps=60,
    face=BranchSize(900, 16, (8, 16)),
    mouth=BranchSize(200, 16, (8,)),
    torso=BranchSize(300, 16, (8,)),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load(talking_head.write_studio(tmp_path_factory.mktemp("studio")))


def test_structure_and_its_gradient_are_those_of_ssim_in_float64():
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, 37, 150, generator=generator)
    target = (image + 0.2 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
    weight = torch.randn(image.shape, generator=generator)
    window = torch.exp(-0.5 * (torch.arange(-5, 6).double() / 1.5) ** 2)
    window = window / window.sum()

    def blur(value):
        value = value.flatten(0, 1)[:, None]
        value = torch.nn.functional.conv2d(value, window[None, None, :, None], padding=(5, 0))
        value = torch.nn.functional.conv2d(value, window[None, None, None], padding=(0, 5))
        return value.reshape(image.shape)

    a, b = image.double().requires_grad_(), target.double()
    mean_a, mean_b = blur(a), blur(b)
    covariance = blur(a * b) - mean_a * mean_b
    variance = blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2
    wanted = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    wanted = wanted / ((mean_a**2 + mean_b**2 + 1e-4) * (variance + 9e-4))
    (expected,) = torch.autograd.grad((wanted * weight).sum(), a)
    ours = image.to(CUDA).requires_grad_()
    similarity = Structure(CUDA)(ours, target.to(CUDA))
    (gradient,) = torch.autograd.grad((similarity * weight.to(CUDA)).sum(), ours)
    assert (similarity.cpu() - wanted).abs().max() < 1e-4
    assert (gradient.cpu() - expected).norm() < 1e-4 * expected.norm()


def test_gsplat_and_plain_float64_agree_on_picture_and_gradients():
    rng = np.random.default_rng(3)
    count, size, focal = 150, 48, 120.0
    means = np.concatenate([rng.normal(0, 0.07, (1, count, 2)), rng.uniform(1, 1.1, (1, count, 1))], -1)
    quats = rng.normal(size=(1, count, 4))
    quats /= np.linalg.norm(quats, axis=-1, keepdims=True)
    values = (
        means,
        quats,
        0.02 * np.exp(rng.normal(0, 0.3, (1, count, 3))),
        rng.uniform(0.5, 0.98, (1, count)),
        rng.uniform(0, 1, (1, count, 5)),
    )
    ours = Splats(*(torch.from_numpy(value).float().to(CUDA).requires_grad_() for value in values))
    plain = Splats(*(torch.from_numpy(value).double().requires_grad_() for value in values))
    camera = focal, (size / 2, size / 2), (size, size)
    weight = torch.randn(1, 6, size, size, generator=torch.Generator().manual_seed(0))
    drawn, wanted = rasterise(ours, *camera), dense(plain, *camera)
    assert (drawn.detach().cpu() - wanted.detach()).abs().max() < 0.01
    gradients = torch.autograd.grad((drawn * weight.to(CUDA)).sum(), list(ours))
    expected = torch.autograd.grad((wanted * weight).sum(), list(plain))
    # The length of a quaternion changes nothing, but the plain rasteriser takes them as they are.
    for name, a, b in zip(ours._fields, gradients, expected, strict=True):
        if name != "quats":
            assert (a.cpu() - b).norm() < 0.02 * b.norm(), name


@pytest.mark.parametrize("name", ["mouth", "face", "fuse"])
def test_a_recorded_step_gives_the_gradients_of_a_step(data, name):
    stage = next(stage for stage in stages(TINY) if stage.name == name)
    gradients = {}
    for kind in (Step, RecordedStep):
        portrait = Portrait(data, TINY, CUDA)
        learner = Learner(portrait, stage, Sampler(portrait.data, TINY))
        learner.__dict__["_work"] = kind(portrait, stage, learner._optimiser, learner._trouble)
        for step in range(3):
            loss, error = learner.learn(step, 1.0)
        gradients[kind] = {
            key: value.grad.clone()
            for key, value in portrait.scene.named_parameters()
            if value.grad is not None
        }
        gradients[kind]["loss"], gradients[kind]["error"] = loss.clone(), error.clone()
        assert learner.healthy()
    assert gradients[Step].keys() == gradients[RecordedStep].keys()
    for key, value in gradients[Step].items():
        # Sums on a GPU have no fixed order.
        assert (gradients[RecordedStep][key] - value).norm() <= 0.02 * value.norm() + 1e-7, key


def test_training_learns_and_goes_on_where_it_was_stopped(data, tmp_path):
    begun = Trainer(data, TINY, CUDA, checkpoint_path=tmp_path / "state")
    left = iter(range(70))
    assert begun.run(lambda: next(left, None) is None) is Outcome.STOPPED
    notes = []
    again = Trainer(data, TINY, CUDA, notes.append, checkpoint_path=tmp_path / "state")
    assert again.run() is Outcome.FINISHED
    assert any(isinstance(event, Note) and event.kind == "resumed" for event in notes)
    index = torch.as_tensor(data.held_out, device=CUDA)
    error = again.picture(again.frames.drive(index)) - again.frames.target(index).image
    assert float((error**2).mean()) < 0.01


def test_training_with_growth_records_anew(data):
    growth = Growth(1200, 250, 400, every=20)
    trainer = Trainer(data, replace(TINY, growth=growth), CUDA, intervals=Intervals(checkpoint=1e9))
    assert trainer.run() is Outcome.FINISHED
    assert trainer.scene.face.count > 900


def test_when_memory_is_short_the_batch_is_halved(data):
    size = 1024
    large = replace(
        data,
        frames=np.repeat(np.repeat(data.frames, size // data.size[0], 1), size // data.size[1], 2),
        labels=np.repeat(np.repeat(data.labels, size // data.size[0], 1), size // data.size[1], 2),
        plate=np.repeat(np.repeat(data.plate, size // data.size[0], 0), size // data.size[1], 1),
        depth=np.repeat(np.repeat(data.depth, size // data.size[0], 0), size // data.size[1], 1),
        focal=data.focal * size / data.size[1],
        lip_corner=data.lip_corner * (size // data.size[1]),
        eye_corners=data.eye_corners * (size // data.size[1]),
    )
    notes = []
    trainer = Trainer(large, replace(TINY, batch=16), CUDA, notes.append)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    others = torch.empty(free - 1200 * 2**20, dtype=torch.uint8, device=CUDA)
    assert trainer.run() is Outcome.FINISHED
    del others
    assert trainer.batch < 16
    assert any(isinstance(event, Note) and event.kind == "batch_halved" for event in notes)
