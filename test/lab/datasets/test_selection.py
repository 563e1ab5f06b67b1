# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vlm3_lab.datasets.selection import Selection, choose_frames, evenly_spread
from vlm3_ros.geometry.motion import transform

SECOND = 1_000_000_000
STAMPS = np.arange(100) * SECOND // 30  # stamps of 30 Hz are rounded
EVERY = Selection(held_out=0, held_out_gap=0, min_gap=0, min_motion=0)


def straight(speed: float, turn_deg: float = 0.0) -> np.ndarray:
    """Poses at 30 Hz with metres and degrees per frame."""
    return np.stack(
        [
            transform(Rotation.from_euler("y", turn_deg * i, degrees=True), (0, 0, speed * i))
            for i in range(len(STAMPS))
        ]
    )


def test_everything_may_be_kept() -> None:
    kept, left_out = choose_frames(STAMPS, None, EVERY)
    assert kept == dict.fromkeys(STAMPS.tolist(), "train")
    assert not left_out


def test_the_last_share_of_the_time_is_held_out_after_a_gap() -> None:
    kept, left_out = choose_frames(
        STAMPS, None, Selection(held_out=0.25, held_out_gap=0.5, min_gap=0, min_motion=0)
    )
    train = [stamp for stamp, split in kept.items() if split == "train"]
    held_out = [stamp for stamp, split in kept.items() if split == "held_out"]
    assert held_out == STAMPS[75:].tolist()
    assert held_out[0] - train[-1] >= 0.5 * SECOND
    assert left_out == {"less than 0.5 s before those held out": 100 - len(kept)}


@pytest.mark.parametrize(("gap", "step"), [(0.1, 3), (0.2, 6), (1 / 30, 1)])
def test_frames_keep_their_distance_in_time(gap: float, step: int) -> None:
    kept, _ = choose_frames(
        STAMPS, None, Selection(held_out=0, held_out_gap=0, min_gap=gap, min_motion=0)
    )
    assert list(kept) == STAMPS[::step].tolist()


def test_a_camera_at_rest_gives_one_frame() -> None:
    selection = Selection(held_out=0, held_out_gap=0, min_gap=0, min_motion=0.1)
    assert list(choose_frames(STAMPS, straight(0.0), selection)[0]) == [0]
    assert list(choose_frames(STAMPS, straight(0.026), selection)[0]) == STAMPS[::4].tolist()
    assert list(choose_frames(STAMPS, straight(0.0, 0.41), selection)[0]) == STAMPS[::5].tolist()
    kept, left_out = choose_frames(STAMPS, np.full((100, 4, 4), np.nan), selection)
    assert len(kept) == 100 and not left_out


def test_many_are_thinned_evenly() -> None:
    selection = Selection(held_out=0.2, held_out_gap=0, min_gap=0, min_motion=0, max_images=12)
    kept, left_out = choose_frames(STAMPS, None, selection)
    assert len(kept) == 12
    assert np.ptp(np.diff(list(kept))) <= 0.034 * SECOND
    assert left_out == {"more than 12 of a bag": 88}
    assert evenly_spread([1, 2, 3], 5) == [1, 2, 3]
    assert evenly_spread(list(range(10)), 1) == [0]
