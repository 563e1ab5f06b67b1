# SPDX-License-Identifier: Apache-2.0
"""The work of a model, and the least time in which a device can do it.

A decoding step cannot be faster than reading all weights once; reading a prompt cannot be faster
than its multiplications (Williams, Waterman and Patterson 2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceSpeed:
    """Speed of a device: measured in a copy and in a matrix product, or published.

    `bytes_per_second`: read and written. `flops_per_second`: in the model's dtype.
    """

    bytes_per_second: float
    flops_per_second: float


@dataclass(frozen=True)
class Pass:
    """One pass of tokens or patches through a part of a model.

    Attributes:
        flops: its multiplications and additions.
        weight_bytes: weights that it reads.
    """

    flops: float
    weight_bytes: float

    def seconds(self, speed: DeviceSpeed) -> float:
        """Return the least time that it takes: to compute, or to read the weights."""
        return max(self.flops / speed.flops_per_second, self.weight_bytes / speed.bytes_per_second)


@dataclass(frozen=True)
class ModelWork:
    """The least work of a model to answer questions about images.

    Attributes:
        vision_bytes: weights of the image encoder.
        language_bytes: weights of the language half, without embeddings and output layer.
        output_bytes: weights of the output layer.
        patch_flops: per patch in the image encoder, without attention.
        patch_pair_flops: per patch and patch of the same image, in all its layers.
        token_flops: per token in the language half, without attention.
        pair_flops: per token and token that it attends to, in all layers.
        output_flops: to choose a token.
    """

    vision_bytes: int
    language_bytes: int
    output_bytes: int
    patch_flops: float
    patch_pair_flops: float
    token_flops: float
    pair_flops: float
    output_flops: float

    def encode(self, patches: Sequence[int]) -> Pass:
        """Return the pass that encodes images.

        Args:
            patches: of each image, before merging.
        """
        flops = sum(n * self.patch_flops + n**2 * self.patch_pair_flops for n in patches)
        return Pass(flops, self.vision_bytes)

    def read(self, tokens: float, pairs: float, choices: float = 0) -> Pass:
        """Return a pass through the language half.

        Args:
            tokens: number of tokens read.
            pairs: number of tokens that they attend to, summed; see `causal_pairs`.
            choices: tokens that the output layer chooses; 0 if it is not needed.
        """
        flops = tokens * self.token_flops + pairs * self.pair_flops + choices * self.output_flops
        return Pass(flops, self.language_bytes + (self.output_bytes if choices else 0))


def causal_pairs(tokens: float, before: float = 0) -> float:
    """Return how many tokens a run of tokens attends to, summed, after others before it."""
    return tokens * before + tokens * (tokens + 1) / 2
