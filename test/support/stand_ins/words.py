# SPDX-License-Identifier: Apache-2.0
"""What the stand-ins are asked and answer, in the words of the authors' notebook and labels.

Nothing here comes from the package's prompt sets: the tests compare both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vlm3_ros.geometry.camera import PinholeCamera

Pixel = tuple[float, float]
Box = tuple[int, int, int, int]
Pair = tuple[str, str]
"""A question and its answer."""

CAMERA = PinholeCamera(98, 62, 250.0, 200.0, 48.0, 30.0)
"""Of the images about whose pixels and objects the stand-ins are asked."""

PAIR_CAMERA = PinholeCamera(128, 32, 187.5, 187.5, 63.5, 15.5)
"""Of the two images between which they are asked for motion and matches."""

DEPTH_GRID = (8, 4)
"""Columns and rows of the pixels whose depth they know."""

MATCH_GRID = (4, 3)

DEPTH_QUESTION = (
    "Given this image, how far is the point at coordinates ({x}, {y}) from the camera? The "
    "coordinates are in normalised [0, 2000] format relative to image width and height. Output the "
    "thinking process in <think> </think> and final answer (the meter number only, without the "
    "unit) in <answer> </answer> tags."
)
DEPTH_ANSWER = (
    "<think> The point is around {metres} meters away from the camera. </think>\n"
    "<answer> {metres} </answer>"
)

ANGLE = (
    "Given these two images captured from different viewpoints, what is the relative rotation "
    "angle (in degrees) between the two camera poses?",
    "Rotation angle: 4.0 degrees",
)
ROTATION = (
    "Treating the first image as the reference viewpoint, describe the camera's reorientation "
    "needed to reach the second image's viewpoint as yaw, pitch and roll about the first camera's "
    "local axes, applied intrinsically in the order yaw -> pitch -> roll.  Conventions: yaw is "
    "rotation about the vertical (down) axis, positive = turn right; pitch is about the lateral "
    "(right) axis after yaw, positive = look up; roll is about the optical (forward) axis after "
    "yaw and pitch, positive = bank to the right (image content rotates clockwise from the "
    "operator's POV).",
    "Yaw=-3.9°, Pitch=-0.9°, Roll=+0.6°",
)
DIRECTION = (
    "Where did the camera move, expressed in the first camera's local frame (X right, Y down, Z "
    "forward)?  Give a qualitative direction and the precise unit direction vector (x, y, z).",
    "The camera moves right, forward, unit vector (+0.60, +0.00, +0.80).",
)
DISTANCE = (
    "Estimate the magnitude of the camera translation between the two viewpoints.",
    "Translation distance: 0.48 meters",
)

MATCH_QUESTION = (
    "Given these two images, what pixel in the second image corresponds to pixel ({x}, {y}) in the "
    "first image? Report the answer as (x, y)."
)
THINKING = (
    ' Please think step by step and follow the format: "<think> [think process] </think>'
    '\n\n[answer]".'
)
MATCH_ANSWER = "({x}, {y})"
MATCHED_X = {121: 74, 371: 342, 621: 617, 871: 899}
MATCHED_Y = {151: 25, 484: 393, 818: 760}
"""Matches of MATCH_GRID on a wall 4 m away after this motion, in text coordinates."""
THOUGHT = "<think> The pixel ({x1}, {y1}) moves by ({right}, {down}). </think>\n\n"

BOX_A: Box = (10, 10, 38, 48)
BOX_B: Box = (51, 5, 84, 39)
"""(left, top, right, bottom), px of CAMERA."""

REGION_A = "bounding box region (102, 161, 388, 774)"
REGION_B = "bounding box region (520, 81, 857, 629)"

OBJECT_PAIRS: tuple[Pair, ...] = (
    ("Is {a} below {b}?", "Yes, {a} is below {b}."),
    ("Is {a} to the left of {b} from the viewer's perspective?", "Indeed, it is."),
    ("Is {a} bigger than {b}?", "Incorrect, {a} is not larger than {b}."),
    ("Is {a} smaller than {b}?", "Correct, {a} occupies less space than {b}."),
    ("Is {a} taller than {b}?", "No, {a} is not taller than {b}."),
    ("Is {a} wider than {b}?", "Actually, no."),
    ("Is {a} behind {b}?", "No."),
    ("Is {a} in front of {b}?", "That is True."),
    ("What is the distance between {a} and {b}?", "{a} and {b} are 1.42 meters apart."),
    ("What is the horizontal distance between {a} and {b}?", "They are 41.34 inches apart."),
    ("What is the vertical distance between {a} and {b}?", "It is approximately 0.31 meters."),
    ("What is the width of {a}?", "{a} is 2.31 feet wide."),
    ("What is the width of {b}?", "It is 88.50 centimeters."),
    ("What is the height of {a}?", "The height of {a} is 0.97 meters."),
    ("What is the height of {b}?", "It is 3.25 feet."),
    ("If you are at {a}, where will you find {b}?", "{b} is roughly at 2 o'clock from {a}."),
)
OBJECT_VALUES = (
    *(True, True, False, True, False, False, False, True),
    *(1.42, 41.34 * 0.0254, 0.31, 2.31 * 0.3048, 0.885, 0.97, 3.25 * 0.3048, 2),
)
"""Meaning of each answer of OBJECT_PAIRS: whether it holds, metres, or the hour."""


@dataclass(frozen=True)
class Lesson:
    """What a stand-in is taught about images of the sizes (width, height) at which they enter."""

    sizes: tuple[tuple[int, int], ...]
    pairs: tuple[Pair, ...]


def depth_metres(x: int, y: int) -> str:
    """The depth that is answered at text coordinates; it changes with each of their last digits."""
    return f"{y // 100}.{x // 100 % 10}{(x // 10 + y // 10) % 10}"


def depth_pair(x: int, y: int) -> Pair:
    """Question and answer at text coordinates."""
    answer = DEPTH_ANSWER.replace("{metres}", depth_metres(x, y))
    return DEPTH_QUESTION.format(x=x, y=y), answer


def match_pair(x: int, y: int, thinking: bool = False) -> Pair:
    """Question and answer at text coordinates."""
    x2, y2 = MATCHED_X.get(x, 500), MATCHED_Y.get(y, 500)
    answer = MATCH_ANSWER.format(x=x2, y=y2)
    question = MATCH_QUESTION.format(x=x, y=y)
    if not thinking:
        return question, answer
    thought = THOUGHT.format(x1=x, y1=y, right=x2 - x, down=y2 - y)
    return question + THINKING, thought + answer


def object_pair(template: Pair) -> Pair:
    """One of OBJECT_PAIRS about the two boxes."""
    question, answer = (text.replace("{a}", REGION_A).replace("{b}", REGION_B) for text in template)
    return question, answer


def lessons() -> list[Lesson]:
    """All that is taught.

    It includes coordinates that the package would name if it rounded otherwise than the authors,
    with other answers.
    """
    pixels, corners = list(grid(CAMERA, *DEPTH_GRID)), list(grid(PAIR_CAMERA, *MATCH_GRID))
    right = [as_the_authors(pixel, PAIR_CAMERA, 1000) for pixel in corners]
    wrong = [as_the_paper(pixel, PAIR_CAMERA, 1000) for pixel in corners]
    return [
        Lesson(
            ((384, 320),),
            tuple(
                depth_pair(*rounded(pixel, CAMERA, 2000))
                for rounded in (as_the_authors, as_the_paper)
                for pixel in pixels
            ),
        ),
        Lesson(((512, 128),) * 2, (ANGLE, ROTATION, DIRECTION, DISTANCE)),
        Lesson(
            ((1024, 256),) * 2,
            (
                *(match_pair(*xy) for xy in (*right, *wrong)),
                *(match_pair(*xy, thinking=True) for xy in right),
            ),
        ),
        Lesson(((384, 256),), tuple(map(object_pair, OBJECT_PAIRS))),
    ]


def grid(camera: PinholeCamera, columns: int, rows: int) -> Iterator[Pixel]:
    """Centres of the cells of a grid, row by row, px."""
    width, height = camera.width / columns, camera.height / rows
    for row in range(rows):
        for column in range(columns):
            yield (column + 0.5) * width - 0.5, (row + 0.5) * height - 0.5


def as_the_authors(pixel: Pixel, camera: PinholeCamera, text_range: int) -> tuple[int, int]:
    """Text coordinates of a pixel as in the authors' notebook."""
    u, v = pixel
    return round(u / camera.width * text_range), round(v / camera.height * text_range)


def as_the_paper(pixel: Pixel, camera: PinholeCamera, text_range: int) -> tuple[int, int]:
    """Text coordinates of a pixel rounded down at its centre, which the authors do not do."""
    u, v = pixel
    return int((u + 0.5) / camera.width * text_range), int((v + 0.5) / camera.height * text_range)
