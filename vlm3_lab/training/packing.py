# SPDX-License-Identifier: Apache-2.0
"""Packing: several questions and answers about the same image(s) in one training sample.

The paper trains on ten labelled pixels per image (section 3.2). Here every question sees the
prefix (the image and the words that all questions start with) and itself, but no other question.
So the loss equals that of separate samples, and a single question at inference sees what it saw in
training.

Batch layout: every row holds its prefix, padded on the right to the longest one, then its
questions as blocks of equal length, also padded on the right. `packed_attention` uses this layout
in place of a mask over all pairs of tokens, most of which do not see each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.qwen3_vl.modeling_qwen3_vl import repeat_kv

IGNORE = -100
"""Label of tokens that carry no loss (torch.nn.CrossEntropyLoss)."""

QuestionAnswer = tuple[str, str]


@dataclass(frozen=True)
class Layout:
    """Token counts of a packed batch: prefix (padded), questions, tokens per question (padded)."""

    prefix: int
    questions: int
    block: int


@dataclass(frozen=True)
class PackedSample:
    """One or more images with their tokenised questions.

    `prefix_ids`: shape (p,). `prefix_positions`: M-RoPE positions, shape (3, p). `blocks`,
    `labels`: one array of token ids per question. `pixel_values`, `image_grid_thw`: as the image
    processor returns them.
    """

    prefix_ids: NDArray[np.int64]
    prefix_positions: NDArray[np.int64]
    blocks: tuple[NDArray[np.int64], ...]
    labels: tuple[NDArray[np.int64], ...]
    pixel_values: Tensor
    image_grid_thw: Tensor


class Packer:
    """Turns images with questions and answers into `PackedSample`s, and these into batches."""

    def __init__(self, processor: Any):
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self.image_processor = processor.image_processor
        self._merge = processor.image_processor.merge_size
        self._image_id = self._tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self._end = [self._tokenizer.eos_token_id]

    def pack(
        self, images: Sequence[NDArray[np.uint8]], pairs: Sequence[QuestionAnswer]
    ) -> PackedSample:
        """Pack questions that start with the same words up to their first number.

        Without questions, the sample holds the images alone.

        Args:
            images: RGB views, shape (height, width, 3), uint8, sides as the model takes them.
            pairs: question and answer texts.

        Raises:
            ValueError: if the processor would resize an image.
        """
        pixels = self.image_processor(list(images), return_tensors="pt", do_resize=False)
        grid = pixels["image_grid_thw"]
        start, *middles = self._chat(len(images))
        prefix: list[int] = list(start)
        for (_, rows, columns), after in zip(grid.tolist(), middles, strict=True):
            prefix += [self._image_id] * (rows * columns // self._merge**2) + after
        texts = [self._question_tokens(question) for question, _ in pairs]
        shared = _common_prefix(texts)
        prefix += texts[0][:shared] if texts else []
        answers = [self.answer_tokens(answer) for _, answer in pairs]
        blocks, labels = [], []
        for text, answer in zip(texts, answers, strict=True):
            own = text[shared:]
            blocks.append(np.array(own + answer, np.int64))
            labels.append(np.array([IGNORE] * len(own) + answer, np.int64))
        ids = np.array(prefix, np.int64)
        return PackedSample(
            ids,
            mrope_positions(ids == self._image_id, grid.numpy(), self._merge),
            tuple(blocks),
            tuple(labels),
            pixels["pixel_values"],
            grid,
        )

    def collate(self, samples: Sequence[PackedSample]) -> dict[str, Any]:
        """Make a batch: keyword arguments of `packed_loss`."""
        rows = len(samples)
        layout = Layout(
            max(len(s.prefix_ids) for s in samples),
            max(len(s.blocks) for s in samples),
            max((len(block) for s in samples for block in s.blocks), default=0),
        )
        length = layout.prefix + layout.questions * layout.block
        pad = self._tokenizer.pad_token_id
        ids = np.full((rows, length), pad, np.int64)
        labels = np.full((rows, length), IGNORE, np.int64)
        positions = np.zeros((3, rows, length), np.int64)
        prefix_lengths = np.array([len(s.prefix_ids) for s in samples], np.int64)
        for row, sample in enumerate(samples):
            n = len(sample.prefix_ids)
            ids[row, :n] = sample.prefix_ids
            positions[:, row, :n] = sample.prefix_positions
            after = int(sample.prefix_positions.max()) + 1
            for index, (block, label) in enumerate(zip(sample.blocks, sample.labels, strict=True)):
                at = layout.prefix + index * layout.block
                ids[row, at : at + len(block)] = block
                labels[row, at : at + len(block)] = label
                positions[:, row, at : at + layout.block] = after + np.arange(layout.block)
        return {
            "input_ids": torch.from_numpy(ids),
            "labels": torch.from_numpy(labels),
            "position_ids": torch.from_numpy(positions),
            "prefix_lengths": torch.from_numpy(prefix_lengths),
            "layout": layout,
            "pixel_values": still_frames(
                torch.cat([s.pixel_values for s in samples]), self.image_processor
            ),
            "image_grid_thw": torch.cat([s.image_grid_thw for s in samples]),
        }

    def answer_tokens(self, answer: str) -> list[int]:
        """Tokens of an answer, with the token that ends it."""
        return self._encode(answer) + self._end

    def token_ends(self, question: str) -> NDArray[np.int64]:
        """The number of characters of a question up to the end of each token, shape (tokens,).

        The last tokens are those that the chat puts between a question and its answer.
        """
        text = question + self._tail
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return np.array([end for _, end in encoded["offset_mapping"]], np.int64)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _chat(self, images: int) -> list[list[int]]:
        """Token ids before, between and after the images, up to the question text."""
        text = self._template(images)
        return [self._encode(part) for part in text.split("\0")[0].split("<|image_pad|>")]

    @cached_property
    def _tail(self) -> str:
        """The text that the chat puts between a question and its answer."""
        return self._template(0).split("\0")[1]

    def _template(self, images: int) -> str:
        """A chat of images and a question; the question is a null character."""
        content = [{"type": "image"}] * images
        text: str = self._processor.apply_chat_template(
            [{"role": "user", "content": [*content, {"type": "text", "text": "\0"}]}],
            tokenize=False,
            add_generation_prompt=True,
        )
        return text

    def _question_tokens(self, question: str) -> list[int]:
        return self._encode(question + self._tail)


def still_frames(pixel_values: Tensor, image_processor: Any) -> Tensor:
    """Patches whose frames share their memory, as the frames of a still image are equal.

    This halves the bytes that a worker sends to the process that trains.

    Args:
        pixel_values: as the image processor returns them, shape (patches, values).
        image_processor: of the checkpoint.

    Returns:
        Shape (patches, colours, frames, pixels of a patch).
    """
    frames, side = image_processor.temporal_patch_size, image_processor.patch_size
    patches = pixel_values.reshape(len(pixel_values), -1, frames, side**2)
    return patches[:, :, :1].contiguous().expand(-1, -1, frames, -1)


def _common_prefix(texts: list[list[int]]) -> int:
    """Number of leading tokens that all texts share; each keeps at least one of its own."""
    if len(texts) < 2:
        return 0
    limit = min(map(len, texts)) - 1
    first = texts[0]
    return next((i for i in range(limit) if any(t[i] != first[i] for t in texts)), limit)


def mrope_positions(
    is_image: NDArray[np.bool_], image_grid_thw: NDArray[np.int64], merge: int
) -> NDArray[np.int64]:
    """M-RoPE positions of a sequence of text and images, equal to Qwen3-VL's `get_rope_index`.

    Args:
        is_image: mask of the image tokens, shape (n,).
        image_grid_thw: patches of each image in time, rows and columns, shape (images, 3).
        merge: patches along each side of a token.

    Returns:
        Positions in time, rows and columns, shape (3, n).
    """
    positions = np.zeros((3, len(is_image)), np.int64)
    at, after = 0, 0
    for _, rows, columns in image_grid_thw:
        rows, columns = int(rows) // merge, int(columns) // merge
        start = at + int(np.argmax(is_image[at:]))
        positions[:, at:start] = after + np.arange(start - at)
        after += start - at
        end = start + rows * columns
        positions[0, start:end] = after
        positions[1, start:end] = after + np.repeat(np.arange(rows), columns)
        positions[2, start:end] = after + np.tile(np.arange(columns), rows)
        at, after = end, after + max(rows, columns)
    positions[:, at:] = after + np.arange(len(is_image) - at)
    return positions


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float = 1.0,
    layout: Layout | None = None,
    prefix_lengths: Tensor | None = None,
    scores_of_prefix: list[Tensor] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed batch: prefixes to themselves, blocks to their prefix and themselves.

    Args:
        query, key, value: shape (batch, heads, tokens, size), tokens as in `layout`.
        layout, prefix_lengths: of the batch; prefix_lengths has shape (batch,).
        scores_of_prefix: gets, layer by layer, the attention scores of the prefix before the
            softmax and without causality, shape (batch, heads, prefix, prefix); for losses on
            attention.
    """
    if layout is None or prefix_lengths is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    p, n, s = layout.prefix, layout.questions, layout.block
    # Padding comes after the prefix, so causality alone hides it from all real tokens.
    of_prefix = _sdpa(query[:, :, :p], key[:, :, :p], value[:, :, :p], scaling, is_causal=True)
    if scores_of_prefix is not None:
        scores_of_prefix.append(query[:, :, :p] * scaling @ key[:, :, :p].transpose(-1, -2))
    batch, heads, _, size = query.shape

    def blocks(tensor: Tensor) -> Tensor:
        return tensor[:, :, p:].reshape(batch, heads, n, s, size)

    # The prefix is one matrix for all blocks: no copy of it per question.
    to_prefix = query[:, :, p:] @ key[:, :, :p].transpose(-1, -2)
    to_own = blocks(query) @ blocks(key).transpose(-1, -2)
    device = query.device
    sees_prefix = torch.arange(p, device=device) < prefix_lengths[:, None]
    causal = torch.ones(s, s, dtype=torch.bool, device=device).tril()
    scores = torch.cat(
        [
            to_prefix.float().masked_fill(~sees_prefix[:, None, None], -torch.inf),
            to_own.float().masked_fill(~causal, -torch.inf).reshape(batch, heads, n * s, s),
        ],
        dim=-1,
    )
    weights = (scores * scaling).softmax(dim=-1).to(value.dtype)
    of_blocks = weights[..., :p] @ value[:, :, :p] + (
        weights[..., p:].reshape(batch, heads, n, s, s) @ blocks(value)
    ).reshape(batch, heads, n * s, size)
    output = torch.cat([of_prefix, of_blocks.to(of_prefix.dtype)], dim=2)
    return output.transpose(1, 2).to(query.dtype), None


def _sdpa(query: Tensor, key: Tensor, value: Tensor, scaling: float, is_causal: bool) -> Tensor:
    """Attention that is full or causal.

    On CPUs the backward pass of torch's kernel takes most of a training step; matrix products,
    which autocast makes bfloat16, take a fraction of that. The scores they keep are at most the
    square of an image's patches.
    """
    if query.device.type != "cpu":
        return scaled_dot_product_attention(query, key, value, is_causal=is_causal, scale=scaling)
    scores = query * scaling @ key.transpose(-1, -2)
    if is_causal:
        size = query.shape[-2]
        causal = torch.ones(size, size, dtype=torch.bool).tril()
        scores = scores.float().masked_fill(~causal, -torch.inf)
    return scores.softmax(dim=-1).to(value.dtype) @ value


def vision_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float = 1.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of the vision half: all patches of an image to each other."""
    assert attention_mask is None
    output = _sdpa(query, key, value, scaling, is_causal=False)
    return output.transpose(1, 2).to(query.dtype), None


AttentionInterface.register("vlm3_packed", packed_attention)
# Without a mask function of the same name, transformers would drop causality for other batches.
AttentionMaskInterface.register("vlm3_packed", sdpa_mask)
AttentionInterface.register("vlm3_vision", vision_attention)
AttentionMaskInterface.register("vlm3_vision", sdpa_mask)

PACKED_ATTENTION = {"text_config": "vlm3_packed", "vision_config": "vlm3_vision"}
"""For `model.set_attn_implementation` before `packed_loss`."""


def packed_hidden(model: Any, batch: dict[str, Any]) -> Tensor:
    """The last hidden states of a packed batch, shape (batch, tokens, width).

    Raises:
        ValueError: if the model's attention is not set to `PACKED_ATTENTION`.
    """
    attention = model.config.get_text_config()._attn_implementation
    if attention != PACKED_ATTENTION["text_config"]:
        raise ValueError(
            f"the model's attention is {attention}, which takes no packed batch: "
            "call model.set_attn_implementation(PACKED_ATTENTION)"
        )
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    hidden: Tensor = model.model(
        # All true: the layout decides which token sees which.
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=inputs["input_ids"].device),
        use_cache=False,
        **inputs,
    ).last_hidden_state
    return hidden


def packed_loss(model: Any, batch: dict[str, Any]) -> Tensor:
    """Mean cross entropy over the answer tokens of a packed batch.

    Raises:
        ValueError: if the model's attention is not set to `PACKED_ATTENTION`.
    """
    return answer_losses(model, packed_hidden(model, batch), batch["labels"]).mean()


def answer_losses(model: Any, hidden: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of each answer token, in the order of `labels`.

    Args:
        hidden: from `packed_hidden`.
        labels: of the same batch.
    """
    labels = labels[:, 1:]
    answered = labels != IGNORE
    logits = model.lm_head(hidden[:, :-1][answered])
    return nn.functional.cross_entropy(logits.float(), labels[answered], reduction="none")
