# SPDX-License-Identifier: Apache-2.0
"""What the model reads: the prefix of all questions, then chunks of questions and their answers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from vlm3_ros.engines import cascade
from vlm3_ros.engines.processor import EncodedQuestions
from vlm3_ros.engines.question_tree import question_tree


@dataclass(frozen=True)
class Prefix:
    """The computed prefix of all questions.

    Attributes:
        layers: keys and values of each layer, shape (1, key heads, tokens, head size).
        next_position: position of the first token after it. Not the number of its tokens: M-RoPE
            gives an image fewer positions than tokens.
    """

    layers: list[tuple[Tensor, Tensor]]
    next_position: int


def read_prefix(model: PreTrainedModel, encoded: EncodedQuestions) -> Prefix:
    """Compute the shared prefix of the questions."""
    device, grid = model.device, encoded.image_grid_thw
    ids = torch.tensor([encoded.prefix])
    types = (ids == model.config.image_token_id).int()
    # Pass positions explicitly: the model's stored ones are those of another call.
    positions, _ = model.model.get_rope_index(ids, mm_token_type_ids=types, image_grid_thw=grid)
    cache = DynamicCache(config=model.config)
    model.model(
        input_ids=ids.to(device),
        mm_token_type_ids=types.to(device),
        pixel_values=encoded.pixel_values.to(device, model.dtype),
        image_grid_thw=grid.to(device),
        position_ids=positions.to(device),
        **cache_argument(model, cache),
        use_cache=True,
    )
    layers: list[Any] = cache.layers
    return Prefix(
        layers=[(layer.keys, layer.values) for layer in layers],
        next_position=int(positions.max()) + 1,
    )


class Chunk:
    """Questions that are answered together after a prefix."""

    def __init__(
        self,
        model: PreTrainedModel,
        prefix: Prefix,
        questions: Sequence[list[int]],
        attend_prefix: cascade.PrefixAttention,
    ) -> None:
        """Start without reading.

        Args:
            model: within `cascade_attention`.
            prefix: of all questions.
            questions: tokens of each, in ascending order to share the most work.
            attend_prefix: computes attention to the prefix.
        """
        self._model = model
        self._first_position = prefix.next_position
        self._questions = questions
        self._lengths = np.array([len(question) for question in questions])
        self._cascade = cascade.Cascade(prefix.layers, len(questions), attend_prefix)

    def read_questions(self) -> Tensor:
        """Read all questions; return the hidden state of each last token, shape (n, size)."""
        tree = question_tree(self._questions)
        visible = np.arange(self._lengths.max()) <= tree.slots[:, None]
        self._cascade.place(tree.questions, tree.places, visible)
        hidden = self._step(tree.tokens, tree.slots)
        return hidden[torch.from_numpy(tree.last).to(hidden.device)]

    def read_answers(
        self,
        questions: NDArray[np.int64],
        tokens: NDArray[np.int64],
        paths: NDArray[np.int64],
    ) -> Tensor:
        """Read decoded tokens of answers.

        Args:
            questions: question of each token, ascending, shape (n,).
            tokens: ids, shape (n,).
            paths: indices of the question's decoded tokens that lead to each, its own last, shape
                (n, steps). The token attends to these.

        Returns:
            The hidden state of each token, shape (n, size).
        """
        paths = self._lengths[questions, None] + paths
        slots = paths[:, -1]
        visible = np.arange(slots.max() + 1) < self._lengths[questions, None]
        np.put_along_axis(visible, paths, True, axis=1)
        places = np.stack([np.arange(len(tokens)), questions, slots])
        self._cascade.place(questions, places, visible)
        return self._step(tokens, self._lengths[questions] + paths.shape[1] - 1)

    def _step(self, tokens: NDArray[np.int64], places: NDArray[np.int64]) -> Tensor:
        """Read placed tokens; `places` count from the end of the prefix."""
        device = self._model.device
        ids, positions = cascade.to_device(device, tokens, self._first_position + places)
        output = self._model.model(
            input_ids=ids[None],
            position_ids=positions.expand(3, 1, -1),  # text: same time, height and width
            use_cache=False,
            cascade=self._cascade,
        )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden


def cache_argument(model: PreTrainedModel, cache: DynamicCache) -> dict[str, DynamicCache]:
    """Keyword argument that gives a model its cache; transformers 5.24 renamed it."""
    parameters = inspect.signature(model.model.forward).parameters
    return {"cache" if "cache" in parameters else "past_key_values": cache}


@contextmanager
def cascade_attention(model: PreTrainedModel) -> Iterator[None]:
    """Use the cascade in the language half of a model within the `with` block."""
    usual = model.config.text_config._attn_implementation
    model.set_attn_implementation({"text_config": cascade.ATTENTION})
    try:
        yield
    finally:
        model.set_attn_implementation({"text_config": usual})
