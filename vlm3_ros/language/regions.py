# SPDX-License-Identifier: Apache-2.0
"""Regions of an image in the words of a data set, as SpatialRGPT names them: `Region [0]`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from numpy.typing import ArrayLike

from vlm3_ros.language.answers import AnswerError
from vlm3_ros.language.free_text import spoken_text
from vlm3_ros.language.templates import PromptError
from vlm3_ros.language.wordings.objects import BOX, ObjectsWording, object_region

REGION = re.compile(r"\bregion ?\[([0-9]{1,3})\]", re.IGNORECASE)

_THAN = re.compile(r"\bthan\b", re.IGNORECASE)


def mentioned_regions(text: str) -> list[int]:
    """Return the numbers of the regions that a text names, each once, in order of appearance."""
    return list(dict.fromkeys(int(number) for number in REGION.findall(text)))


def with_boxes(
    wording: ObjectsWording, text: str, boxes: Sequence[ArrayLike], text_range: int
) -> str:
    """Put boxes in place of the names of regions.

    Args:
        wording: of the checkpoint.
        text: a question or an answer that names regions.
        boxes: (xmin, ymin, xmax, ymax) in text coordinates, of region 0 and so on.
        text_range: of the prompt set.

    Raises:
        PromptError: if a region has no box, or a coordinate does not lie in [0, text_range).
    """

    def region(match: re.Match[str]) -> str:
        number = int(match[1])
        if number >= len(boxes):
            raise PromptError(f"{match[0]} has no box: there are {len(boxes)}")
        return object_region(wording, boxes[number], text_range)

    return REGION.sub(region, text)


def with_names(wording: ObjectsWording, text: str, boxes: Sequence[ArrayLike]) -> str:
    """Put names of regions in place of boxes; the inverse of `with_boxes`.

    Text coordinates that are those of no box stay.
    """
    numbers = {tuple(map(int, box)): number for number, box in reversed(list(enumerate(boxes)))}  # type: ignore[arg-type]

    def name(match: re.Match[str]) -> str:
        number = numbers.get(tuple(map(int, match.groups())))
        return match[0] if number is None else f"Region [{number}]"

    return _box_pattern(wording.region).sub(name, text)


def parse_choice(text: str) -> int:
    """Read which of two regions an answer chooses: the only one that it names.

    Of "Region [1] is taller than Region [0]", the first is chosen.

    Args:
        text: the model's whole text, which names regions.

    Raises:
        AnswerError: if it names no region, or several in another form.
    """
    spoken = spoken_text(text)
    before, than, _ = _split_at_than(spoken)
    named = mentioned_regions(before if than else spoken)
    if not named:
        raise AnswerError(text, "no answer")
    if len(named) > 1:
        raise AnswerError(text, "several answers")
    return named[0]


def _split_at_than(text: str) -> tuple[str, str, str]:
    match = _THAN.search(text)
    return (text[: match.start()], match[0], text[match.end() :]) if match else (text, "", "")


@lru_cache(maxsize=8)
def _box_pattern(region: str) -> re.Pattern[str]:
    """Compile a pattern for the name of an object by its box."""
    parts = re.split("|".join(map(re.escape, BOX)), region)
    spaced = [r"\s*".join(map(re.escape, part.split())) for part in parts]
    return re.compile(r"\s*([0-9]{1,7})\s*".join(spaced), re.IGNORECASE)
