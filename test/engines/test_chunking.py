# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from vlm3_ros.engines.chunking import MAX_CHUNK, MEMORY_SHARE, TextSizes, balanced, chunk_size

VLM3 = TextSizes(
    layers=36,
    hidden=2560,
    intermediate=9728,
    heads=32,
    key_heads=8,
    head_size=128,
    vocabulary=151_936,
    itemsize=2,
)
"""The 4B model in bfloat16."""

GIGABYTE = 2**30


def test_keys_and_values_of_the_4b_model():
    assert VLM3.key_value_bytes == 147_456


@given(st.integers(0, 2**40), st.integers(1, 2**34))
def test_chunk_fits_into_its_share_of_memory(free, question):
    chunk = chunk_size(free, question)
    assert 1 <= chunk <= MAX_CHUNK
    assert chunk == 1 or chunk * question <= free * MEMORY_SHARE
    assert chunk == MAX_CHUNK or (chunk + 1) * question > free * MEMORY_SHARE


@given(st.integers(1, 500), st.integers(0, 5000), st.integers(1, 100))
def test_longer_questions_and_larger_dtypes_take_more_memory(tokens, prefix, more):
    taken = VLM3.question_bytes(tokens, prefix)
    assert VLM3.question_bytes(tokens + more, prefix) > taken
    assert VLM3.question_bytes(tokens, prefix + more) > taken
    assert replace(VLM3, itemsize=4).question_bytes(tokens, prefix) > taken


def test_small_board_gets_smaller_chunks_than_a_workstation():
    question = VLM3.question_bytes(tokens=110, prefix=0)
    board, workstation = chunk_size(4 * GIGABYTE, question), chunk_size(60 * GIGABYTE, question)
    assert 16 <= board < workstation == MAX_CHUNK


@given(st.integers(1, 2000), st.integers(1, 300))
def test_chunks_are_as_few_as_possible_and_differ_by_one_question_at_most(questions, most):
    sizes = []
    while questions > sum(sizes):
        sizes.append(balanced(questions - sum(sizes), most))
    assert sum(sizes) == questions
    assert len(sizes) == -(-questions // most)
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


def test_two_halves_instead_of_a_large_and_a_small_chunk():
    assert balanced(192, 179) == 96
