# SPDX-License-Identifier: Apache-2.0
"""What several models take together, said before any is loaded."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import pytest

pytest.importorskip("transformers")

from vlm3_ros.engines import checkpoint
from vlm3_ros.engines.checkpoint import preflight
from vlm3_ros.engines.memory import report_memory
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.paths import default_model

ONE = EngineSettings(str(default_model("depth")), device="cpu", offline=True)
OTHER = replace(ONE, model=str(default_model("pose")))


def test_models_are_counted_as_their_preflight_counts_them():
    ((text, fits),) = report_memory([ONE, OTHER, ONE])
    assert fits
    needed = [preflight(one).needed_bytes for one in (ONE, OTHER)]
    sizes = [f"{size / 1e6:.0f} MB" for size in (sum(needed), *needed)]
    pattern = (
        rf"2 models, about {sizes[0]} of [\d.]+ GB free memory on cpu: vlm3-tiny {sizes[1]}, "
        rf"vlm3-tiny-pairs {sizes[2]}"
    )
    assert re.fullmatch(pattern, text)


def test_four_large_models_that_do_not_fit_together(monkeypatch):
    monkeypatch.setattr(checkpoint, "estimate_memory", lambda model, dtype: 10_650_000_000)
    monkeypatch.setattr(checkpoint, "free_memory", lambda device: 16_000_000_000)
    names = ("depth", "pose", "corr", "object")
    ((text, fits),) = report_memory(replace(ONE, model=f"facebook/VLM3-{name}") for name in names)
    assert not fits
    assert text == (
        "4 models, about 42.6 GB of 16.0 GB free memory on cpu: VLM3-depth 10.7 GB, VLM3-pose "
        "10.7 GB, VLM3-corr 10.7 GB, VLM3-object 10.7 GB. They do not fit together: free some "
        "memory, let tasks share a model, or run nodes on other devices"
    )


def test_nothing_is_downloaded(monkeypatch):
    def forbidden(*arguments, local_files_only=False, **options):
        assert local_files_only
        raise FileNotFoundError

    monkeypatch.setattr("huggingface_hub.snapshot_download", forbidden)
    missing = [replace(ONE, model=f"facebook/VLM3-{name}") for name in ("pose", "corr")]
    ((text, fits),) = report_memory([ONE, missing[0]])
    assert fits
    assert re.fullmatch(
        r"2 models, at least (\d+ MB) of .*: vlm3-tiny \1, VLM3-pose is not downloaded yet", text
    )
    assert report_memory(missing) == []


def test_a_folder_without_its_weights(tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(default_model("pose"), folder)
    (folder / "model.safetensors").unlink()
    ((text, _),) = report_memory([ONE, replace(ONE, model=str(folder))])
    assert text.endswith(" MB, half is not complete")


@pytest.mark.parametrize(
    "settings",
    [
        [],
        [ONE, ONE],
        [ONE, replace(OTHER, engine="openai")],
        [replace(ONE, engine="recorded"), replace(OTHER, engine="recorded")],
        [replace(one, device="tpu") for one in (ONE, OTHER)],  # its preflight says what is wrong
    ],
    ids=["none", "shared", "server", "recordings", "device"],
)
def test_nothing_is_said_of_less_than_two_models_in_this_process(settings):
    assert report_memory(settings) == []


def test_damaged_weights_are_left_to_the_preflight(tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(default_model("pose"), folder)
    (folder / "model.safetensors").write_bytes(b"nonsense")
    assert report_memory([ONE, replace(ONE, model=str(folder))]) == []
