"""Every number of the recipe, in one place: sizes, steps, rates, weights."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

# Of a step on one core of a server of 2023, for each pixel, and for each Gaussian and unit of its network.
_PIXEL_SECONDS = 1.6e-7
_MOVED_SECONDS = 4.5e-8


@dataclass(frozen=True)
class BranchSize:
    """How large a branch is: Gaussians, network width and tri-plane sides."""

    count: int
    hidden: int
    levels: tuple[int, ...]
    channels: int = 4


@dataclass(frozen=True)
class Weights:
    """Weights of the terms of the objective; see `objective`."""

    structure: float = 0.2
    lips: float = 0.10
    eyes: float = 0.08
    pyramid: float = 0.10
    maps: float = 0.10
    box_maps: float = 0.05
    move: float = 0.1
    anchor: float = 3e-3
    change: float = 1e-3
    size: float = 0.1
    size_limit: float = 0.006
    thinness: float = 0.01


@dataclass(frozen=True)
class Rates:
    """Learning rates at the start of a stage, for 8 frames a step."""

    xyz: float = 2e-4
    rgb: float = 4e-3
    sh: float = 4e-4
    log_scale: float = 8e-3
    quat: float = 1e-3
    opacity_logit: float = 0.03
    network: float = 4e-3
    planes: float = 2e-2
    plate: float = 1e-3


@dataclass(frozen=True)
class Growth:
    """How far the branches may grow beyond their first size; see `densify`.

    Attributes:
        face, mouth, torso: Gaussians at most.
        every: Steps between two events.
        first, last: When in a stage growth begins and ends, as shares of it.
        split_pixels: Standard deviation in the picture from which a Gaussian is split instead of cloned.
    """

    face: int
    mouth: int
    torso: int
    every: int = 100
    first: float = 0.15
    last: float = 0.6
    split_pixels: float = 1.0


@dataclass(frozen=True)
class Settings:
    """The recipe of one training.

    Attributes:
        seed: Of everything random; one seed gives one avatar on one device.
        width: Of the pictures that are learnt; a wider recording is made smaller. 0 leaves it as it is.
        batch: Frames a step.
        mouth_steps, face_steps, fuse_steps: Length of the three stages.
        face, mouth, torso: Sizes.
        code: Inputs the lip code is embedded into.
        lip_noise, condition_noise: Noise on the lip code, and on expression and torso condition, in standard
            deviations: the drivers of synthesis are never as exact as the recording.
        faded: Gaussians below this opacity are removed before the last stage, and where there is growth also
            during stages.
        growth: None if there are no more Gaussians than at the start.
        learn_plate: Whether the picture behind the person is learnt too.
    """

    seed: int = 0
    width: int = 0
    batch: int = 8
    mouth_steps: int = 600
    face_steps: int = 1800
    fuse_steps: int = 2600
    face: BranchSize = BranchSize(21000, 64, (16, 32, 64, 128))
    mouth: BranchSize = BranchSize(3000, 32, (16, 48))
    torso: BranchSize = BranchSize(6000, 32, (8, 24, 64))
    code: int = 32
    lip_noise: float = 0.05
    condition_noise: float = 0.10
    faded: float = 0.04
    growth: Growth | None = None
    learn_plate: bool = False
    weights: Weights = field(default_factory=Weights)
    rates: Rates = field(default_factory=Rates)

    def with_steps(self, steps: int) -> Settings:
        """The same recipe with about `steps` steps in all, shared by the stages in the same proportion."""
        whole = self.mouth_steps + self.face_steps + self.fuse_steps
        mouth, face = (max(1, round(steps * part / whole)) for part in (self.mouth_steps, self.face_steps))
        return replace(self, mouth_steps=mouth, face_steps=face, fuse_steps=max(1, steps - mouth - face))

    def cpu_minutes(self, size: tuple[int, int], threads: int) -> float:
        """About how long this trains on a CPU: a guess to choose by, made before anything is measured.

        Args:
            size: Height and width of the recording.
            threads: Cores that nothing else uses.
        """
        pixels = size[0] * size[1] * (min(1.0, self.width / size[1]) if self.width else 1.0) ** 2
        stages = (
            (self.mouth_steps, (self.mouth,)),
            (self.face_steps, (self.face, self.torso)),
            (self.fuse_steps, (self.face, self.mouth, self.torso)),
        )
        seconds = 0.0
        for steps, branches in stages:
            moved = sum(branch.count * branch.hidden for branch in branches)
            seconds += steps * self.batch * (_PIXEL_SECONDS * pixels + _MOVED_SECONDS * moved)
        # The kernels share the cores, torch's own operations stay on one.
        return seconds * (0.5 + 0.5 / threads) / 60


PRESETS: dict[str, Settings] = {
    "quick": Settings(mouth_steps=150, face_steps=400, fuse_steps=650),
    "demo": Settings(mouth_steps=600, face_steps=2000, fuse_steps=5000),
    "person": Settings(
        mouth_steps=300,
        face_steps=1000,
        fuse_steps=1700,
        face=BranchSize(30000, 64, (16, 32, 64, 128)),
        mouth=BranchSize(3000, 32, (16, 48)),
        # Collars, ties and lapels are most of what is wrong in a whole frame.
        torso=BranchSize(14000, 32, (8, 24, 64)),
        # More of it measures better and looks worse: blurred lips are the best guess of unsure ones.
        lip_noise=0.10,
        condition_noise=0.20,
        learn_plate=True,
        weights=Weights(lips=0.15, pyramid=0.20),
    ),
    "laptop": Settings(
        width=256,
        batch=4,
        mouth_steps=400,
        face_steps=1500,
        fuse_steps=3000,
        face=BranchSize(8000, 32, (16, 32, 64)),
        mouth=BranchSize(1200, 16, (16, 32)),
        torso=BranchSize(2400, 16, (8, 24)),
    ),
}
"""`quick` for a first look (under a minute on a large GPU), `demo` for the avatar that is shipped, `person`
for somebody who was recorded: poses and masks are estimates there, so inputs get more noise, and the plate is
learnt. `laptop` for a computer without a GPU: smaller pictures, fewer Gaussians."""
