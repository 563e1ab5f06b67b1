# SPDX-License-Identifier: Apache-2.0
"""Encode images and questions for the model with the checkpoint's own processor.

The stock `AutoProcessor` of Qwen3-VL needs torchvision for its video half. If torchvision is
missing, the same processor is built without that half, with the image processor that needs only
PIL.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.images import check_images
from vlm3_ros.geometry.camera import ImageLimits


class ImageOnlyQwen3VLProcessor(Qwen3VLProcessor):
    """Qwen3-VL's processor for chats without videos.

    ProcessorMixin takes the parts that a processor needs from the arguments of its __init__. With
    no `video_processor` among them, it loads none.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template)


@dataclass(frozen=True)
class EncodedQuestions:
    """Questions about images as tokens: a shared prefix and a suffix for each.

    Attributes:
        prefix: tokens at the beginning of every chat, with all image tokens.
        suffixes: the rest of each chat, at least one token.
        pixel_values: patches of all images, shape (patches, values).
        image_grid_thw: patches of each image in time, height and width, shape (images, 3), int64.
    """

    prefix: list[int]
    suffixes: list[list[int]]
    pixel_values: Tensor
    image_grid_thw: Tensor


def load_processor(model: Path | str, local_files_only: bool = True) -> Qwen3VLProcessor:
    """Load the processor of a checkpoint folder or hub id.

    Args:
        model: folder or hub id.
        local_files_only: whether to forbid a download.

    Raises:
        OSError, ValueError: as `from_pretrained` does.
    """
    if importlib.util.find_spec("torchvision"):
        return AutoProcessor.from_pretrained(model, local_files_only=local_files_only)
    return ImageOnlyQwen3VLProcessor.from_pretrained(
        model, backend="pil", local_files_only=local_files_only
    )


def image_limits(processor: Qwen3VLProcessor) -> ImageLimits:
    """Return the image sizes that the processor does not resize."""
    image_processor = processor.image_processor
    return ImageLimits(
        multiple=image_processor.patch_size * image_processor.merge_size,
        min_pixels=image_processor.size["shortest_edge"],
        max_pixels=image_processor.size["longest_edge"],
    )


def encode_questions(
    processor: Qwen3VLProcessor, images: Sequence[NDArray[np.uint8]], questions: Sequence[str]
) -> EncodedQuestions:
    """Encode one chat per question: the images first, then the question.

    Args:
        images: at least one; RGB, shape (height, width, 3) each, uint8, within `image_limits`.
        questions: at least one.

    Raises:
        EngineError: if an image or a question cannot enter the model unchanged.
    """
    check_images(images, image_limits(processor))
    tokenizer = processor.tokenizer
    chats = [_chat(processor, len(images), question) for question in questions]
    first = processor(
        text=[chats[0]],
        images=[Image.fromarray(image) for image in images],
        images_kwargs={"do_resize": False},
        return_tensors="pt",
    )
    patch = processor.image_processor.patch_size
    expected = [[1, image.shape[0] // patch, image.shape[1] // patch] for image in images]
    if first["image_grid_thw"].tolist() != expected:
        raise EngineError(
            f"the processor made patches of {first['image_grid_thw'].tolist()} from images of "
            f"{expected}: it resized them, and answers would not be metric"
        )
    # No token crosses the end of an image, so the text after the last one can be encoded alone.
    tails = tokenizer(
        [chat.split(processor.vision_end_token, len(images))[-1] for chat in chats],
        add_special_tokens=False,
    )["input_ids"]
    tokens = first["input_ids"][0].tolist()
    head = tokens[: len(tokens) - len(tails[0])]
    if head + tails[0] != tokens or head[-1] != processor.vision_end_token_id:
        raise EngineError("the checkpoint's chat template does not end with images and question")
    shared = min(_common_length(tails), min(map(len, tails)) - 1)
    return EncodedQuestions(
        prefix=head + tails[0][:shared],
        suffixes=[tail[shared:] for tail in tails],
        pixel_values=first["pixel_values"],
        image_grid_thw=first["image_grid_thw"],
    )


def _common_length(sequences: Sequence[list[int]]) -> int:
    """Length of the longest common beginning of all sequences."""
    first, last = min(sequences), max(sequences)
    pairs = zip(first, last, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(first))


def _chat(processor: Qwen3VLProcessor, images: int, question: str) -> str:
    for token in processor.tokenizer.all_special_tokens:
        if token in question:
            raise EngineError(f"a question holds {token!r}, which the model reads as control")
    content: Any = [{"type": "image"}] * images + [{"type": "text", "text": question}]
    chat: str = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    return chat
