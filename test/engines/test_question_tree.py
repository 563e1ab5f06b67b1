# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vlm3_ros.engines.question_tree import question_tree

QUESTIONS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=12)


@given(QUESTIONS)
def test_every_question_has_its_tokens_in_order(questions):
    tree = question_tree(questions)
    nodes, owners, slots = tree.places
    for index, question in enumerate(questions):
        own = owners == index
        assert slots[own].tolist() == list(range(len(question)))
        assert tree.tokens[nodes[own]].tolist() == question
        assert tree.slots[nodes[own]].tolist() == slots[own].tolist()
        assert tree.last[index] == nodes[own][-1]


@given(QUESTIONS)
def test_a_node_belongs_to_a_question_that_passes_it(questions):
    """So the row of that question holds everything that the node attends to."""
    tree = question_tree(questions)
    passes = set(zip(*tree.places.tolist(), strict=True))
    nodes = range(len(tree.tokens))
    assert passes.issuperset(zip(nodes, tree.questions.tolist(), tree.slots.tolist(), strict=True))
    assert (np.diff(tree.questions) >= 0).all()


@given(QUESTIONS)
def test_sorted_questions_share_all_common_beginnings(questions):
    tree = question_tree(sorted(questions))
    beginnings = {tuple(q[:length]) for q in questions for length in range(1, len(q) + 1)}
    assert len(tree.tokens) == len(beginnings)
