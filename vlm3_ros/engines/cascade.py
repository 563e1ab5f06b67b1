# SPDX-License-Identifier: Apache-2.0
"""Attention for many questions after one prefix, whose keys and values exist only once.

The tokens of all questions form one packed sequence without padding. Each token attends to the
prefix (all questions against one copy, in one large unmasked attention) and to the earlier tokens
of its own question. A token that several questions share is in the sequence once; its keys and
values are stored for each of them. The two softmax halves are merged by their log-sum-exps, as
FlashAttention and Hydragen (arXiv 2402.05099) merge blocks. The result equals the attention of each
question alone after the prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

ATTENTION = "vlm3_cascade"
"""Name of `cascade_attention` in transformers' registry."""

SPARE_SLOTS = 16
"""Slots added at a time when the rows of questions grow."""

PrefixAttention = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""Unmasked attention. Takes queries, keys, values, shape (1, heads, tokens, head size) each, and
the scale of scores. Returns the output and the log-sum-exp of the scores, (1, heads, queries)."""


class Cascade:
    """Keys and values of one prefix and of the questions after it.

    Each question has a row of slots, one per token. A step of the model takes tokens of any
    questions. Call `place` to assign them to questions, then the model with `cascade=self`.
    """

    def __init__(
        self,
        prefix: Sequence[tuple[Tensor, Tensor]],
        questions: int,
        attend_prefix: PrefixAttention,
    ) -> None:
        """Start without tokens of the questions.

        Args:
            prefix: keys and values of each layer, shape (1, key heads, tokens, head size).
            questions: number of questions.
            attend_prefix: computes attention to the prefix.
        """
        self._prefix = prefix
        self._attend_prefix = attend_prefix
        keys = prefix[0][0]
        _, heads, _, size = keys.shape
        self._own = [keys.new_zeros(2, questions, heads, 0, size) for _ in prefix]
        self._questions = questions

    def place(
        self,
        questions: NDArray[np.int64],
        places: NDArray[np.int64],
        visible: NDArray[np.bool_],
    ) -> None:
        """Assign the tokens of the next step to questions, and set what they attend to.

        Args:
            questions: question of each token, ascending, shape (tokens,). For a token that several
                questions share, any of them.
            places: where keys and values are stored: index of the token, question, and slot in
                the row of that question, shape (3, places).
            visible: which slots in the row of its question each token attends to, its own
                included, shape (tokens, slots).
        """
        used = visible.shape[1]
        if used > self._own[0].shape[3]:
            room = used + SPARE_SLOTS - self._own[0].shape[3]
            self._own = [torch.nn.functional.pad(own, (0, 0, 0, room)) for own in self._own]
        turns = np.arange(len(questions)) - np.searchsorted(questions, questions)
        hidden = np.zeros((self._questions, turns.max() + 1, used), bool)
        hidden[questions, turns] = ~visible
        device = self._own[0].device
        self._hidden = torch.from_numpy(hidden).to(device)[:, None, None]
        owners, turns_there, *self._places = to_device(device, questions, turns, *places)
        self._at = owners, turns_there  # indices of each token in tensors padded by question
        self._used = used

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Compute the attention of a step's tokens in one layer, and store their keys and values.

        Args:
            layer: index of the layer.
            query: shape (1, heads, tokens, head size).
            key, value: shape (1, key heads, tokens, head size).
            scale: factor of the scores.

        Returns:
            Shape (1, tokens, heads, head size).
        """
        _, heads, tokens, size = query.shape
        key_heads = key.shape[1]
        group = heads // key_heads
        own = self._own[layer]
        tokens_stored, owners, slots = self._places
        own[0][owners, :, slots] = key[0].transpose(0, 1)[tokens_stored]
        own[1][owners, :, slots] = value[0].transpose(0, 1)[tokens_stored]

        # Heads that share keys become additional queries, so no key is repeated.
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


def to_device(device: torch.device, *arrays: NDArray[np.int64]) -> tuple[Tensor, ...]:
    """Copy vectors to a device in one transfer."""
    joined = torch.from_numpy(np.concatenate(arrays)).to(device)
    return joined.split([len(array) for array in arrays])


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
    """Call `Cascade.attend` with the arguments that transformers passes."""
    return cascade.attend(module.layer_idx, query, key, value, scaling), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """Return no mask: the cascade masks by itself."""


AttentionInterface.register(ATTENTION, cascade_attention)
AttentionMaskInterface.register(ATTENTION, _no_mask)


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention by its definition: for every device, but holds all scores in memory."""
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
    return out, lse[..., : query.shape[2]]  # the kernel pads lse


FUSED: dict[str, tuple[PrefixAttention, ...]] = {
    "cpu": (_cpu_attention,),
    "cuda": (_flash_attention, _efficient_attention),
}
"""torch's fused kernels that return the log-sum-exp, by type of device, the fastest first."""


def fastest_attention(device: torch.device, dtype: torch.dtype, head_size: int) -> PrefixAttention:
    """Return a fused kernel that agrees with `plain_attention` on this device, or else that one.

    The kernels are not part of torch's public interface, and the dtypes that they accept depend
    on the device, so each is tried.
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
