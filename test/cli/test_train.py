from __future__ import annotations

from pathlib import Path

import cv2


def test_a_run_leaves_a_scored_checkpoint_and_its_curve(
    training_run: Path, training_log: list[dict[str, float]]
) -> None:
    assert (training_run / "final" / "model.safetensors").is_file()
    assert cv2.imread(str(training_run / "curves.png")) is not None
    (scored,) = [entry for entry in training_log if "delta1" in entry]
    assert scored["step"] == 60
    assert 0 <= scored["delta1"] <= 1
    assert scored["abs_rel"] > 0
