# SPDX-License-Identifier: Apache-2.0
"""Number of questions that fit into memory at the same time."""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_CHUNK = 256
"""Questions that keep any device busy; more at a time would only take more memory."""

MEMORY_SHARE = 0.5
"""Share of the free memory for answers: the estimate is rough, and other programs need memory."""


@dataclass(frozen=True)
class TextSizes:
    """Sizes of a language model that its memory use depends on.

    Attributes:
        itemsize: bytes per number in its dtype.
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
        """Bytes of the keys and values of one token."""
        return 2 * self.layers * self.key_heads * self.head_size * self.itemsize

    def question_bytes(self, tokens: int, prefix: int) -> int:
        """Return an estimate of the bytes that one question takes while it is answered.

        Args:
            tokens: of the question and its answer.
            prefix: tokens of the prefix whose scores exist all at once; 0 for fused attention.
        """
        # Keys and values grow by copying, so they exist twice for a moment.
        kept = 2 * tokens * self.key_value_bytes
        # One layer at a time: inputs and outputs of attention; gate, up projection and product of
        # the MLP. Scores are float32.
        attention = 6 * self.heads * self.head_size + 4 * self.hidden
        passing = tokens * max(attention, 3 * self.intermediate) * self.itemsize
        scores = 2 * self.heads * tokens * (tokens + prefix) * 4
        return kept + passing + scores + self.vocabulary * (self.itemsize + 4)


def chunk_size(free_bytes: int, question_bytes: int) -> int:
    """Return the number of questions to answer at the same time, 1 to MAX_CHUNK.

    Args:
        free_bytes: free memory of the device.
        question_bytes: memory that each question takes.
    """
    return max(1, min(MAX_CHUNK, int(free_bytes * MEMORY_SHARE) // question_bytes))


def balanced(questions: int, most: int) -> int:
    """Return the size of the first chunk when questions are split into equal, few chunks.

    Args:
        questions: to answer, at least one.
        most: questions that can be answered at the same time.
    """
    return math.ceil(questions / math.ceil(questions / most))
