# SPDX-License-Identifier: Apache-2.0
"""The life cycle of a node: transitions, responsiveness, and its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from vlm3_ros.engines import anycalib
from vlm3_ros.engines.base import EngineError

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def test_transitions(make_rig, bench):
    engines = []

    def loader(settings, progress):
        engines.append(bench.WallEngine())
        return engines[-1]

    rig = make_rig(loader=loader, parameters={"autostart": False})
    topics = [f"{rig.namespace}/{topic}" for topic in bench.OUTPUTS]
    assert rig.state() == "unconfigured"
    rig.wait_for_status("model", OK, "not loaded: the node is unconfigured")
    assert not engines
    assert not any(rig.node.count_publishers(topic) for topic in topics)

    assert rig.change_state("configure")
    assert rig.state() == "inactive"
    assert len(engines) == 1
    assert all(rig.node.count_publishers(topic) == 1 for topic in topics)
    assert rig.node.count_subscribers("image") == 0
    rig.wait_for_status("frames", OK, "not active")

    assert rig.change_state("activate")
    assert rig.state() == "active"
    rig.wait_active()
    first = rig.send_good()
    rig.wait_for_stamp(first)

    assert rig.change_state("deactivate")
    assert rig.state() == "inactive"
    rig.wait(lambda: not rig.node.count_subscribers("image"), "end of the subscription")
    assert not engines[0].is_closed
    assert rig.change_state("activate")
    rig.wait_active()
    second = rig.send_good()
    rig.wait_for_stamp(second)

    assert rig.change_state("deactivate")
    assert rig.change_state("cleanup")
    assert rig.state() == "unconfigured"
    assert engines[0].is_closed
    assert not worker_threads()
    rig.wait(lambda: not any(map(rig.node.count_publishers, topics)), "end of the publishers")

    assert rig.change_state("configure")
    assert rig.change_state("activate")
    rig.wait_active()
    third = rig.send_good()
    rig.wait_for_stamp(third)
    assert rig.stamps("points") == [first, second, third]

    assert rig.change_state("active_shutdown") or rig.change_state("shutdown")
    assert rig.state() == "finalized"
    assert [engine.is_closed for engine in engines] == [True, True]
    assert not worker_threads()


def worker_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.endswith("worker")]


def test_autostart(make_rig, bench):
    rig = make_rig(bench.WallEngine())
    rig.wait_active()
    assert rig.state() == "active"


def test_a_model_that_does_not_load(make_rig, bench):
    settings_seen = []

    def loader(settings, progress):
        settings_seen.append(settings)
        if settings.model != "good":
            raise EngineError(f"{settings.model}: there is no such folder")
        return bench.WallEngine()

    rig = make_rig(loader=loader, parameters={"model": "/nowhere/model", "device": "cpu"})
    rig.wait_for_status("model", ERROR, "^/nowhere/model: there is no such folder")
    assert rig.state() == "unconfigured"
    assert settings_seen[0].device == "cpu"
    text = r"/nowhere/model: there is no such folder \(the node stays unconfigured; set its"
    rig.wait(lambda: rig.log_lines(text), "a line in the log")
    assert len(rig.log_lines(text)) == 1
    assert not rig.log_lines("Traceback")
    assert not worker_threads()
    # As its message says: set the parameters, and configure again.
    assert rig.set_parameters(model="good").successful
    assert rig.change_state("configure")
    assert rig.change_state("activate")
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good())
    rig.wait_for_status("model", OK, "wall is loaded")


def test_topics_follow_the_parameters(make_rig, bench):
    rig = make_rig(bench.WallEngine(), parameters={"autostart": False})
    assert rig.set_parameters(image_transport="compressed").successful
    assert rig.change_state("configure")
    assert rig.change_state("activate")
    assert rig.node.count_subscribers("image/compressed") == 1
    assert rig.node.count_subscribers("image") == 0
    assert not rig.set_parameters(image_transport="raw").successful


@pytest.mark.parametrize(
    ("entity", "topic", "state", "part"),
    [
        ("publisher", "points", "unconfigured", "model"),
        ("subscription", "image", "inactive", "frames"),
    ],
)
def test_an_invalid_qos_override(make_rig, bench, entity, topic, state, part):
    rig = make_rig(bench.WallEngine(), qos_overrides={(topic, entity, "reliability"): "sometimes"})
    rig.wait_for_status(part, ERROR, "reliability.*sometimes")
    assert rig.state() == state
    rig.wait(lambda: rig.log_lines(f"sometimes(.|\n)*the node stays {state}"), "a line in the log")
    assert bool(worker_threads()) == (state == "inactive")


def test_an_engine_that_fails_to_report_its_memory(make_rig, bench):
    engine = bench.WallEngine()

    def memory_bytes():
        raise ZeroDivisionError("never thought of")

    engine.memory_bytes = memory_bytes
    rig = make_rig(engine)
    rig.wait_active()
    rig.wait(lambda: rig.log_lines("never thought of"), "a line in the log")
    rig.wait_for_stamp(rig.send_good())


def test_a_loader_that_breaks(make_rig):
    def loader(settings, progress):
        raise ZeroDivisionError("never thought of")

    rig = make_rig(loader=loader)
    rig.wait_for_status("model", ERROR, "ZeroDivisionError: never thought of")
    assert rig.state() == "unconfigured"
    rig.wait(lambda: rig.log_lines("Traceback"), "the traceback in the log")


def test_responsive_while_the_model_loads(make_rig, bench):
    loading, may_load = threading.Event(), threading.Event()

    def loader(settings, progress):
        loading.set()
        may_load.wait(bench.PATIENCE)
        return bench.WallEngine()

    rig = make_rig(loader=loader)
    rig.wait(loading.is_set, "begin of loading")
    rig.wait_for_status("model", WARN, "loading")
    assert rig.set_parameters(grid_columns=5).successful
    refused = rig.set_parameters(model="other")
    assert not refused.successful
    assert "'model' changes only while the node is unconfigured" in refused.reason
    may_load.set()
    rig.wait_active()
    stamp = rig.send_good()
    rig.wait_for_stamp(stamp, "depth/image_rect")
    assert rig.received["depth/image_rect"][-1].width == 5


def test_responsive_while_the_model_answers(make_rig, bench):
    engine = bench.WallEngine(gate=threading.Semaphore(0))
    rig = make_rig(engine)
    rig.wait_active()
    stamp = rig.send_good()
    engine.entered.acquire()
    assert rig.set_parameters(grid_columns=6).successful
    assert rig.state() == "active"
    statuses = len(rig.statuses)
    rig.wait(lambda: len(rig.statuses) > statuses, "diagnostics")
    engine.gate.release(10)
    rig.wait_for_stamp(stamp, "depth/image_rect")
    assert rig.received["depth/image_rect"][-1].width == 4  # as the frame was asked
    later = rig.send_good()
    rig.wait_for_stamp(later, "depth/image_rect")
    assert rig.received["depth/image_rect"][-1].width == 6


@pytest.mark.parametrize("fault", [None, EngineError("the wall is gone")])
def test_a_frame_in_work_is_not_published_after_deactivation(make_rig, bench, fault):
    engine = bench.WallEngine(gate=threading.Semaphore(0), fault=fault)
    rig = make_rig(engine)
    rig.wait_active()
    rig.send_good()
    engine.entered.acquire()
    rig.send_good()
    rig.wait(lambda: rig.report().received == 2, "arrival")
    assert rig.change_state("deactivate")
    engine.gate.release(10)
    rig.wait(lambda: rig.report().skipped == 1, "end of the frame at hand")
    assert rig.report().failed == 0
    engine.fault = None
    assert rig.change_state("activate")
    rig.wait_active()
    stamp = rig.send_good()
    rig.wait_for_stamp(stamp)
    assert rig.stamps("points") == [stamp]
    assert len(engine.images) == 2


@pytest.mark.parametrize("blocked", [False, True])
def test_destroying_a_node_leaves_no_thread(make_rig, bench, blocked):
    engine = bench.WallEngine(gate=threading.Semaphore(0) if blocked else None)
    rig = make_rig(engine)
    rig.wait_active()
    rig.send_good()
    engine.entered.acquire()
    if blocked:
        threading.Timer(0.2, engine.gate.release).start()
    rig.close()
    assert not worker_threads()
    assert engine.is_closed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        (["grid_columns:=0"], "grid_columns.*out of range"),
        (["min_depth:=3.0", "max_depth:=2.0"], "'min_depth'.*'max_depth'"),
        (["fallback_intrinsics:=file"], "'fallback_file'"),
        (["fallback_intrinsics:=anything"], "one of none, hfov, file, anycalib"),
        pytest.param(
            ["fallback_intrinsics:=anycalib"],
            r"needs the package anycalib: pip install git\+https",
            marks=pytest.mark.skipif(anycalib.is_installed(), reason="anycalib is installed"),
        ),
        (["grid_rows:=many"], "grid_rows.*STRING.*INTEGER"),
    ],
)
def test_bad_parameters_end_the_process_with_one_line(parameters, text):
    process = start(*parameters)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1
    assert re.search(text, output)
    assert "Traceback" not in output
    assert len(output.strip().splitlines()) == 1


def start(*parameters: str) -> subprocess.Popen[str]:
    arguments = [part for parameter in parameters for part in ("-p", parameter)]
    return subprocess.Popen(
        [sys.executable, "-m", "vlm3_ros.nodes.depth_node", "--ros-args", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT] * 3])
def test_signals_end_the_process_quietly(signals):
    """A terminal and ros2 launch send several signals; here to a node whose model is missing."""
    process = start("model:=/nowhere/model")
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "stays unconfigured" in line:
            break
    for number in signals:
        process.send_signal(number)
        time.sleep(0.01)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    assert "/nowhere/model" in "".join(lines)
    assert "Traceback" not in "".join(lines) + output
