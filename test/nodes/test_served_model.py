# SPDX-License-Identifier: Apache-2.0
"""The depth node with a model on a real server, which is killed and restarted; and recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rosbags.image import image_to_cvimage

from vlm3_lab.scenes.views import sample_view
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.paths import default_model
from vlm3_ros.tasks.depth import ask_depth, uniform_grid

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
COLUMNS, ROWS = 8, 6
MANY_COLUMNS, MANY_ROWS = 16, 12
VIEW = sample_view(np.random.default_rng(5), "room")
IN_PROCESS = {"device": "cpu", "dtype": "float32", "offline": True, "force_answers": False}


@pytest.fixture(scope="module")
def answers_in_process() -> Iterator[Callable[[int, int], np.ndarray]]:
    """Depths of VIEW that the model gives in process, shape (rows, columns)."""
    engine = load_engine(EngineSettings(str(default_model()), **IN_PROCESS))

    def ask(columns: int, rows: int) -> np.ndarray:
        pixels = uniform_grid(VIEW.camera, columns, rows)
        return ask_depth(engine, VIEW.image, VIEW.camera, pixels).depth.reshape(rows, columns)

    yield ask
    engine.close()


def test_a_server_that_is_killed_in_mid_stream(
    make_rig, bench, model_server, answers_in_process, monkeypatch
):
    expected = answers_in_process(COLUMNS, ROWS)
    # On a busy machine an answer may be older than TF's memory, which would be a warning.
    monkeypatch.setattr("vlm3_ros.ros.frame_worker.TF_BUFFER", bench.PATIENCE)
    rig = make_rig(
        parameters={
            "engine": "openai",
            "model": model_server.model,
            "base_url": model_server.url,
            "profile": str(default_model()),
            "token_probabilities": False,  # depths are then those of the texts, as in process
            "concurrency": 2,
            "request_timeout": 600.0,
            "frame_timeout": 900.0,
            "image_timeout": 600.0,
            "grid_columns": COLUMNS,
            "grid_rows": ROWS,
        }
    )
    sent = []

    def send() -> None:
        message = bench.rgb_message(bench.now(), VIEW.image)
        rig.send(message, camera_info_message(message.header, VIEW.camera))
        sent.append(bench.stamp_of(message))

    def published() -> dict[float, np.ndarray]:
        return {
            bench.stamp_of(message): image_to_cvimage(message)
            for message in list(rig.received["depth/image_rect"])
        }

    rig.wait_active()
    rig.wait_for_status("model", OK, "is loaded")
    send()
    rig.wait_for_stamp(sent[0], "depth/image_rect")
    np.testing.assert_array_equal(published()[sent[0]], expected)

    # Enough questions that the server is killed before it has answered all of them.
    assert rig.set_parameters(grid_columns=MANY_COLUMNS, grid_rows=MANY_ROWS).successful
    answered = model_server.answered
    send()
    rig.wait(lambda: model_server.answered > answered + 3, "first answers about the frame")
    model_server.kill()
    # Frames keep coming, and each is reported as lost.
    rig.send_until(send, lambda: rig.report().failed > 1, "frames that fail")
    status = rig.wait_for_status("frames", ERROR, "cannot be reached")
    assert model_server.url in status.message
    rig.wait_for_status("model", WARN, "cannot be reached")
    assert rig.state() == "active"
    assert set(published()) <= set(sent[:2])
    cells = published().get(sent[1])
    if cells is not None:  # the answers from before the end; nothing is invented for the others
        known = np.isfinite(cells)
        assert not known.all()
        np.testing.assert_array_equal(
            cells[known], answers_in_process(MANY_COLUMNS, MANY_ROWS)[known]
        )

    assert rig.set_parameters(grid_columns=COLUMNS, grid_rows=ROWS).successful
    lost = set(sent[1:])
    model_server.start()
    rig.send_until(send, lambda: max(published()) > max(lost), "an answer after the restart")
    rig.wait_for_status("frames", OK, "Hz")
    rig.wait_for_status("model", OK, "is loaded")
    for stamp in set(published()) - {sent[1]}:
        np.testing.assert_array_equal(published()[stamp], expected)
    assert set(rig.stamps("points")) <= set(published())
    assert not rig.log_lines("Traceback")


def test_recorded_answers_are_published_without_a_model(make_rig, bench, tmp_path):
    file = tmp_path / "answers.jsonl"
    frames = []
    for seed, kind in enumerate(("room", "street", "corridor")):
        view = sample_view(np.random.default_rng(seed), kind)
        frames.append((bench.rgb_message(bench.now(), view.image), view.camera))

    def outputs(**parameters: object) -> list[tuple[bytes, bytes]]:
        rig = make_rig(parameters={**parameters, "grid_columns": COLUMNS, "grid_rows": ROWS})
        rig.wait_active()
        for message, camera in frames:
            rig.send(message, camera_info_message(message.header, camera))
            for topic in ("depth/image_rect", "points"):
                rig.wait_for_stamp(bench.stamp_of(message), topic)
        return [
            (bytes(depth.data), bytes(points.data))
            for depth, points in zip(
                rig.received["depth/image_rect"], rig.received["points"], strict=True
            )
        ]

    in_process = {"device": "cpu", "dtype": "float32", "offline": True}
    live = outputs(model=str(default_model()), record_to=str(file), **in_process)
    assert len(set(live)) == len(frames)
    replayed = outputs(engine="recorded", recording=str(file))
    assert replayed == live


def test_a_frame_that_was_not_recorded_is_reported(make_rig, bench, tmp_path):
    file = tmp_path / "answers.jsonl"
    engine = load_engine(EngineSettings(str(default_model()), **IN_PROCESS, record_to=str(file)))
    ask_depth(engine, VIEW.image, VIEW.camera, uniform_grid(VIEW.camera, 2, 2))
    engine.close()
    rig = make_rig(parameters={"engine": "recorded", "recording": str(file)})
    rig.wait_active()
    rig.send_good()
    rig.wait_for_status("frames", ERROR, "has none of the 12 answers")
    assert not rig.received["points"]
