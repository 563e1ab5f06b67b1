# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm3_ros.engines.cascade import FUSED, Cascade, fastest_attention, plain_attention

CPU = torch.device("cpu")


def dense_attention(query, keys, values, scale):
    """Attention of one query by definition, in float64: (heads, size) to (heads, size)."""
    group = query.shape[0] // keys.shape[0]
    keys, values = (x.repeat_interleave(group, 0).double() for x in (keys, values))
    weights = torch.softmax((keys @ query.double()[..., None])[..., 0] * scale, -1)
    return (weights[:, None] @ values)[:, 0]


@settings(deadline=None)
@given(
    heads=st.sampled_from([(1, 1), (4, 2), (3, 3), (6, 1)]),
    prefix=st.integers(1, 40),
    steps=st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
)
def test_each_token_attends_as_if_its_question_were_alone(heads, prefix, steps, seed):
    """Questions add any number of tokens; each attends to its own and any earlier slots."""
    heads, key_heads = heads
    size, questions, scale = 8, 5, 0.3
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    prefix_keys, prefix_values = torch.randn(2, 1, key_heads, prefix, size) * 3
    cascade = Cascade(
        [(prefix_keys, prefix_values)], questions, fastest_attention(CPU, torch.float32, size)
    )
    stored = [([], []) for _ in range(questions)]
    for counts in steps:
        tokens = sum(counts)
        if not tokens:
            continue
        query = torch.randn(1, heads, tokens, size) * 3
        key, value = torch.randn(2, 1, key_heads, tokens, size) * 3
        owners = np.repeat(np.arange(questions), counts)
        slots = np.zeros(tokens, int)
        for t, owner in enumerate(owners):
            slots[t] = len(stored[owner][0])
            stored[owner][0].append(key[0, :, t])
            stored[owner][1].append(value[0, :, t])
        visible = np.zeros((tokens, slots.max() + 1), bool)
        for t, slot in enumerate(slots):
            visible[t, :slot] = rng.random(slot) < 0.5
            visible[t, slot] = True
        cascade.place(owners, np.stack([np.arange(tokens), owners, slots]), visible)
        actual = cascade.attend(0, query, key, value, scale)
        assert actual.shape == (1, tokens, heads, size)
        for t, owner in enumerate(owners):
            seen = np.flatnonzero(visible[t])
            keys, values = (
                torch.cat([shared[0], torch.stack([own[s] for s in seen], 1)], 1)
                for shared, own in zip((prefix_keys, prefix_values), stored[owner], strict=True)
            )
            expected = dense_attention(query[0, :, t], keys, values, scale)
            torch.testing.assert_close(actual[0, t].double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cpu_has_a_fused_kernel(dtype):
    assert fastest_attention(CPU, dtype, 32) in FUSED["cpu"]


def test_dtype_without_a_fused_kernel_uses_plain_attention():
    assert fastest_attention(CPU, torch.int32, 32) is plain_attention


@pytest.mark.parametrize("kernel", FUSED["cuda"])
def test_cuda_kernels_exist_in_this_torch(kernel):
    """Checks only signatures and shapes, which torch knows without a GPU."""
    query, key, value = (
        torch.empty(1, 2, tokens, 64, device="meta", dtype=torch.float16) for tokens in (37, 53, 53)
    )
    out, lse = kernel(query, key, value, 0.125)
    assert out.shape == (1, 2, 37, 64)
    assert lse.shape == (1, 2, 37)
