"""Rasteriser on OpenGL (EGL; llvmpipe is enough): shadows, materials, ribbons, supersampling, label maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import moderngl
import numpy as np
import numpy.typing as npt
from numba import njit

from tools.studio.camera import Camera
from tools.studio.labels import Label
from tools.studio.mesh import Array, grid_quads, normals, unit
from tools.studio.shading import shader
from tools.studio.strands import Strands

MATERIALS = ("skin", "eye", "teeth", "tongue", "cloth")
SHADOW_SIZE = 1024
EXPOSURE = 0.50
KEY_DIRECTION = np.array([-0.52, 0.58, 0.84])
"""Towards the key light; the same direction as in shaders/light.glsl."""


@njit(cache=True)
def box_filter(image: Array, factor: int) -> Array:
    """Average blocks of `factor` x `factor` pixels of an [h, w, 3] uint8 picture."""
    n, m, q = image.shape[0] // factor, image.shape[1] // factor, factor * factor
    out = np.empty((n, m, 3), np.uint8)
    for i in range(n):
        for j in range(m):
            for c in range(3):
                total = q // 2
                for y in range(i * factor, i * factor + factor):
                    for x in range(j * factor, j * factor + factor):
                        total += image[y, x, c]
                out[i, j, c] = total // q
    return out


@dataclass
class MeshPart:
    """A mesh in the scene.

    Attributes:
        material: one of MATERIALS, or "" for a part that only casts shadows.
        rest: [n, 3]; `shape_space` replaces it in the material where given (the eye's unit sphere).
        weights: [n, 2] (head, neck).
        attributes: [n, 4] as the material's shader says.
        motion: positions for unit values; None for a part that only the bones move.
        uniforms: values for the material.
    """

    material: str
    tri: Array
    rest: Array
    weights: Array
    attributes: Array
    label: Label
    uv: Array | None = None
    motion: Callable[[Array], Array] | None = None
    casts: bool = True
    shape_space: Array | None = None
    uniforms: dict[str, Any] = field(default_factory=dict)


@dataclass
class StrandPart:
    """Strands in the scene with the values of their material."""

    strands: Strands
    tint: tuple[float, float, float]
    label: Label | None
    gloss: float = 1.0
    push: float = 0.0
    shaded: bool = False
    thin: bool = False
    casts: bool = False


@dataclass
class _Loaded:
    part: Any
    buffer: moderngl.Buffer
    drawn: moderngl.VertexArray | None
    flat: moderngl.VertexArray
    depth: moderngl.VertexArray
    now: Array
    stale: bool = True


class Renderer:
    """Draws parts with a fixed camera; `upload` poses the face, `draw` and `draw_labels` make pictures."""

    def __init__(self, camera: Camera, supersampling: int) -> None:
        self.camera, self.factor = camera, supersampling
        self.ctx = moderngl.create_context(standalone=True, backend="egl", require=330)
        width = self.width = camera.size * supersampling
        self._target = self.ctx.framebuffer(
            [self.ctx.renderbuffer((width, width), 4)], self.ctx.depth_renderbuffer((width, width))
        )
        self._shadow = self._map(SHADOW_SIZE)
        self._shadow_target = self.ctx.framebuffer(depth_attachment=self._shadow)
        self._label_depth = self._map(camera.size)
        self._label_target = self.ctx.framebuffer(
            [self.ctx.renderbuffer((camera.size, camera.size), 4)], self._label_depth
        )
        self._materials = {m: self._program("surface.vert", f"{m}.frag") for m in MATERIALS}
        self._strand = self._program("strand.vert", "strand.frag")
        self._mesh_depth = self._program("surface.vert", "depth.frag")
        self._mesh_label = self._program("surface.vert", "label.frag")
        self._strand_depth = self._program("strand_flat.vert", "depth.frag")
        self._strand_label = self._program("strand_flat.vert", "strand_label.frag")
        background = self._program("background.vert", "background.frag")
        corners = np.array([-1, -1, 3, -1, -1, 3], "f4")
        self._background = self.ctx.vertex_array(
            background, [(self.ctx.buffer(corners.tobytes()), "2f", "p")]
        )
        self.meshes: dict[str, _Loaded] = {}
        self.strands: dict[str, _Loaded] = {}
        self.jaw_plane = (0.0, 0.0)
        """Skin below y = a + b z (rest positions) is neck in the label map."""
        key = unit(KEY_DIRECTION)
        x = unit(np.cross([0, 1, 0], key))
        look = np.eye(4)
        look[:3, :3] = np.stack([x, np.cross(key, x), key])
        look[:3, 3] = -look[:3, :3] @ np.array([0, 6.6, 0.4])
        self._light = np.diag([1 / 2.1, 1 / 2.1, -1 / 3.5, 1]) @ look

    def _program(self, vertex: str, fragment: str) -> moderngl.Program:
        return self.ctx.program(vertex_shader=shader(vertex), fragment_shader=_versioned(shader(fragment)))

    def _map(self, size: int) -> moderngl.Texture:
        texture = self.ctx.depth_texture((size, size))
        texture.compare_func = ""
        texture.filter = (moderngl.LINEAR, moderngl.LINEAR)
        texture.repeat_x = texture.repeat_y = False
        return texture

    def add_mesh(self, name: str, part: MeshPart) -> None:
        """Add or replace a mesh."""
        n = len(part.rest)
        dynamic = self.ctx.buffer(reserve=n * 24, dynamic=True)
        shape = part.rest if part.shape_space is None else part.shape_space
        uv = np.zeros((n, 2)) if part.uv is None else part.uv
        static = np.concatenate([shape, uv, part.weights, part.attributes], 1).astype("f4")
        buffer, index = self.ctx.buffer(static.tobytes()), self.ctx.buffer(part.tri.astype("i4").tobytes())

        def bind(program: moderngl.Program) -> moderngl.VertexArray:
            moving = _layout(program, (("pos", 3), ("nrm", 3)))
            fixed = _layout(program, (("rest", 3), ("uv", 2), ("wt", 2), ("at", 4)))
            return self.ctx.vertex_array(
                program, [(dynamic, moving[0], *moving[1]), (buffer, fixed[0], *fixed[1])], index
            )

        part.tri = np.ascontiguousarray(part.tri, np.int32)
        self.meshes[name] = _Loaded(
            part,
            dynamic,
            bind(self._materials[part.material]) if part.material else None,
            bind(self._mesh_label),
            bind(self._mesh_depth),
            np.ascontiguousarray(part.rest, np.float32),
        )

    def add_strands(self, name: str, part: StrandPart) -> None:
        """Add strands; every point becomes the two edges of a ribbon."""
        s = part.strands
        n, k = s.points.shape[:2]
        dynamic = self.ctx.buffer(reserve=2 * n * k * 24, dynamic=True)
        look = np.stack([s.tone, s.occlusion, s.alpha, s.width], -1)
        static = np.concatenate([s.shell.reshape(-1, 3), look.reshape(-1, 4), s.weights.reshape(-1, 2)], 1)
        static = np.concatenate([np.repeat(static, 2, 0), np.tile([[-1.0], [1.0]], (n * k, 1))], 1).astype(
            "f4"
        )
        strip = grid_quads(k, 2)
        quads = (strip[None] + 2 * k * np.arange(n)[:, None, None]).reshape(-1, 4)
        buffer, index = (
            self.ctx.buffer(static.tobytes()),
            self.ctx.buffer(quads[:, [0, 1, 2, 0, 2, 3]].astype("i4").tobytes()),
        )

        def bind(program: moderngl.Program) -> moderngl.VertexArray:
            moving = _layout(program, (("pos", 3), ("tan", 3)))
            fixed = _layout(program, (("shell", 3), ("at", 4), ("wt", 2), ("side", 1)))
            return self.ctx.vertex_array(
                program, [(dynamic, moving[0], *moving[1]), (buffer, fixed[0], *fixed[1])], index
            )

        self.strands[name] = _Loaded(
            part, dynamic, bind(self._strand), bind(self._strand_label), bind(self._strand_depth), s.points
        )

    def texture(self, pixels: Array, unit_number: int) -> None:
        """Bind an [h, w, 4] uint8 picture (bottom row first) to a texture unit, with mipmaps."""
        texture = self.ctx.texture(pixels.shape[1::-1], 4, np.ascontiguousarray(pixels).tobytes())
        texture.build_mipmaps()
        texture.use(unit_number)

    def bake_skin(self, part: MeshPart, uniforms: dict[str, Any], first_unit: int, size: int = 2048) -> None:
        """Draw the skin's colour and relief into two textures, bound to `first_unit` and the next."""
        assert part.uv is not None
        textures = [self.ctx.texture((size, size), 4) for _ in range(2)]
        target = self.ctx.framebuffer(textures)
        target.use()
        target.clear(0.84, 0.64, 0.55, 0.0)
        self.ctx.disable(moderngl.DEPTH_TEST)
        self.ctx.disable(moderngl.BLEND)
        program = self._program("bake.vert", "bake.frag")
        # Triangles across a texture seam come first, so that good ones overwrite them.
        order = np.argsort(-np.ptp(part.uv[part.tri], axis=1).max(1))
        data = np.concatenate([part.rest, part.uv, part.attributes], 1).astype("f4")
        array = self.ctx.vertex_array(
            program,
            [(self.ctx.buffer(data.tobytes()), "3f 2f 4f", "rest", "uv", "at")],
            self.ctx.buffer(part.tri[order].astype("i4").tobytes()),
        )
        _set(program, uniforms)
        array.render()
        for k, texture in enumerate(textures):
            texture.build_mipmaps()
            texture.use(first_unit + k)

    def upload(self, units: Array) -> None:
        """Move every part to the unit values [52]."""
        for loaded in self.meshes.values():
            motion = loaded.part.motion
            if motion is None and not loaded.stale:
                continue
            loaded.now = loaded.now if motion is None else motion(units)
            data = np.concatenate([loaded.now, normals(loaded.now, loaded.part.tri)], 1)
            loaded.buffer.write(data.astype("f4").tobytes())
            loaded.stale = False
        for loaded in self.strands.values():
            s = loaded.part.strands
            if s.morph is None and not loaded.stale:
                continue
            points = s.points if s.morph is None else s.morph(units).reshape(s.points.shape)
            data = np.concatenate([points, np.gradient(points, axis=1)], 2).reshape(-1, 6)
            loaded.buffer.write(np.repeat(data, 2, 0).astype("f4").tobytes())
            loaded.stale = False

    def _draw_casters(self, view_projection: Array, bones: Array, *, widen: float, share: float) -> None:
        """Draw what casts shadows into the depth map that is bound; of strands only a share, but wider."""
        self.ctx.enable(moderngl.DEPTH_TEST)
        self.ctx.disable(moderngl.BLEND)
        values = {"bone": _columns(bones), "VP": view_projection.T, "inflate": -0.006}
        _set(self._mesh_depth, values)
        for loaded in self.meshes.values():
            if loaded.part.casts:
                loaded.depth.render()
        # The light is orthographic, so "focal" is the scale of its projection and w is one.
        scale = float(np.linalg.norm(view_projection[0, :3]))
        _set(self._strand_depth, {**values, "focal": scale, "pixel": 0.0, "widen": widen})
        for loaded in self.strands.values():
            if loaded.part.casts:
                n, k = loaded.part.strands.points.shape[:2]
                loaded.depth.render(vertices=int(n * share) * (k - 1) * 6)

    def orthographic_depth(
        self, view_projection: Array, bones: Array, *, widen: float, share: float
    ) -> Array:
        """Window depth [1024, 1024] of the shadow casters, orthographic, bottom row first."""
        self._shadow_target.use()
        self._shadow_target.viewport = (0, 0, SHADOW_SIZE, SHADOW_SIZE)
        self._shadow_target.clear(depth=1.0)
        self._draw_casters(view_projection, bones, widen=widen, share=share)
        return np.frombuffer(self._shadow.read(), np.float32).reshape(SHADOW_SIZE, SHADOW_SIZE)

    def plate(self) -> npt.NDArray[np.uint8]:
        """The background alone, [size, size, 3]."""
        self._target.use()
        self.ctx.viewport = (0, 0, self.width, self.width)
        self.ctx.disable(moderngl.DEPTH_TEST)
        self._background.render()
        return self._read()

    def draw(self, bones: Array, uniforms: dict[str, Any]) -> npt.NDArray[np.uint8]:
        """A picture [size, size, 3] of the uploaded face under bones [3, 4, 4]."""
        camera, ctx = self.camera, self.ctx
        self._shadow_target.use()
        self._shadow_target.viewport = (0, 0, SHADOW_SIZE, SHADOW_SIZE)
        self._shadow_target.clear(depth=1.0)
        self._draw_casters(self._light, bones, widen=1.0, share=1.0)
        self._target.use()
        ctx.viewport = (0, 0, self.width, self.width)
        self._target.clear(depth=1.0)
        self._background.render()
        self._shadow.use(1)
        shared = {
            "bone": _columns(bones),
            "VP": (camera.projection @ camera.view).T,
            "LVP": self._light.T,
            "eye": camera.position,
            "shadow": 1,
            "exposure": EXPOSURE,
            "inflate": 0.0,
            "focal": camera.focal_ndc,
            "pixel": 0.55 / self.width * 2,
            **uniforms,
        }
        for program in (*self._materials.values(), self._strand):
            _set(program, shared)
        for loaded in self.meshes.values():
            if loaded.drawn is not None:
                _set(self._materials[loaded.part.material], loaded.part.uniforms)
                loaded.drawn.render()
        ctx.enable(moderngl.BLEND)
        ctx.blend_func = moderngl.SRC_ALPHA, moderngl.ONE_MINUS_SRC_ALPHA
        for loaded in self.strands.values():
            part: StrandPart = loaded.part
            values = {
                "tint": part.tint,
                "gloss": part.gloss,
                "push": part.push,
                "shaded": float(part.shaded),
                "thin": float(part.thin),
            }
            _set(self._strand, values)
            assert loaded.drawn is not None
            loaded.drawn.render()
        ctx.disable(moderngl.BLEND)
        return self._read()

    def _read(self) -> npt.NDArray[np.uint8]:
        pixels = np.frombuffer(self._target.read(components=3), np.uint8)
        picture = np.ascontiguousarray(pixels.reshape(self.width, self.width, 3)[::-1])
        filtered: npt.NDArray[np.uint8] = picture if self.factor == 1 else box_filter(picture, self.factor)
        return filtered

    def draw_labels(self, bones: Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Label map [size, size] and depth in metres of the uploaded face, both without antialiasing."""
        size = self.camera.size
        self._label_target.use()
        self.ctx.viewport = (0, 0, size, size)
        self._label_target.clear(depth=1.0)
        self.ctx.enable(moderngl.DEPTH_TEST)
        self.ctx.disable(moderngl.BLEND)
        values = {
            "bone": _columns(bones),
            "VP": (self.camera.projection @ self.camera.view).T,
            "inflate": 0.0,
        }
        _set(self._mesh_label, {**values, "jaw_plane": self.jaw_plane})
        for name, loaded in self.meshes.items():
            if loaded.drawn is None:
                continue
            _set(self._mesh_label, {"label": float(loaded.part.label), "is_skin": float(name == "skin")})
            loaded.flat.render()
        flat = {**values, "focal": self.camera.focal_ndc, "pixel": 0.5 / size * 2, "widen": 1.0}
        for loaded in self.strands.values():
            if loaded.part.label is not None:
                _set(self._strand_label, {**flat, "label": float(loaded.part.label)})
                loaded.flat.render()
        pixels = np.frombuffer(self._label_target.read(components=1), np.uint8).reshape(size, size)[::-1]
        window = np.frombuffer(self._label_depth.read(), np.float32).reshape(size, size)[::-1]
        return pixels.copy(), self.camera.depth_metres(window)


def _versioned(source: str) -> str:
    return source if source.lstrip().startswith("#version") else f"#version 330\n{source}"


def _columns(bones: Array) -> Array:
    return np.stack([b.T for b in bones])


def _layout(program: moderngl.Program, fields: tuple[tuple[str, int], ...]) -> tuple[str, list[str]]:
    """Buffer format that skips the fields a program does not use, and the names of the used ones."""
    form = " ".join(f"{size}f" if name in program else f"{size}x4" for name, size in fields)
    return form, [name for name, _ in fields if name in program]


def _set(program: moderngl.Program, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if name not in program:
            continue
        member = program[name]
        if isinstance(value, np.ndarray):
            member.write(np.ascontiguousarray(value, "f4").tobytes())
        else:
            member.value = value
