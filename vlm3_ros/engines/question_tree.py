# SPDX-License-Identifier: Apache-2.0
"""The tokens of many questions as a tree: a beginning that several questions share exists once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class QuestionTree:
    """The nodes of the tree, and where each question has them. All arrays are int64.

    A node belongs to the first question that passes it.

    Attributes:
        tokens: of each node, shape (nodes,).
        questions: to which each node belongs, ascending, shape (nodes,).
        slots: index of each node's token in its questions, shape (nodes,).
        places: node, question and slot of every token of every question, shape (3, tokens).
        last: node of the last token of each question, shape (questions,).
    """

    tokens: NDArray[np.int64]
    questions: NDArray[np.int64]
    slots: NDArray[np.int64]
    places: NDArray[np.int64]
    last: NDArray[np.int64]


def question_tree(questions: Sequence[Sequence[int]]) -> QuestionTree:
    """Build the tree of questions.

    Args:
        questions: tokens of each, at least one. In ascending order, all common beginnings are
            shared; in another order, only those of neighbours.
    """
    lengths = np.array([len(question) for question in questions])
    slots = np.arange(lengths.max())
    is_token = slots < lengths[:, None]
    tokens = np.full(is_token.shape, -1)
    tokens[is_token] = np.concatenate(questions)
    equals_previous = np.zeros(is_token.shape, bool)
    equals_previous[1:] = tokens[1:] == tokens[:-1]
    is_new = ~np.logical_and.accumulate(equals_previous, axis=1)
    rows = np.arange(len(questions))[:, None]
    owners = np.maximum.accumulate(np.where(is_new, rows, 0), axis=0)
    node_questions, node_slots = np.nonzero(is_new & is_token)
    nodes = np.zeros(is_token.shape, np.int64)
    nodes[node_questions, node_slots] = np.arange(len(node_questions))
    nodes = nodes[owners, slots]
    return QuestionTree(
        tokens=tokens[node_questions, node_slots],
        questions=node_questions,
        slots=node_slots,
        places=np.stack([nodes[is_token], *np.nonzero(is_token)]),
        last=nodes[rows[:, 0], lengths - 1],
    )
