"""The checkpoint's own processor, with or without torchvision.

Stock `AutoProcessor` of Qwen3-VL demands torchvision for its video half. Where torchvision is
missing, the same processor is assembled without that half, with the image processor that needs
only PIL.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from transformers import AutoProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from vlm3_ros.geometry.camera import ImageLimits


class ImageOnlyQwen3VLProcessor(Qwen3VLProcessor):
    """Qwen3-VL's processor for chats without videos.

    ProcessorMixin reads the parts that a processor needs from the arguments of its __init__:
    without `video_processor` there, none is asked for.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template)


def load_processor(model: Path | str, local_files_only: bool = True) -> Qwen3VLProcessor:
    """The processor of a checkpoint folder or hub id, which is not fetched unless allowed.

    Raises:
        OSError, ValueError: as `from_pretrained` does.
    """
    if importlib.util.find_spec("torchvision"):
        return AutoProcessor.from_pretrained(model, local_files_only=local_files_only)
    return ImageOnlyQwen3VLProcessor.from_pretrained(
        model, backend="pil", local_files_only=local_files_only
    )


def image_limits(processor: Qwen3VLProcessor) -> ImageLimits:
    """The image sizes that enter the model as they are."""
    image_processor = processor.image_processor
    return ImageLimits(
        multiple=image_processor.patch_size * image_processor.merge_size,
        min_pixels=image_processor.size["shortest_edge"],
        max_pixels=image_processor.size["longest_edge"],
    )
