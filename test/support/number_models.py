# SPDX-License-Identifier: Apache-2.0
"""Models whose distribution over numbers is known, for tests of what is decoded from them."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlm3_ros.engines.numbers import NUMBER, SYMBOLS


def numbers() -> st.SearchStrategy[str]:
    """Draw numbers of the grammar."""
    return st.from_regex(re.compile(NUMBER, re.ASCII), fullmatch=True)


def distributions() -> st.SearchStrategy[dict[str, float]]:
    """Draw the probabilities of a few numbers."""
    return st.dictionaries(numbers(), st.integers(1, 1000), min_size=1, max_size=12).map(
        lambda weights: {text: w / sum(weights.values()) for text, w in weights.items()}
    )


class Oracle:
    """A model with exactly this distribution; returns log-probabilities of symbols."""

    def __init__(self, distribution: dict[str, float]) -> None:
        self.whole = distribution
        self.begun: dict[str, float] = {}
        for text, p in distribution.items():
            for length in range(1, len(text) + 1):
                self.begun[text[:length]] = self.begun.get(text[:length], 0.0) + p

    def __call__(self, partial: str) -> NDArray[np.float64]:
        masses = [self.begun.get(partial + symbol, 0.0) for symbol in SYMBOLS]
        masses.append(self.whole.get(partial, 0.0))
        # A real model gives everything some probability, and its scores are not normalised.
        return np.log(np.array(masses) + 1e-26)
