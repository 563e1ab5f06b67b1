# SPDX-License-Identifier: Apache-2.0
"""Attention for many questions behind one prefix, whose keys and values exist once.

The questions' tokens form one packed sequence without padding. Each attends to the prefix (all
questions against one copy: one large, unmasked attention) and to what its own question has said
so far; the two softmax halves are merged by their log-sum-exps, as FlashAttention and Hydragen
(arXiv 2402.05099) merge blocks. That is the attention of each question alone behind the prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

ATTENTION = "vlm3_cascade"
"""Name under which transformers finds `cascade_attention`."""

SPARE_SLOTS = 16
"""Room for tokens to come that is made at a time."""

PrefixAttention = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""Unmasked attention of queries to keys and values, (1, heads, tokens, head size) each: output,
and log-sum-exp of the scores, (1, heads, queries)."""


class Cascade:
    """Keys and values of one prefix and of the questions behind it.

    Each question has a row of slots, one per token that it has said. A step of the model takes
    tokens of any of the questions: `place` says whose they are before the model is called with
    `cascade=self`.
    """

    def __init__(
        self,
        prefix: Sequence[tuple[Tensor, Tensor]],
        questions: int,
        attend_prefix: PrefixAttention,
    ) -> None:
        """Start with no tokens of the questions.

        Args:
            prefix: keys and values of each layer, shape (1, key heads, tokens, head size).
            questions: how many.
            attend_prefix: how to attend to the prefix.
        """
        self._prefix = prefix
        self._attend_prefix = attend_prefix
        keys = prefix[0][0]
        _, heads, _, size = keys.shape
        self._own = [keys.new_zeros(2, questions, heads, 0, size) for _ in prefix]
        self._questions = questions

    def place(self, questions: Tensor, slots: Tensor, visible: Tensor) -> None:
        """Say whose the tokens of the next step are, and what they see.

        Args:
            questions: each token's question, ascending, shape (tokens,), int64.
            slots: each token's own slot in its question's row, shape (tokens,), int64.
            visible: the slots of its question's row that a token sees, its own among them, shape
                (tokens, slots), bool.
        """
        used = visible.shape[1]
        if used > self._own[0].shape[3]:
            room = used + SPARE_SLOTS - self._own[0].shape[3]
            self._own = [torch.nn.functional.pad(own, (0, 0, 0, room)) for own in self._own]
        counts = torch.bincount(questions, minlength=self._questions)
        first = counts.cumsum(0) - counts
        turns = torch.arange(len(questions), device=questions.device) - first[questions]
        self._owners, self._slots, self._used = questions, slots, used
        self._at = questions, turns  # of each token among those padded by question
        hidden = visible.new_zeros(self._questions, int(counts.max()), used)
        hidden[self._at] = ~visible
        self._hidden = hidden[:, None, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of a step's tokens in one layer, which also takes in their keys and values.

        Args:
            layer: index of the layer.
            query: shape (1, heads, tokens, head size).
            key, value: shape (1, key heads, tokens, head size).
            scale: of the scores.

        Returns:
            Shape (1, tokens, heads, head size).
        """
        _, heads, tokens, size = query.shape
        key_heads = key.shape[1]
        group = heads // key_heads
        own = self._own[layer]
        own[0][self._owners, :, self._slots] = key[0].transpose(0, 1)
        own[1][self._owners, :, self._slots] = value[0].transpose(0, 1)

        # Heads that share keys are so many more queries: no key is ever repeated.
        prefix_out, prefix_lse = self._attend_prefix(
            query.reshape(1, key_heads, group * tokens, size), *self._prefix[layer], scale
        )
        prefix_out = prefix_out.reshape(heads, tokens, size).transpose(0, 1)
        prefix_lse = prefix_lse.reshape(heads, tokens).transpose(0, 1)

        padded = query.new_zeros(self._questions, self._hidden.shape[3], heads, size)
        padded[self._at] = query[0].transpose(0, 1)
        by_head = (self._questions, key_heads, group, -1)
        padded = padded.view(self._questions, -1, key_heads, group, size).permute(0, 2, 3, 1, 4)
        own_keys, own_values = own[..., : self._used, :]
        scores = (padded.flatten(2, 3) @ own_keys.transpose(-1, -2)).float() * scale
        scores = scores.view(*by_head, self._used).masked_fill_(self._hidden, float("-inf"))
        own_lse = scores.logsumexp(-1)
        weights = (scores - own_lse[..., None]).exp_().to(value.dtype)
        own_out = (weights.flatten(2, 3) @ own_values).view(*by_head, size)
        own_out = own_out.permute(0, 3, 1, 2, 4).flatten(2, 3)[self._at]
        own_lse = own_lse.permute(0, 3, 1, 2).flatten(2, 3)[self._at]

        share = torch.sigmoid(prefix_lse.float() - own_lse)[..., None]
        return (share * prefix_out + (1 - share) * own_out).to(query.dtype)[None]


def cascade_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float,
    cascade: Cascade,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """`Cascade.attend` in the form that transformers calls."""
    return cascade.attend(module.layer_idx, query, key, value, scaling), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The cascade knows what each token sees."""


AttentionInterface.register(ATTENTION, cascade_attention)
AttentionMaskInterface.register(ATTENTION, _no_mask)


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """The definition, as `PrefixAttention`: right on every device, in room for all scores."""
    scores = (query @ key.transpose(-1, -2)).float() * scale
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().to(value.dtype) @ value, lse


def _cpu_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, scale=scale
    )
    return out, lse


def _flash_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
        query, key, value, scale=scale
    )
    return out, lse


def _efficient_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, None, True, scale=scale
    )
    return out, lse[..., : query.shape[2]]  # the kernel pads it


FUSED: dict[str, tuple[PrefixAttention, ...]] = {
    "cpu": (_cpu_attention,),
    "cuda": (_flash_attention, _efficient_attention),
}
"""torch's fused kernels that give the log-sum-exp away, by type of device, the best first."""


def fastest_attention(device: torch.device, dtype: torch.dtype, head_size: int) -> PrefixAttention:
    """A fused kernel that agrees with `plain_attention` on this device, else that one.

    The kernels are not torch's public interface, and which of them takes which dtype depends on
    the device: so they are tried.
    """
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, 2, tokens, head_size, generator=generator).to(device, dtype)
        for tokens in (37, 53, 53)
    )
    scale = head_size**-0.5
    expected = plain_attention(query, key, value, scale)
    margin = 1e-5 if dtype == torch.float32 else 2e-2
    for kernel in FUSED.get(device.type, ()):
        try:
            for actual, right in zip(kernel(query, key, value, scale), expected, strict=True):
                torch.testing.assert_close(
                    actual, right, atol=margin, rtol=margin, check_dtype=False
                )
        except (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError):
            continue
        return kernel
    return plain_attention
