"""The models that look at the pictures: MediaPipe's face landmarker and person segmenter."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.driving.units import UNIT_INDEX

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

LANDMARKS = 478


class ToolsMissing(RuntimeError):  # noqa: N818 - reads as a statement, like DatasetInvalid
    """A model file or a package that preparing a recording needs is not there; the message says which."""


@dataclass(frozen=True)
class Tools:
    """Where the models are.

    Attributes:
        face_landmarker: The asset `face-landmarker`.
        selfie_segmenter: The asset `selfie-segmenter`.
        encoder: Directory of the asset `whisper-base`, to hear whether lips and sound fit together; without
            it a spectrogram is used.
    """

    face_landmarker: Path
    selfie_segmenter: Path
    encoder: Path | None = None

    def check(self) -> None:
        """Refuses models that are not there.

        Raises:
            ToolsMissing: A file is missing.
        """
        for path in (self.face_landmarker, self.selfie_segmenter, self.encoder):
            if path is not None and not path.exists():
                raise ToolsMissing(f"the model {path.name} is missing")

    def watcher(self, faces: int) -> Watcher:
        """Loads the models that look at pictures, for at most so many faces; use it in `with`.

        Raises:
            ToolsMissing: MediaPipe cannot be loaded.
        """
        return Watcher(self, faces)


@dataclass(frozen=True)
class Face:
    """A face in a picture.

    Attributes:
        points: 478 landmarks, float32 [478, 3]: x, y in pixels, z in the same
            scale, negative towards the viewer.
        units: ARKit face units in the order of the drivers, float32 [52].
        pose: Head frame in centimetres to an OpenGL camera, float32 [4, 4].
    """

    points: FloatArray
    units: FloatArray
    pose: FloatArray

    @property
    def box(self) -> FloatArray:
        """Left, top, right and bottom in pixels."""
        low, high = self.points[:, :2].min(0), self.points[:, :2].max(0)
        return np.concatenate([low, high]).astype(np.float32)


class Watcher:
    """Finds faces and people in pictures; a context manager that frees the models. See `Tools.watcher`."""

    def __init__(self, tools: Tools, faces: int) -> None:
        self._tools, self._faces = tools, faces
        self._stack = ExitStack()
        try:
            import mediapipe  # noqa: PLC0415 - only here, and slow to import
            from mediapipe.tasks.python import BaseOptions, vision  # noqa: PLC0415
        except (ImportError, OSError) as error:
            raise ToolsMissing(
                f"MediaPipe cannot be loaded ({error}); it needs the packages of requirements-train.txt and"
                " the system's libEGL, libGLESv2 and libGL"
            ) from error
        self._mediapipe: Any = mediapipe
        self._vision: Any = vision
        self._base: Any = BaseOptions

    def __enter__(self) -> Watcher:
        vision = self._vision
        self._landmarker = self._stack.enter_context(
            vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(
                    base_options=self._base(model_asset_path=str(self._tools.face_landmarker)),
                    output_face_blendshapes=True,
                    output_facial_transformation_matrixes=True,
                    num_faces=self._faces,
                )
            )
        )
        self._segmenter = self._stack.enter_context(
            vision.ImageSegmenter.create_from_options(
                vision.ImageSegmenterOptions(
                    base_options=self._base(model_asset_path=str(self._tools.selfie_segmenter)),
                    output_confidence_masks=True,
                )
            )
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def faces(self, picture: ByteArray) -> list[Face]:
        """The faces of a picture, uint8 [h, w, 3], the largest first."""
        height, width = picture.shape[:2]
        found = self._landmarker.detect(self._image(picture))
        faces = []
        for landmarks, shapes, pose in zip(
            found.face_landmarks, found.face_blendshapes, found.facial_transformation_matrixes, strict=True
        ):
            points = np.array([(p.x * width, p.y * height, p.z * width) for p in landmarks], np.float32)
            # The landmarker's own `_neutral` is dropped; it does not see the tongue, which stays 0.
            units = np.zeros(len(UNIT_INDEX), np.float32)
            for shape in shapes:
                if shape.category_name in UNIT_INDEX:
                    units[UNIT_INDEX[shape.category_name]] = shape.score
            faces.append(Face(points, units, np.asarray(pose, np.float32)))
        return sorted(faces, key=lambda face: -float(face.box[3] - face.box[1]))

    def person(self, picture: ByteArray) -> ByteArray:
        """How much each pixel belongs to a person, uint8 [h, w]."""
        masks = self._segmenter.segment(self._image(picture)).confidence_masks
        share = np.squeeze(masks[-1].numpy_view())
        alpha: ByteArray = np.round(np.clip(share, 0, 1) * 255).astype(np.uint8)
        return alpha

    def _image(self, picture: ByteArray) -> Any:
        return self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture)
        )
