# SPDX-License-Identifier: Apache-2.0
"""What enters the processors of Qwen3-VL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor


@dataclass
class Seen:
    """Images and questions that entered any processor.

    `sizes`: (width, height) of the images of each call, px.
    """

    sizes: set[tuple[tuple[int, int], ...]] = field(default_factory=set)
    questions: set[str] = field(default_factory=set)


def watch(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Record what enters all processors, which still do their work."""
    seen = Seen()
    process, chat = Qwen3VLProcessor.__call__, Qwen3VLProcessor.apply_chat_template

    def recorded_call(self: Any, images: Any = None, text: Any = None, **options: Any) -> Any:
        if images is not None:
            seen.sizes.add(tuple(image.size for image in images))
        return process(self, images=images, text=text, **options)

    def recorded_chat(self: Any, conversation: Any, **options: Any) -> Any:
        seen.questions.add(conversation[0]["content"][-1]["text"])
        return chat(self, conversation, **options)

    monkeypatch.setattr(Qwen3VLProcessor, "__call__", recorded_call)
    monkeypatch.setattr(Qwen3VLProcessor, "apply_chat_template", recorded_chat)
    return seen
