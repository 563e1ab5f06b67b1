# SPDX-License-Identifier: Apache-2.0
"""Over-fit a narrow model to the lessons, on the CPU in about a minute."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen3VLForConditionalGeneration

from stand_ins.checkpoint import (
    END,
    IMAGE,
    VIDEO,
    VISION_END,
    VISION_START,
    VOCABULARY,
    narrow_config,
    qwen3_vl_processor,
)
from stand_ins.words import Lesson
from vlm3_lab.training.packing import (
    IGNORE,
    PACKED_ATTENTION,
    PackedSample,
    Packer,
    packed_hidden,
)

WARM_UP, COOLED_DOWN, MAX_STEPS = 20, 200, 400
"""Steps at which the learning rate is highest, lowest, and at which learning has failed."""
FIRST_CHECK, CHECK_EVERY = 120, 10
QUESTIONS = 8
"""Of each lesson in a step."""
LEARNING_RATE, LOWEST = 4e-3, 0.05
CONFIDENT = 0.01
"""Mean cross entropy of the answers at which training ends, nats per token."""


def overfit(
    tokenizer: Qwen2Tokenizer, lessons: list[Lesson], seed: int = 0
) -> Qwen3VLForConditionalGeneration:
    """Return a model that answers the questions of all lessons, whatever the images show.

    It trains with the tokens that occur, and gets the whole vocabulary after that: the embeddings
    of all other tokens are zero, so that their share in the softmax is known.
    """
    packer = Packer(qwen3_vl_processor(tokenizer))
    rng = np.random.default_rng(seed)
    samples = [_packed(packer, lesson, rng) for lesson in lessons]
    used = _used_tokens(samples)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _untrained(used)
        courses = [_Course(model, packer, sample, used, rng) for sample in samples]
        _train(model, courses)
    return _with_all_tokens(model, used)


def _packed(packer: Packer, lesson: Lesson, rng: np.random.Generator) -> PackedSample:
    images = [
        np.kron(rng.integers(0, 256, (height // 16, width // 16, 3)), np.ones((16, 16, 1)))
        for width, height in lesson.sizes
    ]
    return packer.pack([image.astype(np.uint8) for image in images], lesson.pairs)


def _used_tokens(samples: list[PackedSample]) -> NDArray[np.int64]:
    """All tokens that occur, in ascending order."""
    texts = [part for sample in samples for part in (sample.prefix_ids, *sample.blocks)]
    special = [END, IMAGE, VIDEO, VISION_START, VISION_END]
    return np.unique(np.concatenate([*texts, special]))


def _untrained(used: NDArray[np.int64]) -> Qwen3VLForConditionalGeneration:
    """Build a model whose vocabulary is the used tokens."""
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    ids = np.searchsorted(used, (VISION_START, VISION_END, IMAGE, VIDEO)).tolist()
    config = narrow_config(len(used), **dict(zip(names, ids, strict=True)))
    model = Qwen3VLForConditionalGeneration(config)
    model.set_attn_implementation(PACKED_ATTENTION)
    vision = model.model.visual.requires_grad_(False)
    with torch.no_grad():
        model.model.language_model.embed_tokens.weight.normal_(0, 0.1)
        # All image tokens resemble one vector, so that the words hardly depend on the image.
        for merger in (vision.merger, *vision.deepstack_merger_list):
            merger.linear_fc2.weight.mul_(0.2)
        vision.merger.linear_fc2.bias.normal_(0, 0.3)
    return model


@dataclass
class _Course:
    """A lesson, drawn from in random order. The vision half does not train: it runs once."""

    model: Qwen3VLForConditionalGeneration
    packer: Packer
    sample: PackedSample
    used: NDArray[np.int64]
    rng: np.random.Generator

    def __post_init__(self) -> None:
        pixels = self.packer.collate([self.sample])["pixel_values"].flatten(1)
        with torch.no_grad():
            self._features: Any = self.model.model.get_image_features(
                pixels, self.sample.image_grid_thw, return_dict=True
            )
        self._order = self._shuffled()

    def losses(self, chosen: list[int]) -> tuple[Tensor, int]:
        """Cross entropy of the chosen answers' tokens, and how many of these are not likeliest."""
        sample = replace(
            self.sample,
            blocks=tuple(self.sample.blocks[i] for i in chosen),
            labels=tuple(self.sample.labels[i] for i in chosen),
        )
        batch = self.packer.collate([sample])
        batch["input_ids"] = self._own_ids(batch["input_ids"])
        self.model.model.get_image_features = lambda *args, **kwargs: self._features
        hidden = packed_hidden(self.model, batch)
        labels = batch["labels"][:, 1:]
        answered = labels != IGNORE
        logits = self.model.lm_head(hidden[:, :-1][answered])
        # The tokens that do not occur have a logit of 0 each.
        others = torch.full_like(logits[:, :1], math.log(VOCABULARY - len(self.used)))
        logits = torch.cat([logits, others], dim=1)
        targets = self._own_ids(labels[answered])
        wrong = int((logits.argmax(1) != targets).sum())
        return torch.nn.functional.cross_entropy(logits, targets), wrong

    def next_questions(self) -> list[int]:
        """Draw the questions of a step; all are drawn equally often."""
        return [next(self._order) for _ in range(min(QUESTIONS, len(self.sample.blocks)))]

    def is_learned(self) -> bool:
        """Whether every token of every answer is the likeliest by far."""
        with torch.no_grad():
            loss, wrong = self.losses(list(range(len(self.sample.blocks))))
        return not wrong and loss.item() < CONFIDENT

    def _shuffled(self) -> Iterator[int]:
        while True:
            yield from self.rng.permutation(len(self.sample.blocks)).tolist()

    def _own_ids(self, tokens: Tensor) -> Tensor:
        return torch.from_numpy(np.searchsorted(self.used, tokens.numpy()))


def _train(model: Qwen3VLForConditionalGeneration, courses: list[_Course]) -> None:
    """Train until all is learned."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARM_UP, max(LOWEST, 1 - step / COOLED_DOWN))
    )
    for step in range(1, MAX_STEPS + 1):
        for course in courses:
            loss, _ = course.losses(course.next_questions())
            loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        is_checked = step >= FIRST_CHECK and step % CHECK_EVERY == 0
        if is_checked and all(course.is_learned() for course in courses):
            return
    raise AssertionError(f"the lessons are not learned after {MAX_STEPS} steps")


def _with_all_tokens(
    model: Qwen3VLForConditionalGeneration, used: NDArray[np.int64]
) -> Qwen3VLForConditionalGeneration:
    """Return the model with the real vocabulary."""
    state = model.state_dict()
    own = state.pop("model.language_model.embed_tokens.weight")
    state.pop("lm_head.weight")  # tied
    whole = Qwen3VLForConditionalGeneration(narrow_config())
    whole.load_state_dict(state, strict=False)
    embedding = torch.zeros(VOCABULARY, own.shape[1])
    embedding[torch.from_numpy(used)] = own
    whole.model.language_model.embed_tokens.weight.data.copy_(embedding)
    return whole.eval()
