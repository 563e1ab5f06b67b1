# SPDX-License-Identifier: Apache-2.0
"""How many questions fit into memory at the same time."""

from __future__ import annotations

from dataclasses import dataclass

MAX_CHUNK = 256
"""Questions that keep any device busy: more at a time would only take more memory."""

MEMORY_SHARE = 0.5
"""Of the free memory, what answers may take: the estimate is rough, and others need some, too."""


@dataclass(frozen=True)
class TextSizes:
    """What a language model's memory depends on.

    Attributes:
        itemsize: bytes of a number in its dtype.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    itemsize: int

    @property
    def key_value_bytes(self) -> int:
        """Bytes of a token's keys and values."""
        return 2 * self.layers * self.key_heads * self.head_size * self.itemsize

    def question_bytes(self, tokens: int, prefix: int) -> int:
        """Bytes that one question takes while it is answered, about.

        Args:
            tokens: of the question and its answer.
            prefix: tokens of the prefix whose scores are held all at once; 0 for fused attention.
        """
        # Room for more tokens is made by copying, so keys and values are there twice for a while.
        kept = 2 * tokens * self.key_value_bytes
        # One layer at a time: what enters and leaves attention, and the gate, the up and the
        # product of its MLP, in float32 where softmax is taken.
        attention = 6 * self.heads * self.head_size + 4 * self.hidden
        passing = tokens * max(attention, 3 * self.intermediate) * self.itemsize
        scores = 2 * self.heads * tokens * (tokens + prefix) * 4
        return kept + passing + scores + self.vocabulary * (self.itemsize + 4)


def chunk_size(free_bytes: int, question_bytes: int) -> int:
    """Questions to answer at the same time, 1 to MAX_CHUNK.

    Args:
        free_bytes: on the device.
        question_bytes: that each takes.
    """
    return max(1, min(MAX_CHUNK, int(free_bytes * MEMORY_SHARE) // question_bytes))
