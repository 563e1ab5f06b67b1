# SPDX-License-Identifier: Apache-2.0
"""The depth node with a real model, from image to cloud."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rosbags.image import image_to_cvimage

from vlm3_lab.scenes.views import sample_view
from vlm3_lab.training.checkpoint import TinyShape, build_checkpoint
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.paths import default_model
from vlm3_ros.tasks.depth import ask_depth, uniform_grid

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The embedded checkpoint; if it is missing, one with random weights."""
    if default_model().is_dir():
        return default_model()
    folder = tmp_path_factory.mktemp("models") / "random"
    build_checkpoint(folder, TinyShape(), Profile(250.0, "pad", load_prompt_set("vlm3")))
    return folder


def test_published_depths_are_the_answers_of_the_model(make_rig, bench, model):
    view = sample_view(np.random.default_rng(5), "room")
    settings = {"device": "cpu", "dtype": "float32", "offline": True}
    rig = make_rig(parameters={"model": str(model), **settings, "grid_columns": 6, "grid_rows": 4})
    rig.wait_active()
    message = bench.rgb_message(bench.now(), view.image)
    rig.send(message, camera_info_message(message.header, view.camera))
    stamp = bench.stamp_of(message)
    for topic in bench.OUTPUTS:
        rig.wait_for_stamp(stamp, topic)

    engine = load_engine(EngineSettings(str(model), **settings))
    pixels = uniform_grid(view.camera, 6, 4)
    answers = ask_depth(engine, view.image, view.camera, pixels)
    engine.close()
    sparse = image_to_cvimage(rig.received["depth/image_rect"][-1])
    np.testing.assert_array_equal(sparse.ravel(), answers.depth)
    (cloud,) = rig.received["points"]
    known = np.isfinite(answers.depth)
    cells = np.frombuffer(cloud.data, np.float32).reshape(-1, 5)
    expected = view.camera.unproject(pixels, answers.depth)[known]
    np.testing.assert_allclose(cells[:, :3], expected, rtol=1e-5)
    np.testing.assert_array_equal(cells[:, 4], answers.std[known])
    rig.wait(lambda: rig.report().answered == 1, "the answer's count")
    assert rig.report().unread == answers.failures
    rig.wait_for_status("model", OK, "is loaded")


def incomplete(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    (folder / "model.safetensors").unlink()
    return folder


def of_another_kind(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def cut_off(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return folder


@pytest.mark.parametrize("damage", [incomplete, of_another_kind, cut_off, None])
def test_a_model_that_cannot_be_used(make_rig, bench, model, tmp_path, damage):
    folder = tmp_path / "model"
    if damage:
        damage(model, folder)
    rig = make_rig(parameters={"model": str(folder), "device": "cpu", "offline": True})
    rig.wait_for_status("model", ERROR, re.escape(str(folder)))
    assert rig.state() == "unconfigured"
    (line,) = rig.log_lines("the node stays unconfigured")
    assert str(folder) in line
    assert not rig.log_lines("Traceback")
    # Its parameters can be corrected while it runs.
    assert rig.set_parameters(model=str(model)).successful
    assert rig.change_state("configure")
    assert rig.change_state("activate")
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good(), "depth/image_rect")


@pytest.mark.slow
def test_the_executable_with_a_model_ends_quietly(model):
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "vlm3_ros.nodes.depth_node", "--ros-args"),
            *("-p", f"model:={model}", "-p", "device:=cpu"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "ready" in line:
            break
    for _ in range(2):
        process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=600)
    assert process.returncode == 0, lines
    assert "Traceback" not in "".join(lines) + rest
