# SPDX-License-Identifier: Apache-2.0
"""Questions about objects in the formats of SpatialRGPT: its benchmark and its training set.

Both are JSON: an array of entries, or one entry per line. An entry is an image with one question
or several.

SpatialRGPT-Bench (`SpatialRGPT-Bench_v1.json`, 1,406 questions about images of Omni3D):

- `id`: a name.
- `image_info`: `file_path` of the image relative to a folder, `height`, `width`; `K` (3 x 3), the
  intrinsic matrix, is used if it is there.
- `text_q`: the question, which names objects as `Region [0]` and so on.
- `conversations`: turns `{from, value}`, the question and its answer in turn; the question names
  objects as `<mask>`.
- `bbox`: [[x1, y1, x2, y2], ...] in px; `rle`: masks, not used.
- `qa_info`: `type` ("qualitative" or "quantitative") and `category`, such as `left_predicate`,
  `tall_choice`, `width_data` or `direction`.

OpenSpatialDataset (`result_10_depth_convs.json`, 909,419 images of Open Images, 32 GB):

- `filename`: of the image, without `.jpg`.
- `conversations`: about ten questions and answers. Questions name objects as `<mask> <depth>`,
  answers as `Region [n]`.
- `bbox`, `rle`: one entry per `<mask>`, in order, over all questions of the image.

The n-th `<mask>` of all questions is the n-th box. `Region [n]` is the n-th `<mask>` of its own
question; in a question without masks, the n-th box. Boxes are cut off at the image, as SpatialRGPT
does.

Sources: https://github.com/AnjieCheng/SpatialRGPT: llava/eval/eval_spatial.py reads the benchmark
(id, image_info, text_q, conversations, bbox, rle, qa_info), llava/data/dataset.py and
llava/mm_utils.py the training set (filename, conversations, rle, segmentation, bbox), and
dataset_pipeline/osdsynth/processor has the templates and the names of the categories. Neither
reads what `Region [n]` of an answer counts: that it starts anew with every question, and that
there is a box per mask, is told by users who looked at the file (kasohrab/theworld,
docs/spatial-bbox-correspondence.md). Not verified: whether image_info holds K (images of Omni3D
have it), and whether a category exists that the pipeline does not make.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from vlm3_ros.datasets.files import read_image
from vlm3_ros.datasets.json_entries import JsonEntries, open_entries
from vlm3_ros.datasets.omissions import Omissions
from vlm3_ros.datasets.photo_cameras import ADVICE, PhotoCameras
from vlm3_ros.datasets.source import Contents, FrameSource
from vlm3_ros.datasets.views import Conversation, View
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.camera import GeometryError
from vlm3_ros.geometry.text_coordinates import box_in_image
from vlm3_ros.language.regions import mentioned_regions
from vlm3_ros.language.wordings.objects import RELATIONS, SIZES
from vlm3_ros.tasks.conversations import RegionQuestion
from vlm3_ros.tasks.objects import Box, Direction, Quantity, Question, Relation

QUANTITY_CATEGORIES = {
    "distance_data": "direct_distance",
    "horizontal_distance_data": "horizontal_distance",
    "vertical_distance_data": "vertical_distance",
    "width_data": "width",
    "height_data": "height",
}

_MASK = re.compile(r"<mask>(?:\s*<depth>)?")
_OTHER_TAGS = re.compile(r"\s*<(?:image|depth)>\s*")


class SpatialRgptFile(FrameSource):
    """A file of one of SpatialRGPT's formats. `omissions`: questions left out by `read` so far."""

    has_conversations = True

    def __init__(self, entries: JsonEntries, images: Path, cameras: PhotoCameras):
        self.name, self.notes, self.omissions = str(entries.path), [], Omissions()
        self._entries, self._images, self._cameras = entries, images, cameras
        nothing = np.zeros(len(entries), bool)
        self.contents = Contents(nothing, nothing, ~nothing, nothing)

    @override
    def read(self, index: int) -> View:
        entry, where = self._entries.read(index), self._entries.name(index)
        try:
            name, size = _image_of(entry)
            image = read_image(self._images / name)
            height, width = image.shape[:2]
            if size is not None and size != (width, height):
                raise ValueError(
                    f"{self._images / name} has {width}x{height} px, and the entry is about "
                    f"{size[0]}x{size[1]} px"
                )
            camera = self._cameras.camera(name, image, _matrix_of(entry))
            conversations = tuple(self._conversations(entry, (width, height), where))
        except (DatasetError, ValueError, TypeError, KeyError, AttributeError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else error
            raise DatasetError(f"{where}: {reason}") from error
        folder = name.partition("/")[0] if "/" in name else ""
        return View(
            image,
            np.full((height, width), np.nan, np.float32),
            camera,
            np.full((4, 4), np.nan),
            folder,
            conversations=conversations,
        )

    @override
    def frame_name(self, index: int) -> str:
        return f"entry {index + 1}"

    def _conversations(
        self, entry: dict[str, Any], size: tuple[int, int], where: str
    ) -> Iterator[Conversation]:
        """Read the questions of an entry that can be asked; count the others."""
        turns = _literal(entry["conversations"])
        boxes = _literal(entry["bbox"])
        category = str(_literal(entry.get("qa_info") or {}).get("category", ""))
        questions = [_named_regions(asked["value"]) for asked in turns[::2]]
        if sum(masks for _, masks in questions) > len(boxes):
            boxes = []  # which one is missing is not known
        used = 0
        for (question, masks), answered in zip(questions, turns[1::2], strict=False):
            if not masks and not mentioned_regions(question) and len(turns) == 2:
                question = str(entry.get("text_q", ""))
            own = boxes[used : used + masks] if masks else boxes
            used += masks
            try:
                yield _conversation(question, _plain(answered["value"]), own, size, category)
            except _UnusableError as error:
                self.omissions.add(error.reason, f"{where}{error.detail}")
                self.notes[:] = [f"questions left out: {self.omissions}"]


def read_spatialrgpt(
    path: Path, images: Path | None = None, cameras: PhotoCameras | None = None
) -> SpatialRgptFile:
    """Open a file of one of SpatialRGPT's formats.

    Args:
        path: the file.
        images: folder of the images; None for that of the file.
        cameras: of images for which the file has no intrinsics.

    Raises:
        DatasetError: if it cannot be read, is of another format, or nothing tells the cameras.
    """
    entries = open_entries(path)
    folder = path.parent if images is None else images
    if not folder.is_dir():
        raise DatasetError(f"{folder}: there is no such folder of images")
    cameras = cameras or PhotoCameras()
    first = entries.read(0)
    if "conversations" not in first or not first.keys() & {"image_info", "filename"}:
        raise DatasetError(
            f"{entries.name(0)}: it is neither of SpatialRGPT-Bench (image_info, conversations) "
            "nor of OpenSpatialDataset (filename, conversations)"
        )
    try:
        has_matrix = _matrix_of(first) is not None
    except (ValueError, AttributeError) as error:
        raise DatasetError(f"{entries.name(0)}: {error}") from error
    if not cameras.knows_all and not has_matrix:
        raise DatasetError(f"{entries.name(0)}: {ADVICE}")
    return SpatialRgptFile(entries, folder, cameras)


def meaning_of(category: str, regions: Sequence[Box]) -> tuple[Question | None, bool]:
    """Return what a category of the benchmark asks, and whether it is a choice.

    Args:
        category: such as "left_predicate".
        regions: boxes of the objects, in the order in which the question names them.

    Returns:
        The question, None if the category is unknown or needs another number of objects. Of a
        choice: the relation that holds of the chosen one, if that is the first.
    """
    relation, _, form = category.rpartition("_")
    quantity = QUANTITY_CATEGORIES.get(category, "")
    if len(regions) == 2:
        a, b = regions
        if relation in RELATIONS and form in ("predicate", "choice"):
            return Relation(relation, a, b), form == "choice"
        if category == "direction":
            return Direction(a, b), False
        if quantity and quantity not in SIZES:
            return Quantity(quantity, a, b), False
    elif len(regions) == 1 and quantity in SIZES:
        return Quantity(quantity, regions[0]), False
    return None, False


def conversation_of(
    question: str, answer: str, boxes: Sequence[Any], size: tuple[int, int], category: str
) -> Conversation:
    """Read a question that names objects as `<mask>`, and its answer.

    Args:
        question, answer: in the words of the benchmark.
        boxes: [x1, y1, x2, y2] of the masks, px.
        size: width and height of the image.
        category: see `meaning_of`.

    Raises:
        ValueError: with the reason for which it cannot be asked.
    """
    try:
        return _conversation(_named_regions(question)[0], _plain(answer), boxes, size, category)
    except _UnusableError as error:
        raise ValueError(f"{error.reason}{error.detail}") from error


class _UnusableError(Exception):
    """A question that cannot be asked: the reason, the same for all of a kind, and a detail."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.reason, self.detail = reason, detail and f": {detail}"


def _conversation(
    question: str, answer: str, boxes: Sequence[Any], size: tuple[int, int], category: str
) -> Conversation:
    """Check a question and its answer.

    Raises:
        _UnusableError: with the reason for which it cannot be asked.
    """
    named = mentioned_regions(question)
    if not named:
        raise _UnusableError("the question names no region (<mask> or Region [n])", question)
    if max(named) >= len(boxes):
        raise _UnusableError("the question names more regions than there are boxes", question)
    if set(mentioned_regions(answer)) - set(named):
        raise _UnusableError("the answer names a region that the question does not", answer)
    if not answer:
        raise _UnusableError("the answer is empty", question)
    whole = [(0.0, 0.0, 0.0, 0.0)] * len(boxes)
    for number in named:
        whole[number] = _box(boxes[number], size)
    meaning, is_choice = meaning_of(category, [whole[number] for number in named])
    asked = RegionQuestion(question, tuple(whole), category, meaning, is_choice)
    return Conversation(asked, answer)


def _box(box: Any, size: tuple[int, int]) -> Box:
    try:
        corners = box_in_image(box, *size).ravel().tolist()
    except (GeometryError, ValueError, TypeError) as error:
        is_outside = isinstance(error, GeometryError) and "outside" in str(error)
        where = "outside of its image" if is_outside else "no [x1, y1, x2, y2] with x1 <= x2"
        raise _UnusableError(f"a box is {where}", str(box)) from error
    left, top, right, bottom = corners
    return left, top, right, bottom


def _named_regions(text: Any) -> tuple[str, int]:
    """Name the masks of a question as regions; also return how many there are."""
    parts = _MASK.split(_checked_text(text))
    names = [f"Region [{number}]" for number in range(len(parts) - 1)]
    named = "".join(part + name for part, name in zip(parts, [*names, ""], strict=True))
    return _plain(named), len(names)


def _plain(text: Any) -> str:
    """Remove the marks of images and of depth."""
    return _OTHER_TAGS.sub(" ", _checked_text(text)).strip()


def _checked_text(text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError(f"a turn is {text!r}, not a text")
    return text


def _image_of(entry: dict[str, Any]) -> tuple[str, tuple[int, int] | None]:
    """Path of the image, and its width and height where the entry tells them."""
    if "image_info" in entry:
        info = _literal(entry["image_info"])
        size = (
            (int(info["width"]), int(info["height"])) if {"width", "height"} <= set(info) else None
        )
        return str(info["file_path"]).lstrip("/"), size
    masks = entry.get("rle") or [{}]
    height, width = masks[0].get("size", (0, 0))
    return f"{entry['filename']}.jpg", (int(width), int(height)) if width else None


def _matrix_of(entry: dict[str, Any]) -> Any:
    """Intrinsic matrix that the entry holds; None without one."""
    return _literal(entry.get("image_info") or {}).get("K")


def _literal(value: Any) -> Any:
    """Read a value that the Hub's tables hold as text, in JSON or as Python prints it."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        pass
    try:
        return ast.literal_eval(value)
    except SyntaxError as error:
        raise ValueError(f"{value!r} is neither JSON nor a value of Python") from error
