from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vlm3_ros.bags.errors import BagError
from vlm3_ros.bags.messages import compressed_depth_message
from vlm3_ros.bags.reading import Bag, open_bag
from vlm3_ros.bags.writing import write_bag
from vlm3_ros.evaluation.streams import depth_images, score_stream, true_depths

STAMPS = (100, 200, 300)


def ramp(index: int) -> np.ndarray:
    """Depth of 1 m in the first column, 1 m more in each further one; a hole in a corner."""
    depth = np.tile(np.arange(1.0, 9.0) + index, (6, 1))
    depth[0, 0] = np.nan
    return depth


@pytest.fixture
def bag(tmp_path: Path) -> Iterator[Bag]:
    with write_bag(tmp_path / "bag") as writer:
        for index, stamp in enumerate(STAMPS):
            message = compressed_depth_message(ramp(index), stamp, "camera")
            writer.write("/depth/compressedDepth", message, stamp + 50)
    with open_bag(tmp_path / "bag") as bag:
        yield bag


def test_truth_is_that_of_the_nearest_pixel_and_of_the_headers_stamp(bag: Bag) -> None:
    pixels = [[0.0, 0.0], [0.4, 2.0], [0.6, 2.0], [7.4, 5.4]]
    truth = true_depths(bag, "/depth/compressedDepth", pixels)
    assert set(truth) == set(STAMPS)
    np.testing.assert_allclose(truth[200], [np.nan, 2, 3, 9])


def test_depth_of_another_size_is_refused(bag: Bag) -> None:
    with pytest.raises(BagError, match="are 8x6, smaller than the images"):
        true_depths(bag, "/depth/compressedDepth", [[8.0, 1.0]])


def test_only_the_wanted_depth_images_are_kept(bag: Bag) -> None:
    images = depth_images(bag, "/depth/compressedDepth", {300})
    assert set(images) == {300}
    np.testing.assert_allclose(images[300], ramp(2))


def test_frames_are_scored_where_truth_is_known() -> None:
    predicted = {1: np.array([[1.0, 2.0], [np.nan, 9.0]]), 2: np.array([4.0, 4.0, 4.0, 4.0])}
    truth = {
        1: np.array([1.0, np.nan, 1.0, 9.0]),
        2: np.array([4.0, 5.0, np.nan, np.nan]),
        3: np.array([1.0, 1.0, 1.0, 1.0]),
    }
    metrics = score_stream(predicted, truth)
    # Right: 1.0, 9.0, 4.0; wrong: one unanswered, and 4 for 5, which is a quarter too much.
    assert (metrics.pixels, metrics.unanswered, metrics.images) == (5, 1, 2)
    assert metrics.delta1 == 3 / 5
    assert metrics.abs_rel == pytest.approx((0 + 0.1) / 2)


def test_frames_that_nothing_is_known_of_cannot_be_scored() -> None:
    for truth in ({2: np.array([1.0])}, {1: np.array([np.nan])}):
        with pytest.raises(BagError, match="no depth image of the bag has the stamp"):
            score_stream({1: np.array([1.0])}, truth)
