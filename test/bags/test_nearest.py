# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm3_ros.bags.nearest import NearestMessages, backward_text, half_period, header_stamps
from vlm3_ros.bags.reading import open_bag
from vlm3_ros.bags.writing import write_bag
from vlm3_ros.messages.classes import ROSBAGS, stamp_nanoseconds
from vlm3_ros.messages.images import image_message

PIXEL = np.zeros((1, 1, 3), np.uint8)


def write_stamps(path: Path, stamps: Sequence[int]) -> None:
    """A topic of images with these stamps, recorded a nanosecond after another."""
    with write_bag(path) as writer:
        for recorded, stamp in enumerate(stamps):
            writer.write("/image", image_message(ROSBAGS.header(stamp, "c"), PIXEL), recorded)


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=40), st.data())
def test_the_nearest_message_is_found_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, stamps: list[int], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("nearest") / "bag"
    write_stamps(path, stamps)
    wanted = data.draw(st.lists(st.integers(0, 10**10), max_size=10))
    with open_bag(path) as bag:
        np.testing.assert_array_equal(header_stamps(bag, "/image", []), stamps)
        nearest = NearestMessages(bag, "/image", [])
        for time in wanted:
            gap = min(abs(stamp - time) for stamp in stamps)
            message = nearest.at(time, gap / 1e9 + 1e-9)
            assert message is not None
            assert abs(stamp_nanoseconds(message.header) - time) == gap
            assert gap < 100 or nearest.at(time, gap / 1e9 - 5e-8) is None


def test_no_topic_and_no_message_find_nothing(tmp_path: Path) -> None:
    write_stamps(tmp_path / "bag", [5])
    with open_bag(tmp_path / "bag") as bag:
        assert NearestMessages(bag, None, []).at(5, 1.0) is None


def test_stamps_that_go_back_are_told() -> None:
    assert backward_text(np.array([1, 2, 2, 3])) == ""
    text = backward_text(np.array([0, 10, 5, 20, 0]) * 1_000_000_000)
    assert text == "stamps go back 2 times, by up to 20 s"


def test_half_the_period_is_that_of_most_stamps() -> None:
    assert half_period(np.array([0, 33, 66, 66, 500, 533]) * 1_000_000) == 0.0165
    assert half_period(np.array([7])) == 0.0
