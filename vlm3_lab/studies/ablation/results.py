# SPDX-License-Identifier: Apache-2.0
"""Results of an ablation: delta1 of each training run, their differences, and intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap

from vlm3_lab.scenes import KINDS
from vlm3_ros.evaluation.json_file import write_json
from vlm3_ros.evaluation.metrics.depth import (
    constant_baseline,
    depth_metrics,
    row_baseline,
    within_delta,
)
from vlm3_ros.evaluation.scores.base import by_group
from vlm3_ros.evaluation.scores.depth import ScoredView

CONFIDENCE = 0.95
RESAMPLES = 9999


@dataclass(frozen=True)
class Finding:
    """A question that arms answer: the others are compared with the first, the paper's method.

    `paper`: delta1 by arm, as the paper reports it for its model and data.
    """

    name: str
    title: str
    arms: tuple[str, ...]
    paper: Mapping[str, float]


@dataclass(frozen=True)
class ArmScore:
    """The result of one training run.

    `views`: answers of its checkpoint, on the same pixels as all others. `labels`: number of true
    depths that it learned from, repetitions included. `warmup_seconds`, `seconds`: of the two
    parts of its training; the first may be shared with other arms.
    """

    arm: str
    seed: int
    views: tuple[ScoredView, ...]
    labels: int
    warmup_seconds: float
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """An arm within a finding.

    `delta1`: over all seeds. `difference`: from the finding's first arm, over all seeds, paired by
    image; None for the first arm. `by_seed`, `by_kind`: delta1. `labels_per_s`: labelled pixels
    learned from per second of training. `paper`: delta1 in the paper; None if it reports none.
    """

    finding: str
    arm: str
    delta1: Estimate
    difference: Estimate | None
    abs_rel: float
    unanswered: int
    by_seed: tuple[float, ...]
    by_kind: Mapping[str, float]
    warmup_seconds: float
    seconds: float
    labels_per_s: float
    paper: float | None


def pooled_mean(sums: ArrayLike, counts: ArrayLike) -> Estimate:
    """Mean over all pixels, with a percentile bootstrap interval over images.

    Errors within one image are correlated, so images are resampled, not pixels.

    Args:
        sums: per image, of the averaged value, shape (n,), n >= 2. For the difference of two
            models: the difference of their sums, which pairs them by image.
        counts: pixels of each image, shape (n,).
    """
    sums, counts = np.asarray(sums, float), np.asarray(counts, float)

    def mean(
        sums: NDArray[np.float64], counts: NDArray[np.float64], axis: int
    ) -> NDArray[np.float64]:
        return np.asarray(sums.sum(axis=axis) / counts.sum(axis=axis))

    interval = bootstrap(
        (sums, counts),
        mean,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(float(sums.sum() / counts.sum()), float(interval.low), float(interval.high))


def finding_rows(finding: Finding, scores: Sequence[ArmScore]) -> list[Row]:
    """Rows of the scored arms of a finding; empty if its first arm is not scored."""
    of_arm = {arm: [score for score in scores if score.arm == arm] for arm in finding.arms}
    reference = of_arm[finding.arms[0]]
    if not reference:
        return []
    return [
        _row(finding, arm, own, None if own is reference else reference)
        for arm, own in of_arm.items()
        if own
    ]


def baselines(views: Sequence[ScoredView]) -> dict[str, float]:
    """Delta1 of the best guesses without looking at the image, chosen on the same pixels."""
    truth = [view.truth for view in views if view.truth.size]
    rows = [view.rows for view in views if view.truth.size]
    return {
        "constant": constant_baseline(truth).metrics.delta1,
        "row": row_baseline(truth, rows).metrics.delta1,
    }


def ablation_markdown(
    findings: Sequence[Finding], scores: Sequence[ArmScore], words: Mapping[str, str]
) -> str:
    """Tables of all findings as Markdown.

    Args:
        findings: their arms may be scored or not.
        scores: at least one.
        words: description of each arm.
    """
    guesses = baselines(scores[0].views)
    seeds = 1 + max(score.seed for score in scores)
    images, pixels = len(scores[0].views), sum(view.truth.size for view in scores[0].views)
    parts = [
        f"{pixels} pixels of {images} unseen procedural views, {seeds} seed(s). In brackets: 95 % "
        "intervals, bootstrap over views; differences are paired by view. Best constant guess: "
        f"δ1 {guesses['constant']:.3f}; best guess per image row: {guesses['row']:.3f}."
    ]
    header = [
        "arm",
        "δ1",
        "difference",
        *(["δ1 per seed"] if seeds > 1 else []),
        "AbsRel",
        *(f"δ1 {kind}" for kind in KINDS),
        "labelled pixels/s",
        "training s",
        "paper δ1",
    ]
    for finding in findings:
        rows = finding_rows(finding, scores)
        if not rows:
            continue
        lines = [_cells(row, words[row.arm], seeds > 1) for row in rows]
        table = [header, ["---", *["---:"] * (len(header) - 1)], *lines]
        parts.append(f"### {finding.title}")
        parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in table))
    return "\n\n".join(parts) + "\n"


def ablation_json(
    findings: Sequence[Finding], scores: Sequence[ArmScore], words: Mapping[str, str]
) -> dict[str, Any]:
    """All numbers of the tables, and more, as JSON."""
    return {
        "views": len(scores[0].views),
        "pixels": sum(view.truth.size for view in scores[0].views),
        "seeds": 1 + max(score.seed for score in scores),
        "baselines": baselines(scores[0].views),
        "findings": {
            finding.name: [_row_json(row, words[row.arm]) for row in finding_rows(finding, scores)]
            for finding in findings
        },
    }


def draw_ablation(
    findings: Sequence[Finding],
    scores: Sequence[ArmScore],
    words: Mapping[str, str],
    path: Path | str,
) -> None:
    """Draw delta1 of all arms with its interval, one panel per finding, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = [
        (finding.title, rows) for finding in findings if (rows := finding_rows(finding, scores))
    ]
    heights = [len(rows) + 0.6 for _, rows in parts]
    figure = Figure(figsize=(9, 0.42 * sum(heights) + 1.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    constant = baselines(scores[0].views)["constant"]
    panels = figure.subplots(len(parts), 1, sharex=True, squeeze=False, height_ratios=heights)
    for axes, (title, rows) in zip(panels[:, 0], parts, strict=True):
        for place, row in enumerate(rows):
            delta1 = row.delta1
            axes.barh(place, delta1.value, color="#4878a8" if row.difference is None else "#b9c6d3")
            ends = [[delta1.value - delta1.low], [delta1.high - delta1.value]]
            axes.errorbar(delta1.value, place, xerr=ends, color="black", capsize=3, linewidth=1)
            axes.text(delta1.high, place, f"  {_delta1_words(row)}", va="center", fontsize=8)
        axes.axvline(constant, color="#c8401e", linestyle=":", linewidth=1)
        axes.set_yticks(range(len(rows)), [words[row.arm] for row in rows], fontsize=8)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    most = max(constant, *(row.delta1.high for _, rows in parts for row in rows))
    panels[-1, 0].set_xlim(0, 1.45 * most)
    panels[-1, 0].set_xlabel("δ1 on unseen views, 95 % interval; dotted: best constant guess")
    figure.savefig(path)


def write_score(score: ArmScore, path: Path | str) -> None:
    """Write a score as JSON; `read_score` reads it."""
    write_json(
        path,
        {
            "arm": score.arm,
            "seed": score.seed,
            "labels": score.labels,
            "warmup_seconds": score.warmup_seconds,
            "seconds": score.seconds,
            "views": [
                {
                    "index": view.index,
                    "kind": view.group,
                    **{
                        name: getattr(view, name).tolist()
                        for name in ("predicted", "std", "truth", "rows")
                    },
                }
                for view in score.views
            ],
        },
    )


def read_score(path: Path | str) -> ArmScore:
    """Read a score that `write_score` wrote."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    views = []
    for view in content.pop("views"):
        # null: not answered
        arrays = (np.array(view[name], float) for name in ("predicted", "std", "truth", "rows"))
        predicted, std, truth, rows = arrays
        views.append(ScoredView(view["index"], view["kind"], predicted, std, truth, rows))
    return ArmScore(views=tuple(views), **content)


def _row(
    finding: Finding, arm: str, scores: list[ArmScore], reference: list[ArmScore] | None
) -> Row:
    hits, counts = _hits(scores)
    difference = None
    if reference is not None:
        # Only the seeds that both have.
        seeds = {score.seed for score in scores} & {score.seed for score in reference}
        if seeds:
            ours, theirs = (
                _hits([score for score in own if score.seed in seeds])
                for own in (scores, reference)
            )
            difference = pooled_mean((ours[0] - theirs[0]).sum(axis=0), ours[1].sum(axis=0))
    views = [view for score in scores for view in score.views if view.truth.size]
    metrics = depth_metrics([v.predicted for v in views], [v.truth for v in views])
    seconds = sum(score.seconds for score in scores)
    return Row(
        finding=finding.name,
        arm=arm,
        delta1=pooled_mean(hits.sum(axis=0), counts.sum(axis=0)),
        difference=difference,
        abs_rel=metrics.abs_rel,
        unanswered=metrics.unanswered,
        by_seed=tuple((hits.sum(axis=1) / counts.sum(axis=1)).tolist()),
        by_kind={
            kind: depth_metrics([v.predicted for v in own], [v.truth for v in own]).delta1
            for kind, own in by_group(views).items()
        },
        warmup_seconds=sum(score.warmup_seconds for score in scores) / len(scores),
        seconds=seconds / len(scores),
        labels_per_s=sum(score.labels for score in scores) / seconds,
        paper=finding.paper.get(arm),
    )


def _hits(scores: Sequence[ArmScore]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels within delta1, and all pixels, per seed and view, shape (seeds, views) each."""
    hits = [[within_delta(v.predicted, v.truth).sum() for v in score.views] for score in scores]
    return np.array(hits), np.array([[v.truth.size for v in score.views] for score in scores])


def _row_json(row: Row, words: str) -> dict[str, Any]:
    def interval(estimate: Estimate | None) -> dict[str, float] | None:
        return None if estimate is None else asdict(estimate)

    return {
        "arm": row.arm,
        "words": words,
        "delta1": interval(row.delta1),
        "difference": interval(row.difference),
        "abs_rel": row.abs_rel,
        "unanswered": row.unanswered,
        "delta1_by_seed": row.by_seed,
        "delta1_by_kind": row.by_kind,
        "warmup_seconds": row.warmup_seconds,
        "seconds": row.seconds,
        "labels_per_second": row.labels_per_s,
        "paper_delta1": row.paper,
    }


def _cells(row: Row, words: str, has_seeds: bool) -> list[str]:
    return [
        words,
        _delta1_words(row),
        "" if row.difference is None else _words(row.difference, "+.3f"),
        *([", ".join(f"{value:.3f}" for value in row.by_seed)] if has_seeds else []),
        f"{row.abs_rel:.3f}" if np.isfinite(row.abs_rel) else "",
        *(f"{row.by_kind[kind]:.3f}" if kind in row.by_kind else "" for kind in KINDS),
        f"{row.labels_per_s:.0f}",
        f"{row.warmup_seconds:.0f} + {row.seconds:.0f}",
        "" if row.paper is None else f"{row.paper:.3f}",
    ]


def _delta1_words(row: Row) -> str:
    return _words(row.delta1, ".3f")


def _words(estimate: Estimate, form: str) -> str:
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"
