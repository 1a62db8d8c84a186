"""The presenter: puts the parts of the person together and draws frames of her."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.spatial import cKDTree

from tools.studio.body import Body
from tools.studio.brows import brows
from tools.studio.camera import METRES, Camera, Skeleton
from tools.studio.eyes import Eyeball, lashes, lid_edge
from tools.studio.hair import PART_X, Hair
from tools.studio.identity import MIRA, Recipe
from tools.studio.jumper import jumper
from tools.studio.labels import Label
from tools.studio.mesh import Array, neighbour_average, smoothstep
from tools.studio.mouth import teeth, tongue
from tools.studio.occlusion import occlusion
from tools.studio.renderer import MeshPart, Renderer, StrandPart
from tools.studio.sources import Sources

HAIR_TINT = (0.098, 0.051, 0.026)
BROW_TINT = (0.095, 0.058, 0.038)
LASH_TINT = (0.016, 0.012, 0.010)
JUMPER_TINT = (0.085, 0.175, 0.185)
JAW_OPEN_BAKED = 0.55
"""jawOpen at which the second ambient occlusion is baked."""
VERGENCE_DEGREES = 1.2
MASK_SIZE = 1024


@dataclass(frozen=True)
class Pose:
    """One frame of a performance.

    Attributes:
        units: [52] face units.
        head: yaw, pitch, roll in degrees.
        gaze: yaw to her left and pitch up of the eyes in degrees, relative to the head.
        breath: -1 to 1.
    """

    units: Array
    head: Array
    gaze: Array
    breath: float = 0.0


class Presenter:
    """A person in front of the camera.

    Attributes:
        body: source of the geometry; `body.units` names the face units.
        landmark_names: names of the rows of `landmarks` and `project`.
        origin: [3] rest position of the canonical head frame's origin (between the eyes), decimetres.
    """

    def __init__(
        self, sources: Sources, recipe: Recipe = MIRA, *, camera: Camera | None = None, supersampling: int = 3
    ) -> None:
        self.camera = camera or Camera()
        self.body = body = Body(sources, recipe)
        self.renderer = Renderer(self.camera, supersampling)
        self.skeleton = Skeleton(
            neck=body.joints["neck"] + [0, 0.1, 0.05], head=body.joints["head"] + [0, -0.05, 0]
        )
        self.eyes = {side: Eyeball(body, side) for side in "lr"}
        self.origin = np.array([0.0, *np.mean([e.centre[1:] for e in self.eyes.values()], 0)])
        self._build_skin(sources)
        self._build_mouth()
        self._build_eyes()
        self._build_clothes()
        self._build_hair()
        self._bake_occlusion()
        self.bones = self.skeleton.bones(np.zeros(3), 0.0)

    # -- building

    def _build_skin(self, sources: Sources) -> None:
        body = self.body
        surface = body.surface(
            ["body"], lambda p: bool(p[:, 1].min() > 4.75 and np.abs(p[:, 0]).max() < 1.0), level=1
        )
        self._matrix, self._quads = surface.matrix, surface.quads
        skin = self._skin = surface.matrix @ body.vertices
        masks = [
            np.array(Image.open(sources.texture(name)).convert("L").resize((MASK_SIZE, MASK_SIZE)))
            for name in ("mpfb_lips", "mpfb_eyelids", "mpfb_ears", "mpfb_inside-mouth")
        ]
        mask = np.stack([masks[0], np.maximum(masks[1], masks[2]), masks[3], masks[3]], -1)[::-1]
        self.renderer.texture(mask, 0)
        pixel = np.clip((surface.uv * (MASK_SIZE - 1)).astype(int), 0, MASK_SIZE - 1)
        at_vertices = mask[pixel[:, 1], pixel[:, 0]]
        self._lips = at_vertices[:, 0] > 128
        lips = skin[self._lips]
        self._lip_front = float(lips[:, 2].max())
        inside = smoothstep(0.3, 0.7, at_vertices[:, 2] / 255.0) * (skin[:, 2] < self._lip_front - 0.03)
        self._morph = body.morph(surface.matrix)
        self._find_lip_margins()

        middle = lips[np.abs(lips[:, 0]) < 0.05]
        mouth_y = 0.5 * (middle[:, 1].max() + middle[:, 1].min()) + 0.02
        nose = skin[np.argmax(np.where(np.abs(skin[:, 0]) < 0.1, skin[:, 2], -9))]
        left = self.eyes["l"].centre
        self.hair = Hair(skin, surface.tri, float(left[1]))
        ones = np.ones(len(skin))
        part = MeshPart(
            material="skin",
            tri=surface.tri,
            rest=skin,
            uv=surface.uv,
            weights=body.weights(surface.matrix),
            attributes=np.stack([ones, ones, self.hair.scalp_shade(), inside], -1),
            label=Label.SKIN,
            motion=self._morph,
            uniforms={
                "skin_colour": 2,
                "skin_relief": 3,
                "part": (PART_X, float(self.hair.eye) + 0.45, 0.40),
            },
        )
        self.renderer.bake_skin(
            part,
            {
                "mask": 0,
                "face": (float(mouth_y), float(lips[:, 2].max()), float(left[1]), float(nose[1])),
                "eyes": [tuple(body.joints["l-eye"]), tuple(body.joints["r-eye"])],
                "spots": [tuple(self._on_face(x, left[1] + y)) for x, y in ((-0.30, -0.52), (0.42, -0.26))],
            },
            first_unit=2,
        )
        self.renderer.add_mesh("skin", part)
        # The jaw's underside lies between the chin and the ear lobes: the plane that splits head from neck.
        chin = skin[(np.abs(skin[:, 0]) < 0.03) & (skin[:, 2] > 0.8) & (skin[:, 1] < mouth_y)][:, 1].min()
        slope = -0.5
        self.renderer.jaw_plane = (float(chin) - slope * 0.98, slope)

    def _on_face(self, x: float, y: float) -> Array:
        front = self._skin[self._skin[:, 2] > 0.7]
        point: Array = front[np.argmin((front[:, 0] - x) ** 2 + (front[:, 1] - y) ** 2 - 0.01 * front[:, 2])]
        return point

    def _find_lip_margins(self) -> None:
        """Vertices of both lips nearest to the closed line; they tell how far the mouth is open."""
        skin, unit_ = self._skin, self.body.unit
        jaw = self._morph(np.eye(len(self.body.units))[unit_["jawOpen"]])[:, 1] - skin[:, 1]
        near = np.where(self._lips & (np.abs(skin[:, 0]) < 0.04) & (skin[:, 2] > self._lip_front - 0.10))[0]
        low, high = near[jaw[near] < jaw[near].min() * 0.6], near[jaw[near] > jaw[near].min() * 0.35]
        self._lower_lip = low[np.argsort(-skin[low, 1])[:4]]
        self._upper_lip = high[np.argsort(skin[high, 1])[:4]]
        self.lip_line = float(skin[np.r_[self._lower_lip, self._upper_lip], 1].mean())

    def _build_mouth(self) -> None:
        upper_edge, upper_front = self.lip_line - 0.020, self._lip_front - 0.155
        parts = {
            "upper teeth": teeth(self.body, upper=True, edge=upper_edge, front=upper_front),
            "lower teeth": teeth(
                self.body, upper=False, edge=self.lip_line - 0.026, front=self._lip_front - 0.205
            ),
            "tongue": tongue(self.body, upper_front),
        }
        for name, part in parts.items():
            n = len(part.rest)
            bright = 0.86 if name == "lower teeth" else 1.0
            self.renderer.add_mesh(
                name,
                MeshPart(
                    material="tongue" if name == "tongue" else "teeth",
                    tri=part.tri,
                    rest=part.rest,
                    weights=np.tile([1.0, 0.0], (n, 1)),
                    attributes=np.stack([np.full(n, bright), np.ones(n), part.gum, np.zeros(n)], -1),
                    label=Label.MOUTH,
                    motion=part.morph,
                    casts=False,
                ),
            )

    @staticmethod
    def _dense(line: Array) -> Array:
        """A polyline [k, 3] with six times the points."""
        return np.concatenate([np.linspace(a, b, 6) for a, b in pairwise(line)])

    def _build_eyes(self) -> None:
        body = self.body
        edges = {
            (side, upper): lid_edge(body, side, self._matrix, upper=upper)
            for side in "lr"
            for upper in (True, False)
        }
        # Middle of each lid: rest height and its change for each unit.
        self._lid_middle = {
            key: (
                float((e[e.shape[0] // 2] @ body.vertices)[0, 1]),
                np.array([float((e[e.shape[0] // 2] @ d)[0, 1]) for d in body.deltas]),
            )
            for key, e in edges.items()
        }
        upper_line, lower_line = (
            np.concatenate([self._dense(edges[side, upper] @ body.vertices) for side in "lr"])
            for upper in (True, False)
        )
        self._lid_shade = np.ones(len(self._skin))
        for points, depth in ((upper_line, 0.70), (lower_line, 0.38)):
            away = cKDTree(points).query(self._skin)[0]
            self._lid_shade *= 1 - depth * np.exp(-((away / 0.014) ** 2))
        for side, eye in self.eyes.items():
            n = len(eye.local)
            self.renderer.add_mesh(
                f"eye {side}",
                MeshPart(
                    material="eye",
                    tri=eye.tri,
                    rest=eye(np.zeros(0)),
                    weights=np.tile([1.0, 0.0], (n, 1)),
                    attributes=np.ones((n, 4)),
                    label=Label.SKIN,
                    motion=eye,
                    casts=False,
                    shape_space=eye.local,
                ),
            )
            for upper in (True, False):
                strands = lashes(body, side, edges[side, upper], upper=upper, seed=11 + upper)
                self.renderer.add_strands(
                    f"lashes {side} {upper}",
                    StrandPart(strands, LASH_TINT, None, gloss=0.0, push=0.00004, thin=True),
                )
        tri = self.renderer.meshes["skin"].part.tri
        self.renderer.add_strands(
            "brows",
            StrandPart(brows(body, self._matrix, tri), BROW_TINT, None, gloss=0.15, push=0.00006, thin=True),
        )

    def _build_clothes(self) -> None:
        for name, cloth in zip(("jumper", "collar"), jumper(self.body), strict=True):
            n = len(cloth.points)
            attributes = np.stack(
                [np.ones(n), np.ones(n), np.full(n, float(cloth.is_collar)), cloth.angle], -1
            )
            self.renderer.add_mesh(
                name,
                MeshPart(
                    "cloth", cloth.tri, cloth.points, cloth.weights, attributes, Label.CLOTHES,
                    uniforms={"tint": JUMPER_TINT},
                ),
            )  # fmt: skip

    def _build_hair(self) -> None:
        hair = self.hair
        points, tri = hair.cap()
        n = len(points)
        self.renderer.add_mesh(
            "cap",
            MeshPart("", tri, points, np.tile([1.0, 0.0], (n, 1)), np.ones((n, 4)), Label.HAIR),
        )
        for name, part in {
            "hair": StrandPart(hair.strands(9000, 0), HAIR_TINT, Label.HAIR, shaded=True, casts=True),
            "hairline": StrandPart(
                hair.strands(4400, 5, edge=True), HAIR_TINT, Label.HAIR, shaded=True, push=0.00002
            ),
            "down": StrandPart(
                hair.hairline_down(900, 7), HAIR_TINT, None, gloss=0.4, push=0.00003, thin=True
            ),
            "flyaways": StrandPart(hair.flyaways(130, 13), HAIR_TINT, None, gloss=0.8, thin=True),
        }.items():
            self.renderer.add_strands(name, part)

    def _bake_occlusion(self) -> None:
        renderer, unit_ = self.renderer, self.body.unit
        closed = np.zeros(len(self.body.units))
        opened = closed.copy()
        opened[unit_["jawOpen"]] = JAW_OPEN_BAKED
        at_rest = occlusion(renderer, ("skin", "jumper", "collar"), closed)
        at_open = occlusion(renderer, ("skin",), opened)
        skin: MeshPart = renderer.meshes["skin"].part
        average = neighbour_average(self._quads, len(skin.rest))
        # Sockets would look tired with all of their occlusion.
        sockets = sum(
            np.exp(-(((skin.rest[:, :2] - eye.centre[:2]) / [0.24, 0.16]) ** 2).sum(1))
            for eye in self.eyes.values()
        ) * (skin.rest[:, 2] > 0.8)
        for column, value in enumerate((at_rest["skin"], at_open["skin"])):
            smooth = 0.5 * value + 0.5 * (average @ value)
            smooth = 1 - (1 - smooth) * (1 - 0.88 * np.clip(sockets, 0, 1))
            skin.attributes[:, column] = np.clip(smooth, 0.03, 1) ** 0.9 * self._lid_shade
        renderer.add_mesh("skin", skin)
        for name in ("jumper", "collar"):
            cloth: MeshPart = renderer.meshes[name].part
            cloth.attributes[:, 0] = np.clip(at_rest[name], 0.1, 1)
            renderer.add_mesh(name, cloth)

    # -- drawing

    def frame(self, pose: Pose) -> npt.NDArray[np.uint8]:
        """A picture [512, 512, 3]."""
        for side, sign in (("l", -1), ("r", 1)):
            self.eyes[side].gaze = (pose.gaze[0] + sign * VERGENCE_DEGREES, pose.gaze[1])
        renderer = self.renderer
        renderer.upload(pose.units)
        skin = renderer.meshes["skin"].now
        upper = float(skin[self._upper_lip, 1].mean())
        opening = float(np.clip((upper - skin[self._lower_lip, 1].mean()) / 0.16, 0, 1))
        self.bones = self.skeleton.bones(pose.head, pose.breath)
        head = self.bones[0]

        def height(x: float, y: float, z: float) -> float:
            return float((head @ np.array([x, y, z, 1.0]))[1])

        for side, eye in self.eyes.items():
            lid = [
                height(eye.centre[0], rest + float(pose.units @ change), eye.centre[2])
                for rest, change in (self._lid_middle[side, True], self._lid_middle[side, False])
            ]
            renderer.meshes[f"eye {side}"].part.uniforms = {"lid": (*lid, 0.055)}
        return renderer.draw(
            self.bones,
            {
                "jaw": float(np.clip(pose.units[self.body.unit["jawOpen"]] / JAW_OPEN_BAKED, 0, 1)),
                "lips_at": (self._lip_front, opening, height(0, upper, self._lip_front)),
            },
        )

    def labels(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Label map and depth (metres) of the frame drawn last."""
        return self.renderer.draw_labels(self.bones)

    def view(self) -> npt.NDArray[np.float32]:
        """V [4, 4] of the frame drawn last: canonical head frame in metres to OpenCV camera."""
        return self.camera.opencv(self.bones[0], self.origin).astype(np.float32)

    # -- landmarks

    def _landmark_vertices(self) -> dict[str, int]:
        skin = self._skin
        eye, lips = (
            self.eyes["l"].centre,
            np.where(self._lips & (np.abs(self._skin[:, 1] - self.lip_line) < 0.06))[0],
        )

        def front(x: float, y: float) -> int:
            away = np.hypot(skin[:, 0] - x, skin[:, 1] - y)
            return int(np.argmin(away - 0.25 * skin[:, 2] + 9 * (skin[:, 2] < 0.5)))

        return {
            "nose_tip": int(np.argmax(np.where(np.abs(skin[:, 0]) < 0.1, skin[:, 2], -9))),
            "mouth_left": int(lips[np.argmax(skin[lips, 0])]),
            "mouth_right": int(lips[np.argmin(skin[lips, 0])]),
            "lip_upper": int(self._upper_lip[0]),
            "lip_lower": int(self._lower_lip[0]),
            "chin": front(0, self.lip_line - 0.42),
            "brow_left": front(eye[0], eye[1] + 0.22),
            "brow_right": front(-eye[0], eye[1] + 0.22),
            "cheek_left": front(eye[0] + 0.05, eye[1] - 0.35),
            "cheek_right": front(-eye[0] - 0.05, eye[1] - 0.35),
            "forehead": front(0, eye[1] + 0.45),
        }

    @property
    def landmark_names(self) -> tuple[str, ...]:
        """Names of the landmarks; the eyes are the centres of the eyeballs."""
        return (*self._landmark_vertices(), "eye_left", "eye_right")

    def landmarks(self) -> npt.NDArray[np.float32]:
        """Rest positions [P, 3] of the landmarks in the canonical head frame, metres."""
        points = np.concatenate(
            [self._skin[list(self._landmark_vertices().values())], [self.eyes[s].centre for s in "lr"]]
        )
        return np.asarray((points - self.origin) * METRES, np.float32)

    def project(self) -> npt.NDArray[np.float32]:
        """Pixel positions [P, 2] of the moved landmarks in the frame drawn last."""
        index = list(self._landmark_vertices().values())
        loaded = self.renderer.meshes["skin"]
        points = np.concatenate([loaded.now[index], [self.eyes[s].centre for s in "lr"]])
        weights = np.concatenate([loaded.part.weights[index], [[1.0, 0.0]] * 2])
        weights = np.c_[weights, 1 - weights.sum(1)]
        still = np.c_[points, np.ones(len(points))]
        world = np.einsum("pk,kij,pj->pi", weights, self.bones, still)
        return np.asarray(self.camera.pixels(world[:, :3]), np.float32)
