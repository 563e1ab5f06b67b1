# SPDX-License-Identifier: Apache-2.0
"""Depth metrics as the field defines them, and what guessing without looking would reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

DELTA = 1.25
"""Threshold of delta1 (Eigen et al. 2014)."""

ROW_BANDS = 24
"""Bands of equal height that the row baseline makes one guess for each."""


@dataclass(frozen=True)
class DepthMetrics:
    """Depth metrics over images.

    `delta1` is pooled over all pixels, unanswered ones are wrong. `abs_rel`, `rmse` (metres) and
    `log10` are means over the answered pixels of an image, then over the images that have any
    (NaN where none has).
    """

    delta1: float
    abs_rel: float
    rmse: float
    log10: float
    images: int
    pixels: int
    unanswered: int


@dataclass(frozen=True)
class Guess:
    """Depths that were guessed without looking at an image, and what they score.

    `depths`: metres, shape (bands,) from the top of the image to its bottom.
    """

    depths: NDArray[np.float64]
    metrics: DepthMetrics


def within_delta(predicted: ArrayLike, truth: ArrayLike) -> NDArray[np.bool_]:
    """Where max(p / g, g / p) < 1.25, strictly; False where p is NaN or not positive."""
    predicted, truth = np.asarray(predicted, dtype=float), np.asarray(truth, dtype=float)
    answered = np.isfinite(predicted) & (predicted > 0)
    ratio = np.where(answered, predicted, np.inf) / truth
    return np.maximum(ratio, 1 / ratio, where=answered, out=np.full(ratio.shape, np.inf)) < DELTA


def abs_rel(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Mean of |p - g| / g over the pixels that were answered; NaN where none was."""
    predicted, truth = np.asarray(predicted, dtype=float), np.asarray(truth, dtype=float)
    answered = np.isfinite(predicted)
    if not answered.any():
        return float("nan")
    return float(np.mean(np.abs(predicted - truth)[answered] / truth[answered]))


def depth_metrics(predicted: Sequence[ArrayLike], truth: Sequence[ArrayLike]) -> DepthMetrics:
    """Score depths against the truth.

    Args:
        predicted: for each image the depths in metres, shape (n,), NaN where unanswered.
        truth: for each image the true depths, shape (n,), finite and positive.

    Raises:
        ValueError: when there is no pixel, a truth is not finite and positive, or shapes differ.
    """
    pairs = [
        (np.asarray(p, dtype=float).ravel(), np.asarray(g, dtype=float).ravel())
        for p, g in zip(predicted, truth, strict=True)
    ]
    for p, g in pairs:
        if p.shape != g.shape:
            raise ValueError(f"{p.size} depths for {g.size} true ones")
        if not (np.isfinite(g) & (g > 0)).all():
            raise ValueError("a true depth is not finite and positive")
    pixels = sum(g.size for _, g in pairs)
    if not pixels:
        raise ValueError("there is no pixel to score")
    hits = sum(int(within_delta(p, g).sum()) for p, g in pairs)
    scores = [_image_scores(p, g) for p, g in pairs if np.isfinite(p).any()]
    means = np.mean(scores, axis=0) if scores else np.full(3, np.nan)
    return DepthMetrics(
        delta1=hits / pixels,
        abs_rel=float(means[0]),
        rmse=float(means[1]),
        log10=float(means[2]),
        images=len(pairs),
        pixels=pixels,
        unanswered=sum(int((~np.isfinite(p)).sum()) for p, _ in pairs),
    )


def best_constant(truth: ArrayLike) -> float:
    """The one depth in metres that reaches the highest delta1 on these true depths.

    The depths that a guess c gets right are those in (c / 1.25, 1.25 c): the fullest window of
    that width, in the logarithm, gives the guess.
    """
    depths = np.sort(np.asarray(truth, dtype=float).ravel())
    ends = np.searchsorted(depths, depths * DELTA**2, side="left")
    first = int(np.argmax(ends - np.arange(len(depths))))
    return float(np.sqrt(depths[first] * depths[ends[first] - 1]))


def constant_baseline(truth: Sequence[NDArray[np.floating]]) -> Guess:
    """The best guess that is the same for every pixel of every image.

    It is chosen on the data that it is scored on: an upper bound of what a model that sees
    nothing can reach.
    """
    depth = best_constant(np.concatenate(truth))
    return Guess(np.array([depth]), depth_metrics([np.full(g.shape, depth) for g in truth], truth))


def row_baseline(
    truth: Sequence[NDArray[np.floating]], rows: Sequence[NDArray[np.floating]]
) -> Guess:
    """The best guess for each row of the image, whatever the image shows.

    What a model reaches that knows where things usually are (floor below, far things in the
    middle) and does not look. Rows are put into `ROW_BANDS` bands of the image's height, for
    images have different heights; like the constant, the guesses are chosen on the data that
    they are scored on.

    Args:
        truth: for each image the true depths in metres, shape (n,).
        rows: for each image the heights of these pixels in it, (v + 0.5) / height, in [0, 1].
    """
    bands = [_bands(r) for r in rows]
    all_truth, all_bands = np.concatenate(truth), np.concatenate(bands)
    depths = np.full(ROW_BANDS, best_constant(all_truth))
    for band in np.unique(all_bands):
        depths[band] = best_constant(all_truth[all_bands == band])
    return Guess(depths, depth_metrics([depths[b] for b in bands], truth))


RANGES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, math.inf)
"""True depths in metres between which errors are told apart."""


@dataclass(frozen=True)
class RangeError:
    """Errors of the answers about pixels whose true depth lies in [near, far), metres.

    `bias`: mean of (p - g) / g, positive where answers are too far. `abs_rel`: mean of |p - g| / g
    over these pixels. `median_m` and `p90_m`: of |p - g|.
    """

    near: float
    far: float
    pixels: int
    bias: float
    abs_rel: float
    median_m: float
    p90_m: float


def errors_by_range(predicted: ArrayLike, truth: ArrayLike) -> list[RangeError]:
    """How the errors grow with the distance; ranges without an answer are left out.

    Args:
        predicted: metres, shape (n,), NaN where unanswered, which counts nowhere.
        truth: metres, shape (n,), finite and positive.
    """
    p, g = np.asarray(predicted, dtype=float).ravel(), np.asarray(truth, dtype=float).ravel()
    errors = []
    for near, far in pairwise(RANGES):
        chosen = np.isfinite(p) & (g >= near) & (g < far)
        if not chosen.any():
            continue
        off = (p - g)[chosen]
        relative, metres = off / g[chosen], np.abs(off)
        errors.append(
            RangeError(
                near,
                far,
                int(chosen.sum()),
                float(relative.mean()),
                float(np.abs(relative).mean()),
                float(np.median(metres)),
                float(np.percentile(metres, 90)),
            )
        )
    return errors


def guess_of_rows(guess: Guess, rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """What a `row_baseline` says of pixels at these heights in the image, metres, shape (n,)."""
    return np.asarray(guess.depths[_bands(rows)])


def _bands(rows: NDArray[np.floating]) -> NDArray[np.int64]:
    return np.minimum((rows * ROW_BANDS).astype(int), ROW_BANDS - 1)


def _image_scores(p: NDArray[np.float64], g: NDArray[np.float64]) -> tuple[float, float, float]:
    answered = np.isfinite(p)
    p, g = p[answered], g[answered]
    # Metres below a millimetre have no meaningful logarithm.
    log10 = np.abs(np.log10(np.maximum(p, 1e-3)) - np.log10(g))
    return abs_rel(p, g), float(np.sqrt(np.mean((p - g) ** 2))), float(np.mean(log10))
