# SPDX-License-Identifier: Apache-2.0
"""Depth metrics as the field defines them, and the best guesses that ignore the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.evaluation.metrics.declared import Metric

DELTA = 1.25
"""Threshold of delta1 (Eigen et al. 2014)."""

ROW_BANDS = 24
"""Bands of equal height; the row baseline has one guess for each."""


@dataclass(frozen=True)
class DepthMetrics:
    """Depth metrics over images.

    `delta1` is pooled over all pixels; unanswered ones are wrong. `abs_rel`, `rmse` (metres) and
    `log10` are means over the answered pixels of an image, then over the images that have any
    (NaN if none has).
    """

    delta1: Annotated[float, Metric("δ1", ".3f", is_headline=True)]
    abs_rel: Annotated[float, Metric("AbsRel", ".3f", is_headline=True)]
    rmse: Annotated[float, Metric("RMSE m", ".2f")]
    log10: Annotated[float, Metric("log10", ".3f")]
    images: int
    pixels: int
    unanswered: Annotated[int, Metric("failed", "d")]


@dataclass(frozen=True)
class Guess:
    """Depths that were guessed without looking at an image, and their scores.

    `depths`: metres, shape (bands,) from the top of the image to its bottom.
    """

    depths: NDArray[np.float64]
    metrics: DepthMetrics


def within_delta(predicted: ArrayLike, truth: ArrayLike) -> NDArray[np.bool_]:
    """Mask of max(p / g, g / p) < 1.25, strictly; False for p that is NaN or not positive."""
    predicted, truth = np.asarray(predicted, dtype=float), np.asarray(truth, dtype=float)
    answered = np.isfinite(predicted) & (predicted > 0)
    ratio = np.where(answered, predicted, np.inf) / truth
    return np.maximum(ratio, 1 / ratio, where=answered, out=np.full(ratio.shape, np.inf)) < DELTA


def abs_rel(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Mean of |p - g| / g over the answered pixels; NaN if none was answered."""
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
        ValueError: if there is no pixel, a truth is not finite and positive, or shapes differ.
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
    """Return the one depth in metres that reaches the highest delta1 on these true depths.

    The depths that a guess c gets right are those in (c / 1.25, 1.25 c): the fullest window of
    that width, in the logarithm, gives the guess.
    """
    depths = np.sort(np.asarray(truth, dtype=float).ravel())
    ends = np.searchsorted(depths, depths * DELTA**2, side="left")
    first = int(np.argmax(ends - np.arange(len(depths))))
    return float(np.sqrt(depths[first] * depths[ends[first] - 1]))


def constant_baseline(truth: Sequence[NDArray[np.floating]]) -> Guess:
    """Return the best guess that is the same for every pixel of every image.

    It is chosen on the data that it is scored on: an upper bound for a model that sees nothing.
    """
    depth = best_constant(np.concatenate(truth))
    return Guess(np.array([depth]), depth_metrics([np.full(g.shape, depth) for g in truth], truth))


def row_baseline(
    truth: Sequence[NDArray[np.floating]], rows: Sequence[NDArray[np.floating]]
) -> Guess:
    """Return the best guess for each row of an image, without looking at it.

    A model reaches this if it only knows where things usually are (floor below, far things in the
    middle). Rows fall into `ROW_BANDS` bands of the image's height, because
    images differ in height. Like the constant, the guesses are chosen on the data that they are
    scored on.

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
"""Limits of the ranges of true depth, metres, that `errors_by_range` reports."""


@dataclass(frozen=True)
class ErrorByDistance:
    """Errors of the answers about pixels whose true depth lies in [near, far), metres.

    `bias`: mean of (p - g) / g, positive if answers are too far. `abs_rel`: mean of |p - g| / g
    over these pixels. `median_m` and `p90_m`: of |p - g|.
    """

    near: float
    far: float
    bias: Annotated[float, Metric("bias", "+.3f")]
    abs_rel: Annotated[float, Metric("AbsRel", ".3f")]
    median_m: Annotated[float, Metric("median m", ".2f")]
    p90_m: Annotated[float, Metric("90 % m", ".2f")]
    pixels: Annotated[int, Metric("pixels", "d")]


def errors_by_range(predicted: ArrayLike, truth: ArrayLike) -> list[ErrorByDistance]:
    """Return the errors by true depth; ranges without an answer are left out.

    Args:
        predicted: metres, shape (n,), NaN where unanswered; these count nowhere.
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
            ErrorByDistance(
                near,
                far,
                bias=float(relative.mean()),
                abs_rel=float(np.abs(relative).mean()),
                median_m=float(np.median(metres)),
                p90_m=float(np.percentile(metres, 90)),
                pixels=int(chosen.sum()),
            )
        )
    return errors


def guess_of_rows(guess: Guess, rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the depths of a `row_baseline` at these heights in the image, metres, shape (n,)."""
    return np.asarray(guess.depths[_bands(rows)])


def _bands(rows: NDArray[np.floating]) -> NDArray[np.int64]:
    return np.minimum((rows * ROW_BANDS).astype(int), ROW_BANDS - 1)


def _image_scores(p: NDArray[np.float64], g: NDArray[np.float64]) -> tuple[float, float, float]:
    answered = np.isfinite(p)
    p, g = p[answered], g[answered]
    # Metres below a millimetre have no meaningful logarithm.
    log10 = np.abs(np.log10(np.maximum(p, 1e-3)) - np.log10(g))
    return abs_rel(p, g), float(np.sqrt(np.mean((p - g) ** 2))), float(np.mean(log10))
