# SPDX-License-Identifier: Apache-2.0
"""What the engine reads to answer questions: tokens, and the passes that read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np

from vlm3_lab.studies.bench.work import DeviceSpeed, ModelWork, Pass, causal_pairs
from vlm3_ros.engines.chunking import MAX_CHUNK, balanced
from vlm3_ros.engines.numbers import answer_form
from vlm3_ros.engines.processor import EncodedQuestions
from vlm3_ros.engines.question_tree import question_tree

Tokens = Sequence[int]


@dataclass(frozen=True)
class Call:
    """Questions about the same images that the engine answers in one call.

    Attributes:
        patches: of each image, before merging.
        visual_tokens: tokens of all images.
        prefix: number of tokens that all questions share, with those of the images.
        own: tokens of each question after the prefix, with those that begin a forced answer.
        decoded: tokens of each answer that are read, by step. Below 1 or above where it is a mean:
            several alternatives of a forced number are followed.
        is_forced: whether answers are forced into their form, which needs no output layer.
    """

    patches: tuple[int, ...]
    visual_tokens: int
    prefix: int
    own: tuple[Tokens, ...]
    decoded: tuple[tuple[float, ...], ...]
    is_forced: bool

    @property
    def own_tokens(self) -> int:
        """Tokens of all questions after the prefix."""
        return sum(map(len, self.own))

    @property
    def steps(self) -> int:
        """Decoding steps that read a token."""
        return max(map(len, self.decoded), default=0)

    def part(self, start: int, stop: int) -> Call:
        """Return the call with some of its questions."""
        return replace(self, own=self.own[start:stop], decoded=self.decoded[start:stop])

    def chunks(self, size: int) -> list[Call]:
        """Return calls of at most `size` questions each, of about equal size.

        The questions are sorted, so that those of a chunk share the most.
        """
        order = sorted(range(len(self.own)), key=lambda i: tuple(self.own[i]))
        ends = [0]
        while left := len(order) - ends[-1]:
            ends.append(ends[-1] + balanced(left, size))
        return [
            replace(
                self,
                own=tuple(self.own[i] for i in order[start:stop]),
                decoded=tuple(self.decoded[i] for i in order[start:stop]),
            )
            for start, stop in pairwise(ends)
        ]


def engine_call(
    processor: Any,
    encoded: EncodedQuestions,
    answers: Sequence[str],
    template: str | None = None,
    followed: Sequence[float] = (),
) -> Call:
    """Return the call with which the engine answers questions.

    Args:
        processor: of the model.
        encoded: the questions.
        answers: whole text of each answer. Its length counts if answers are free.
        template: form that answers are forced into; None if they are free. They are free, too, if
            the tokenizer does not write numbers symbol by symbol.
        followed: mean number of partial numbers of a forced answer that are extended, by step.
    """

    def tokenize(text: str) -> list[int]:
        tokens: list[int] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    form = None if template is None else answer_form(template, tokenize)
    opening = [] if form is None else form.opening_tokens
    # The end of an answer is decoded and not read, so each answer takes a step per token.
    free = tuple((1.0,) * len(tokenize(answer)) for answer in answers)
    return Call(
        patches=tuple(encoded.image_grid_thw.prod(-1).tolist()),
        visual_tokens=encoded.prefix.count(processor.image_token_id),
        prefix=len(encoded.prefix),
        own=tuple((*suffix, *opening) for suffix in encoded.suffixes),
        decoded=free if form is None else (tuple(followed),) * len(answers),
        is_forced=form is not None,
    )


class CallPasses(NamedTuple):
    """The passes of a call, by what they read."""

    images: list[Pass]
    prefix: list[Pass]
    own: list[Pass]
    decoding: list[Pass]

    @property
    def all(self) -> list[Pass]:
        """All passes."""
        return list(chain.from_iterable(self))

    def seconds(self, speed: DeviceSpeed) -> float:
        """Return the least time of the call."""
        return sum(one.seconds(speed) for one in self.all)


def call_passes(
    work: ModelWork, call: Call, chunk: int = MAX_CHUNK, as_tree: bool = True
) -> CallPasses:
    """Return the passes of a call.

    Args:
        work: of the model.
        call: what is asked.
        chunk: most questions answered at a time.
        as_tree: whether tokens with which several questions of a chunk begin are read once.
    """
    chunks = call.chunks(chunk)
    return CallPasses(
        images=[work.encode(call.patches)],
        prefix=[work.read(call.prefix, causal_pairs(call.prefix))],
        own=[_read_own(work, part, as_tree) for part in chunks],
        decoding=[one for part in chunks for one in _decode(work, part)],
    )


def tree_tokens(sequences: Iterable[Tokens]) -> int:
    """Return the number of tokens if common beginnings of sequences count once."""
    return sum(stop - start for start, stop in _branches(sequences))


def _branches(sequences: Iterable[Tokens]) -> list[tuple[int, int]]:
    """Return for each sequence where its own part starts in the tree of all, and where it stops.

    Sorted, a sequence shares most with the one before it.
    """
    ordered = sorted(map(tuple, sequences))
    own = np.bincount(question_tree(ordered).questions, minlength=len(ordered)).tolist()
    return [(len(tokens) - new, len(tokens)) for tokens, new in zip(ordered, own, strict=True)]


def _read_own(work: ModelWork, call: Call, as_tree: bool) -> Pass:
    runs = _branches(call.own) if as_tree else [(0, len(own)) for own in call.own]
    tokens = sum(stop - start for start, stop in runs)
    pairs = sum(causal_pairs(stop - start, call.prefix + start) for start, stop in runs)
    return work.read(tokens, pairs, 0 if call.is_forced else len(call.own))


def _decode(work: ModelWork, call: Call) -> list[Pass]:
    passes = []
    for step in range(call.steps):
        alive = [
            (decoded[step], call.prefix + len(own) + step + 1)
            for own, decoded in zip(call.own, call.decoded, strict=True)
            if step < len(decoded)
        ]
        tokens = sum(count for count, _ in alive)
        pairs = sum(count * seen for count, seen in alive)
        passes.append(work.read(tokens, pairs, 0 if call.is_forced else tokens))
    return passes
