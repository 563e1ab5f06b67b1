# SPDX-License-Identifier: Apache-2.0
"""Report on a training set: tables, distributions and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlm3_lab.datasets.frame_pairs import matches
from vlm3_lab.datasets.reading import Dataset, read_view
from vlm3_lab.datasets.selection import evenly_spread, reason_text
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

_SPLITS = ("train", "held_out")
_COLOURS = {"train": "#2c6fae", "held_out": "#c8401e"}


def write_report(dataset: Dataset) -> list[str]:
    """Write report.html and pictures/*.png; return the names of the written files."""
    pictures = dataset.folder / "pictures"
    pictures.mkdir(exist_ok=True)
    drawn = {"frames.png": "Frames, their labelled pixels and their depth"}
    draw_depth_frames(
        _shown_frames(dataset), pictures / "frames.png", "Frames and their known depth"
    )
    if dataset.pairs:
        drawn["pairs.png"] = "Pairs and points that both images show"
        draw_pair_frames(
            _shown_pairs(dataset),
            pictures / "pairs.png",
            "Pairs: true motions and true matches",
            legend="dots and lines: points that both images show, from depth and poses",
        )
    figure = plot_distributions(dataset)
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
    rows = [
        (f"{name}, {split.replace('_', ' ')}", *(f"{value:.2f}" for value in _quantiles(values)))
        for name, by_split in _measured(dataset).items()
        for split, values in by_split.items()
        if len(values)
    ]
    columns = ("", "5 %", "25 %", "median", "75 %", "95 %")
    return [made, TextTable("distributions", columns, tuple(rows), has_baselines=False)]


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


def plot_distributions(dataset: Dataset) -> Figure:
    """Histograms of depth and, if there are pairs, of covisibility, baseline and rotation."""
    from matplotlib.figure import Figure

    measured = _measured(dataset)
    figure = Figure(figsize=(9.0, 5.4), layout="constrained", facecolor="white")
    for axes, (name, by_split) in zip(figure.subplots(2, 2).flat, measured.items(), strict=True):
        axes.set_xlabel(name)
        axes.spines[["top", "right"]].set_visible(False)
        values = np.concatenate(list(by_split.values()))
        if not len(values):
            axes.text(0.5, 0.5, "no pairs", ha="center", transform=axes.transAxes)
            continue
        # Of values that differ by rounding only, NumPy makes no bins.
        edges = np.histogram_bin_edges(np.round(values, 9), 30)
        for split, part in by_split.items():
            label = f"{split.replace('_', ' ')} ({len(part):,})"
            axes.hist(part, edges, color=_COLOURS[split], alpha=0.65, label=label)
        axes.legend(loc="upper right", fontsize=8, frameon=False)
    return figure


def _measured(dataset: Dataset) -> dict[str, dict[str, NDArray[np.float64]]]:
    """All values by quantity and split."""
    measured: dict[str, dict[str, NDArray[np.float64]]] = {}
    for split in _SPLITS:
        frames = [frame for frame in dataset.frames if frame.split == split]
        pairs = [pair for pair in dataset.pairs if pair.split == split]
        for name, values in {
            "depth in m": [z for frame in frames for z in frame.depths],
            "covisibility": [pair.covisibility for pair in pairs],
            "baseline in m": [pair.baseline_m for pair in pairs],
            "rotation in degrees": [pair.rotation_deg for pair in pairs],
        }.items():
            measured.setdefault(name, {})[split] = np.array(values, dtype=float)
    return measured


def _quantiles(values: NDArray[np.float64]) -> Sequence[float]:
    quantiles: list[float] = np.percentile(values, (5, 25, 50, 75, 95)).tolist()
    return quantiles


def _shown_frames(dataset: Dataset) -> list[DepthFrame]:
    shown = []
    for index in evenly_spread(list(range(len(dataset.frames))), SHOWN):
        frame, view = dataset.frames[index], read_view(dataset, index)
        title = f"{frame.bag}\nframe {index}, {frame.split.replace('_', ' ')}"
        shown.append(DepthFrame(title, view.image, frame.pixels, frame.depths, None, view.depth))
    return shown


def _shown_pairs(dataset: Dataset) -> list[PairFrame]:
    shown = []
    for index in evenly_spread(list(range(len(dataset.pairs))), SHOWN):
        pair = dataset.pairs[index]
        first, second = (read_view(dataset, i) for i in (pair.first, pair.second))
        rows, columns = np.nonzero(np.isfinite(first.depth))
        chosen = np.random.default_rng(index).choice(
            len(rows), min(4 * MATCHES, len(rows)), replace=False
        )
        pixels1 = np.stack([columns, rows], -1)[chosen].astype(float)
        pixels2 = matches(first, second, pixels1)
        matched = np.flatnonzero(np.isfinite(pixels2[:, 0]))[:MATCHES]
        title = (
            f"frames {pair.first} and {pair.second} of {dataset.frames[pair.first].bag}, "
            f"{pair.split.replace('_', ' ')}: covisibility {pair.covisibility:.0%}"
        )
        motion = np.linalg.inv(first.T_world_camera) @ second.T_world_camera
        images = (first.image, second.image)
        shown.append(
            PairFrame(title, images, pixels1[matched], pixels2[matched], None, None, motion)
        )
    return shown
