"""Which of MediaPipe's 478 landmarks are what, and outlines made of them.

Indices are those of the face mesh that MediaPipe documents. Left and right are the person's own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]

OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
"""Outline of the face, from the middle of the forehead."""
JAW = (
    *(234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152),
    *(377, 400, 378, 379, 365, 397, 288, 361, 323, 454),
)
"""From the person's right ear round the chin to the left one."""
OUTER_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
CHIN = (152, 148, 377, 176, 400, 150, 379, 172, 397, 18, 200, 199)
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
RIGHT_EYE_AND_BROW = (33, 133, 159, 145, 70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 130, 243, 110, 24, 23, 22)
LEFT_EYE_AND_BROW = (
    *(263, 362, 386, 374, 300, 293, 334, 296, 336, 285, 295, 282, 283, 276, 359, 463, 339, 254, 253, 252),
)

FOREHEAD, CHIN_TIP, NOSE_BASE = 10, 152, 2
RIGHT_LOBE, LEFT_LOBE = 132, 361
RIGHT_BROW, LEFT_BROW = 105, 334
RIGHT_EAR, LEFT_EAR = 234, 454
UPPER_LIP, LOWER_LIP = 13, 14
RIGHT_CORNER, LEFT_CORNER = 78, 308

NAMED = {
    "mouth_left": 61,
    "mouth_right": 291,
    "lip_upper": 13,
    "lip_lower": 14,
    "chin": 152,
    "eye_left": 468,
    "eye_right": 473,
}
"""The studio's names; its left and right are those of the picture. 468 and 473 are the irises."""

MESH = 468
"""Landmarks of the face itself; the irises follow."""


def rigid() -> npt.NDArray[np.int64]:
    """Landmarks that keep their place when the face moves: forehead, nose, temples, cheekbones."""
    return np.array(sorted(set(_RIGID)))


def fill(polygon: FloatArray, size: tuple[int, int]) -> Mask:
    """The inside of a polygon.

    Args:
        polygon: Corners, [P, 2], x and y in pixels; the centre of a pixel is at .5.
        size: Height and width.

    Returns:
        bool [height, width]; pixels whose centre is inside (even-odd rule).
    """
    mask = np.zeros(size, bool)
    top = max(0, int(np.floor(polygon[:, 1].min())))
    bottom = min(size[0], int(np.ceil(polygon[:, 1].max())) + 1)
    if bottom <= top:
        return mask
    start, end = polygon, np.roll(polygon, -1, 0)
    rows = np.arange(top, bottom)[:, None] + 0.5
    crosses = (start[:, 1] <= rows) != (end[:, 1] <= rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (rows - start[:, 1]) / (end[:, 1] - start[:, 1])
        where = np.where(crosses, start[:, 0] + share * (end[:, 0] - start[:, 0]), np.inf)
    # A pixel is inside when an odd number of edges cross its row on its left.
    column = np.clip(np.ceil(where - 0.5), 0, size[1])
    flips = np.zeros((bottom - top, size[1] + 1), np.int32)
    row_of = np.repeat(np.arange(bottom - top), where.shape[1])
    np.add.at(flips, (row_of, column.ravel().astype(np.int64)), crosses.ravel().astype(np.int32))
    mask[top:bottom] = (np.cumsum(flips, 1)[:, :-1] % 2).astype(bool)
    return mask


def hull(points: FloatArray) -> FloatArray:
    """Corners of the convex hull of points [P, 2], against the clock."""
    order = sorted(map(tuple, points.tolist()))

    def half(ordered: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
        chain: list[tuple[float, ...]] = []
        for point in ordered:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
                chain.pop()
            chain.append(point)
        return chain[:-1]

    return np.array(half(order) + half(order[::-1]), np.float32)


def _turn(a: tuple[float, ...], b: tuple[float, ...], c: tuple[float, ...]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


_RIGID = (
    *(168, 6, 197, 195, 5, 4, 1, 8, 9, 151, 10, 122, 351, 196, 419, 3, 248, 51, 281, 45, 275),
    *(
        109,
        338,
        67,
        297,
        103,
        332,
        54,
        284,
        21,
        251,
        162,
        389,
        127,
        356,
        108,
        337,
        69,
        299,
        104,
        333,
        68,
        298,
    ),
    *(71, 301, 139, 368, 34, 264, 143, 372, 156, 383, 116, 345, 123, 352, 227, 447, 234, 454, 93, 323),
    *(117, 346, 118, 347, 50, 280, 101, 330, 188, 412, 174, 399, 236, 456, 198, 420, 131, 360, 193, 417),
    *(245, 465, 244, 464, 128, 357, 114, 343, 47, 277, 126, 355, 100, 329, 121, 350, 111, 340),
)
