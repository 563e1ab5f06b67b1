# SPDX-License-Identifier: Apache-2.0
"""Faults that operators and other nodes cause."""

from __future__ import annotations

import itertools
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterDescriptor, ParameterType, ParameterValue
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from std_srvs.srv import Trigger

from soak.camera import Sent
from soak.fault import Fault, Provocation
from soak.process import Process, node_command
from soak.stage import Stage
from soak.waiting import Loss, wait_for
from vlm3_ros.bags.reading import open_bag
from vlm3_ros.bags.topics import find_camera_topics
from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.recorded import RecordedEngine
from vlm3_ros.messages.classes import stamp_nanoseconds
from vlm3_ros.paths import sample_bag

NONSENSE = (
    "",
    "nonsense",
    "x" * 100_000,
    "\N{SNOWMAN}\x00\n",
    True,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    0.0,
    -1.0,
    1e308,
    math.nan,
    math.inf,
    -math.inf,
    [1, 2],
    [1.5],
    ["a", "b"],
    [True],
    None,
)
"""Values to which every parameter is set."""

CONTRADICTIONS = (
    {"min_depth": 5.0, "max_depth": 2.0},
    {"fallback_intrinsics": "file", "fallback_file": ""},
    {"fallback_intrinsics": "file", "fallback_file": "/"},
    {"fallback_intrinsics": "file", "fallback_file": "x" * 100_000},
    {"fallback_intrinsics": "file", "fallback_file": sys.executable},
    {"fallback_intrinsics": "file", "fallback_file": __file__},
    {"match_columns": 1, "match_rows": 1},
)
"""Values that contradict each other; a node that has these parameters must refuse them."""

_TYPES = {
    bool: ParameterType.PARAMETER_BOOL,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
    str: ParameterType.PARAMETER_STRING,
}

NEXT_STATE = {
    ("unconfigured", "configure"): "inactive",
    ("inactive", "activate"): "active",
    ("active", "deactivate"): "inactive",
    ("inactive", "cleanup"): "unconfigured",
}
"""The state after a transition; all other transitions are refused."""


@contextmanager
def _nonsense_parameters(stage: Stage) -> Iterator[None]:
    """Set every parameter to every value; wrong values must be refused with a reason."""
    listed = stage.call("list_parameters", ListParameters, ListParameters.Request())
    names = listed.result.names
    asked = DescribeParameters.Request(names=names)
    descriptors = stage.call("describe_parameters", DescribeParameters, asked).descriptors
    before = _values(stage, names)
    for descriptor in descriptors:
        _try_nonsense(stage, descriptor)
    for values in CONTRADICTIONS:
        if set(values) <= set(names):
            messages = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
            _must_refuse(stage, messages, str(values)[:100])
    undeclared = [Parameter("no_such_parameter", value=1).to_parameter_msg()]
    _must_refuse(stage, undeclared, "a parameter that does not exist")
    # Some of these values are valid: any text can be a file name.
    restored = [
        ParameterMessage(name=descriptor.name, value=value)
        for descriptor, value in zip(descriptors, before, strict=True)
        if not descriptor.read_only
    ]
    request = SetParametersAtomically.Request(parameters=restored)
    result = stage.call("set_parameters_atomically", SetParametersAtomically, request).result
    if not result.successful:
        raise Loss(f"parameters cannot be set to what they were: {result.reason}")
    yield


def _values(stage: Stage, names: list[str]) -> list[ParameterValue]:
    request = GetParameters.Request(names=names)
    return list(stage.call("get_parameters", GetParameters, request).values)


def _try_nonsense(stage: Stage, descriptor: ParameterDescriptor) -> None:
    name = descriptor.name
    messages = [_message(name, value) for value in NONSENSE]
    request = SetParameters.Request(parameters=messages)
    results = stage.call("set_parameters", SetParameters, request).results
    for value, result in zip(NONSENSE, results, strict=True):
        if result.successful and not _is_value(value, descriptor):
            raise Loss(f"parameter {name} accepts {value!r}")
        if not result.successful and not result.reason:
            raise Loss(f"parameter {name} refuses {value!r} without a reason")


def _message(name: str, value: Any) -> ParameterMessage:
    if value is None:
        return ParameterMessage(name=name)  # a request to delete it
    return Parameter(name, value=value).to_parameter_msg()


def _is_value(value: object, descriptor: ParameterDescriptor) -> bool:
    """Whether a descriptor allows a value."""
    if descriptor.read_only or _TYPES.get(type(value)) != descriptor.type:
        return False
    if descriptor.additional_constraints.startswith("one of: "):
        return value in descriptor.additional_constraints.removeprefix("one of: ").split(", ")
    if isinstance(value, (bool, str)):
        return True
    assert isinstance(value, (int, float))
    ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
    return math.isfinite(value) and all(r.from_value <= value <= r.to_value for r in ranges)


def _must_refuse(stage: Stage, parameters: list[ParameterMessage], what: str) -> None:
    request = SetParametersAtomically.Request(parameters=parameters)
    result = stage.call("set_parameters_atomically", SetParametersAtomically, request).result
    if result.successful or not result.reason:
        raise Loss(f"{what} is not refused with a reason")


def _transitions(length: int) -> Provocation:
    labels = ("configure", "activate", "deactivate", "cleanup")

    @contextmanager
    def provoke(stage: Stage) -> Iterator[None]:
        for label in itertools.chain(*itertools.product(labels, repeat=length)):
            _transit(stage, label)
            if stage.change_state("fly") or stage.change_state("", 200):
                raise Loss("a transition that does not exist succeeds")
        for label in ("deactivate", "cleanup", "configure", "activate"):
            _transit(stage, label)
        yield

    return provoke


def _transit(stage: Stage, label: str) -> None:
    state = stage.state()
    expected = NEXT_STATE.get((state, label))
    done = stage.change_state(label)
    if done != (expected is not None) or stage.state() != (expected or state):
        raise Loss(f"{label} of the {state} node leads to {stage.state()}")


@contextmanager
def _shut_down(stage: Stage) -> Iterator[None]:
    """Shut the node down in the middle of a frame; then restart the process."""
    if not (stage.change_state("shutdown") or stage.change_state("active_shutdown")):
        raise Loss("the node cannot be shut down")
    if stage.state() != "finalized":
        raise Loss(f"the node is {stage.state()}, not finalized")
    for label in ("configure", "activate", "deactivate", "cleanup"):
        if stage.change_state(label):
            raise Loss(f"{label} of the finalized node succeeds")
    yield
    stage.node.stop()
    stage.start_node()


@contextmanager
def _killed(stage: Stage) -> Iterator[None]:
    stage.node.kill()
    yield
    stage.start_node()


@contextmanager
def _ended(stage: Stage) -> Iterator[None]:
    stage.node.stop()
    yield
    stage.start_node()


@contextmanager
def _frozen(stage: Stage) -> Iterator[None]:
    """Stop the process, as a machine that swaps does."""
    stage.node.send(signal.SIGSTOP)
    try:
        yield
    finally:
        stage.node.send(signal.SIGCONT)


def _subscribers(count: int) -> Provocation:
    @contextmanager
    def provoke(stage: Stage) -> Iterator[None]:
        outputs = itertools.cycle(stage.setup.outputs.items())
        latest = QoSProfile(depth=1)
        for _ in range(count // 20):
            subscriptions = [
                stage.peer.create_subscription(kind, topic, lambda message: None, latest)
                for topic, kind in itertools.islice(outputs, 20)
            ]
            time.sleep(0.05)
            for subscription in subscriptions:
                stage.peer.destroy_subscription(subscription)
        yield

    return provoke


def _resets(count: int) -> Provocation:
    @contextmanager
    def provoke(stage: Stage) -> Iterator[None]:
        for _ in range(count):
            if not stage.call("reset", Trigger, Trigger.Request()).success:
                raise Loss("a reset fails")
        yield

    return provoke


def full_disk(recording: Path) -> Fault:
    """Fill the disk while answers are recorded; then make room again."""

    @contextmanager
    def provoke(stage: Stage) -> Iterator[None]:
        wait_for(lambda: recording.exists() and recording.stat().st_size, "a recording")
        stage.node.limit_file_size(recording.stat().st_size + 1000)
        try:
            yield
        finally:
            stage.node.limit_file_size(None)
        full = recording.stat().st_size
        for label in ("deactivate", "cleanup", "configure", "activate"):
            _transit(stage, label)
        wait_for(lambda: recording.stat().st_size > full, "more of the recording")
        try:
            RecordedEngine(recording)
        except EngineError as error:
            raise Loss(f"the recording cannot be read: {error}") from error

    return Fault(
        "disk full while recording (RLIMIT_FSIZE)", provoke, "recording to .* has ended", True
    )


def looping_bag(log: Path, loops: int) -> Fault:
    """Play the sample bag in a loop, faster than real time, instead of the camera."""

    @contextmanager
    def provoke(stage: Stage) -> Iterator[None]:
        with open_bag(sample_bag()) as bag:
            topics = find_camera_topics(bag)
            for message in bag.messages([topics.image]):
                stage.camera.sent[stamp_nanoseconds(message.content.header)] = Sent(
                    None, -math.inf, message.content.header.frame_id, is_good=True
                )
        assert topics.camera_info is not None
        names = {topics.image: "image/compressed", topics.camera_info: "camera_info"}
        remaps = {old: f"{stage.namespace}/{new}" for old, new in names.items()}
        remaps |= {topic: f"{stage.namespace}{topic}" for topic in ("/tf", "/tf_static", "/odom")}
        stage.camera.is_silent = True
        command = node_command("bag_player", {"loop": True, "rate": 5.0}, remaps)
        player = Process("bag_player", command, log)
        try:
            for loop in range(loops):
                _wait_for_loop(stage, f"loop {loop + 1} of the bag")
            yield
        finally:
            player.stop()
            stage.camera.is_silent = False

    return Fault(f"a bag that loops {loops} times", provoke, "clock has jumped back", answers=None)


def _wait_for_loop(stage: Stage, name: str) -> None:
    """Wait for answers, then for the restart of the bag."""
    answers = stage.listener.answers
    enough = len(answers) + 3
    wait_for(lambda: len(answers) >= enough, f"answers in {name}")
    since = time.monotonic()
    wait_for(lambda: stage.reported("clock has jumped back", since, 0), f"the end of {name}")


PARAMETERS = Fault("every parameter set to nonsense", _nonsense_parameters, answers=True)
ENDS = (
    Fault("frozen (SIGSTOP, SIGCONT)", _frozen, answers=None),
    Fault("kill -9 and restart", _killed),
    Fault("Ctrl-C and restart", _ended),
    Fault("shut down, ended and restarted", _shut_down),
)


def transitions(length: int) -> Fault:
    """All sequences of a number of transitions, allowed or not, while images arrive."""
    return Fault(f"all sequences of {length} transitions", _transitions(length), answers=None)


def subscribers(count: int) -> Fault:
    """Subscribers that come and go, twenty at a time."""
    return Fault(f"{count} subscribers come and go", _subscribers(count), answers=True)


def resets(count: int) -> Fault:
    """Resets one after another."""
    return Fault(f"{count} resets", _resets(count), "a reset was requested", answers=None)
