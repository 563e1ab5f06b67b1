# SPDX-License-Identifier: Apache-2.0
"""Report on a training set: tables, distributions and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlm3_lab.datasets.selection import evenly_spread, reason_text
from vlm3_ros.datasets.own import Dataset
from vlm3_ros.datasets.views import ViewPair
from vlm3_ros.evaluation.html import write_page
from vlm3_ros.evaluation.pictures.depth import DepthFrame, draw_depth_frames
from vlm3_ros.evaluation.pictures.figures import png_source, svg_source
from vlm3_ros.evaluation.pictures.pair import PairFrame, draw_pair_frames
from vlm3_ros.evaluation.tables import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 4
"""Frames, and pairs, that a report shows, taken evenly."""

MATCHES = 12
"""Matches that are drawn per pair."""

FRAMES_TITLE = "Frames and their known depth"
PAIRS_TITLE = "Pairs: true motions and true matches"
PAIRS_LEGEND = "dots and lines: points that both images show, from depth and poses"

_SPLITS = ("train", "held_out")
_COLOURS = {"train": "#2c6fae", "held_out": "#c8401e", "": "#2c6fae"}

Measured = Mapping[str, Mapping[str, NDArray[np.float64]]]
"""Values by quantity, and by split or "" for all."""


def write_report(dataset: Dataset) -> list[str]:
    """Write report.html and pictures/*.png; return the names of the written files."""
    pictures = dataset.folder / "pictures"
    pictures.mkdir(exist_ok=True)
    drawn = {"frames.png": "Frames, their labelled pixels and their depth"}
    draw_depth_frames(_shown_frames(dataset), pictures / "frames.png", FRAMES_TITLE)
    if dataset.listed:
        drawn["pairs.png"] = "Pairs and points that both images show"
        draw_pair_frames(
            _shown_pairs(dataset), pictures / "pairs.png", PAIRS_TITLE, legend=PAIRS_LEGEND
        )
    figure = plot_distributions(_measured(dataset))
    figure.savefig(pictures / "distributions.png", dpi=110)
    counts = dataset.description["counts"]
    made = " and ".join(
        f"{counts[split]['frames']:,} frames {words}"
        for split, words in (("train", "to train on"), ("held_out", "held out"))
    )
    write_page(
        dataset.folder / "report.html",
        f"Training set of {len(dataset.description['bags'])} recordings",
        f"{made}; {sum(counts[split]['pairs'] for split in _SPLITS):,} pairs.",
        [
            *((title, png_source((pictures / name).read_bytes())) for name, title in drawn.items()),
            ("Distributions", svg_source(figure)),
        ],
        None,
        dataset_tables(dataset),
        left_out_facts(dataset),
    )
    return ["report.html", *(f"pictures/{name}" for name in ("distributions.png", *drawn))]


def dataset_tables(dataset: Dataset) -> list[TextTable]:
    """Tables of the contents of each split, and of their distributions."""
    counts = dataset.description["counts"]
    made = TextTable(
        "contents",
        ("", "frames", "depth labels", "pairs", "frames with objects"),
        tuple(
            (
                split.replace("_", " "),
                *(
                    f"{counts[split][key]:,}"
                    for key in ("frames", "depth_labels", "pairs", "frames_with_objects")
                ),
            )
            for split in _SPLITS
        ),
        note=f"{dataset.description['stored_bytes'] / 1e6:,.1f} MB of images and depth",
        has_baselines=False,
    )
    return [made, distribution_table(_measured(dataset))]


def distribution_table(measured: Measured) -> TextTable:
    """Table of the quantiles of each quantity."""
    rows = [
        (", ".join(filter(None, (name, part.replace("_", " ")))), *_quantile_texts(values))
        for name, by_part in measured.items()
        for part, values in by_part.items()
        if len(values)
    ]
    columns = ("", "5 %", "25 %", "median", "75 %", "95 %")
    return TextTable("distributions", columns, tuple(rows), has_baselines=False)


def left_out_facts(dataset: Dataset) -> dict[str, str]:
    """Per bag, in words: what was skipped and why, and remarks."""
    facts = {}
    for bag in dataset.description["bags"]:
        name = bag["name"]
        facts[f"{name}: depth"] = bag["topics"]["depth"]
        facts[f"{name}: poses"] = bag["poses"] or f"none, so there are no pairs: {bag['no_poses']}"
        facts[f"{name}: {bag['frames']} of {bag['images']} images were kept; skipped"] = (
            reason_text(bag["left_out"]) or "none"
        )
        for what in ("pairs", "boxes"):
            if bag[f"left_out_{what}"]:
                facts[f"{name}: {what} skipped"] = reason_text(bag[f"left_out_{what}"])
        if bag["notes"]:
            facts[f"{name}: remarks"] = "; ".join(bag["notes"])
    return facts


def plot_distributions(measured: Measured) -> Figure:
    """Histograms of quantities, two in a row."""
    from matplotlib.figure import Figure

    rows = (len(measured) + 1) // 2
    figure = Figure(figsize=(9.0, 2.7 * rows), layout="constrained", facecolor="white")
    cells = list(figure.subplots(rows, 2, squeeze=False).flat)
    for axes in cells[len(measured) :]:
        axes.axis("off")
    for axes, (name, by_part) in zip(cells, measured.items(), strict=False):
        axes.set_xlabel(name)
        axes.spines[["top", "right"]].set_visible(False)
        values = np.concatenate(list(by_part.values()))
        if not len(values):
            axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes)
            continue
        # Of values that differ by rounding only, NumPy makes no bins.
        edges = np.histogram_bin_edges(np.round(values, 9), 30)
        for part, of_part in by_part.items():
            label = " ".join(filter(None, (part.replace("_", " "), f"({len(of_part):,})")))
            axes.hist(of_part, edges, color=_COLOURS[part], alpha=0.65, label=label)
        axes.legend(loc="upper right", fontsize=8, frameon=False)
    return figure


def _measured(dataset: Dataset) -> Measured:
    measured: dict[str, dict[str, NDArray[np.float64]]] = {}
    for split in _SPLITS:
        frames = [frame for frame in dataset.frames if frame.split == split]
        pairs = [pair for pair in dataset.listed if pair.split == split]
        for name, values in {
            "depth in m": [z for frame in frames for z in frame.depths],
            "covisibility": [pair.covisibility for pair in pairs],
            "baseline in m": [pair.baseline_m for pair in pairs],
            "rotation in degrees": [pair.rotation_deg for pair in pairs],
        }.items():
            measured.setdefault(name, {})[split] = np.array(values, dtype=float)
    return measured


def _quantile_texts(values: NDArray[np.float64]) -> list[str]:
    return [f"{value:.2f}" for value in np.percentile(values, (5, 25, 50, 75, 95))]


def _shown_frames(dataset: Dataset) -> list[DepthFrame]:
    shown = []
    for index in evenly_spread(list(range(len(dataset.frames))), SHOWN):
        frame, view = dataset.frames[index], dataset.read(index)
        title = f"{frame.bag}\nframe {index}, {frame.split.replace('_', ' ')}"
        shown.append(DepthFrame(title, view.image, frame.pixels, frame.depths, None, view.depth))
    return shown


def _shown_pairs(dataset: Dataset) -> list[PairFrame]:
    shown = []
    for index in evenly_spread(list(range(len(dataset.listed))), SHOWN):
        pair = dataset.listed[index]
        title = (
            f"frames {pair.first} and {pair.second} of {dataset.frames[pair.first].bag}, "
            f"{pair.split.replace('_', ' ')}: covisibility {pair.covisibility:.0%}"
        )
        views = ViewPair(dataset.read(pair.first), dataset.read(pair.second))
        shown.append(pair_picture(title, views, np.random.default_rng(index)))
    return shown


def pair_picture(title: str, views: ViewPair, rng: np.random.Generator) -> PairFrame:
    """A pair with its motion and random matches, to draw it."""
    rows, columns = np.nonzero(np.isfinite(views.first.depth))
    chosen = rng.choice(len(rows), min(4 * MATCHES, len(rows)), replace=False)
    pixels1 = np.stack([columns, rows], -1)[chosen].astype(float)
    pixels2 = views.matches(pixels1)
    matched = np.flatnonzero(np.isfinite(pixels2[:, 0]))[:MATCHES]
    images = (views.first.image, views.second.image)
    return PairFrame(
        title, images, pixels1[matched], pixels2[matched], None, None, views.T_cam1_cam2
    )
