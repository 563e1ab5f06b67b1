# SPDX-License-Identifier: Apache-2.0
"""A chat as tokens, in the way that transformers documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image


def encode_chat(
    processor: Any, images: Sequence[NDArray[np.uint8]], question: str
) -> dict[str, torch.Tensor]:
    """Encode one question about images, up to the beginning of its answer."""
    content = [{"type": "image", "image": Image.fromarray(image)} for image in images]
    return processor.apply_chat_template(
        [{"role": "user", "content": [*content, {"type": "text", "text": question}]}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"images_kwargs": {"do_resize": False}},
    )
