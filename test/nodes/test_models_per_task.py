# SPDX-License-Identifier: Apache-2.0
"""Nodes whose tasks have models of their own, each asked in its own way."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from asking import Asker
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from scipy.spatial.transform import Rotation
from truth import TruthEngine, exact_prompts

from vlm3_lab.scenes.seen_objects import quantity_of, seen_objects
from vlm3_lab.scenes.sequences import Sequence, sample_sequence
from vlm3_lab.scenes.views import sample_view
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import EngineError, ForwardingEngine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import compose, inverse
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.nodes import perception_node
from vlm3_ros.nodes.perception_node import perception_nodes
from vlm3_ros.nodes.pose_node import PoseNode
from vlm3_ros.paths import default_model
from vlm3_ros.ros.model_handle import ModelHandle

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
CAMERA = PinholeCamera(240, 180, 170.0, 175.0, 119.5, 89.5)
PERIOD = 0.1
POSES = {"pose": PoseStamped, "odom": Odometry}


class Model(ForwardingEngine):
    """A truth engine that learned some tasks, and notes the sizes of its images."""

    def __init__(self, name: str, views: list[View], *tasks: str, **ways: float | None) -> None:
        prompts = exact_prompts()
        only = prompts.without(*(prompts.wordings.keys() - set(tasks)))
        super().__init__(TruthEngine(views, only, name=name, **ways))
        self.sizes: set[tuple[int, int]] = set()
        self.passes = 0
        self.is_closed = False

    def ask(self, images, questions, answer_template=None):
        self.passes += 1
        self.sizes |= {image.shape[:2] for image in images}
        return super().ask(images, questions, answer_template)

    def memory_bytes(self) -> int | None:
        return 10**9

    def close(self) -> None:
        self.is_closed = True


class Shelf:
    """Loads models by their names, as `load_engine` does; knows what was loaded."""

    def __init__(self, *models: Model) -> None:
        self.models = {model.name: model for model in models}
        self.loaded: list[EngineSettings] = []

    def __call__(self, settings: EngineSettings, progress: Callable[[str], None]) -> Model:
        if settings.model not in self.models:
            raise EngineError(f"{settings.model} is not on this shelf")
        progress(f"took {settings.model}")
        self.loaded.append(settings)
        return self.models[settings.model]

    @property
    def names(self) -> list[str]:
        return [settings.model for settings in self.loaded]


@pytest.fixture(scope="module")
def drive() -> Sequence:
    rng = np.random.default_rng(4)
    return sample_sequence(rng, CAMERA, kind="room", duration=0.6, rate=1 / PERIOD)


@pytest.fixture(scope="module")
def views(drive: Sequence) -> list[View]:
    return list(drive.views(np.random.default_rng(5)))


@pytest.fixture(scope="module")
def yard() -> View:
    views = (sample_view(np.random.default_rng(seed), "yard") for seed in range(50))
    return next(view for view in views if len(seen_objects(view)) == 3)


@pytest.fixture
def make_pose_rig(make_rig, drive):
    def make(shelf: Shelf, **parameters: object):
        T = drive.T_base_camera
        mount = [*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat()]
        mounted = {"base_from_camera": " ".join(repr(float(number)) for number in mount)}
        return make_rig(
            loader=shelf,
            make_node=PoseNode,
            outputs=POSES,
            parameters={**mounted, **parameters},
        )

    return make


def send_views(rig, bench, views: list[View]) -> None:
    """Send views one after the other, each after the answer about the one before."""
    rig.wait_active()
    start = bench.now()
    for index, view in enumerate(views):
        message = bench.rgb_message(round(start + index * PERIOD, 6), view.image)
        rig.send(message, camera_info_message(message.header, view.camera))
        rig.wait(
            lambda n=index: rig.report().answered + rig.report().failed > n, "work on the frame"
        )


def assert_poses(rig, drive: Sequence, count: int) -> None:
    rig.wait(lambda: len(rig.received["pose"]) == count, "all poses")
    path = drive.path.T_world_base
    for index, pose in enumerate(rig.received["pose"]):
        p = pose.pose.position
        expected = compose(inverse(path[0]), path[index])[:3, 3]
        np.testing.assert_allclose([p.x, p.y, p.z], expected, atol=1e-6)


def of_motion(views: list[View]) -> Model:
    return Model("motions", views, "pose", focal=750.0)


def of_matches(views: list[View]) -> Model:
    return Model("matches", views, "correspondence", focal=None, longest_side=1024)


def of_depth(views: list[View]) -> Model:
    return Model("depths", views, "depth", focal=1000.0)


def test_motions_matches_and_depth_of_three_models(make_pose_rig, bench, drive, views):
    models = of_motion(views), of_matches(views), of_depth(views)
    shelf = Shelf(*models)
    rig = make_pose_rig(
        shelf, model="motions", match_model="matches", depth_model="depths", ask_depth=True
    )
    send_views(rig, bench, views)
    assert_poses(rig, drive, len(views))
    assert [model.sizes for model in models] == [{(768, 1056)}, {(768, 1024)}, {(1024, 1408)}]
    assert shelf.names == ["motions", "matches", "depths"]
    rig.wait_for_status("odometry", OK, r"fused: (\d+) of \1 matches agree")
    status = rig.wait_for_status("model", OK, "^motions and matches and depths are loaded")
    assert [(pair.key, pair.value) for pair in status.values] == [
        ("model for pose", "motions"),
        ("model for correspondence", "matches"),
        ("model for depth", "depths"),
        ("device memory (MB)", "1000"),
    ]
    assert rig.change_state("deactivate") and rig.change_state("cleanup")
    assert all(model.is_closed for model in models)


def test_without_matches_motions_are_published_with_a_warning(make_pose_rig, bench, drive, views):
    rig = make_pose_rig(Shelf(of_motion(views)), pose_model="motions", ask_depth=False)
    send_views(rig, bench, views)
    assert_poses(rig, drive, len(views))
    text = (
        r"motions are not checked by matches: motions did not learn correspondence: .*; set "
        r"match_model to a checkpoint that did, such as facebook/VLM3-corr, or ask none \("
        r"match_rows: 0\)"
    )
    rig.wait_for_status("model", WARN, text)
    assert len(rig.log_lines(text)) == 1
    rig.wait_for_status("odometry", OK, "accepted: no matches were asked")
    # Whoever wants it so says so.
    assert rig.set_parameters(match_rows=0).successful
    rig.wait_for_status("model", OK, "motions is loaded")


def test_matches_that_are_not_asked_need_no_model(make_pose_rig, bench, drive, views):
    shelf = Shelf(of_motion(views), of_matches(views))
    rig = make_pose_rig(shelf, pose_model="motions", match_model="matches", match_rows=0)
    send_views(rig, bench, views[:3])
    assert_poses(rig, drive, 3)
    assert shelf.names == ["motions"]
    assert rig.set_parameters(match_rows=6).successful
    message = bench.rgb_message(bench.now() + 1, views[3].image)
    rig.send(message, camera_info_message(message.header, CAMERA))
    text = "the model for correspondence was not loaded, since it was not needed: configure"
    rig.wait_for_status("frames", ERROR, text)


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (
            {"model": "matches", "match_model": "motions"},
            r"pose_model \(or model\) and match_model seem to be swapped: matches learned "
            "correspondence, and motions relative pose",
        ),
        (
            {"pose_model": "motions", "match_model": "depths"},
            "depths did not learn correspondence: .*set match_model to .*facebook/VLM3-corr, or",
        ),
        (
            {"model": "depths"},
            "depths did not learn relative pose: .*; set pose_model to a checkpoint that did, such "
            "as facebook/VLM3-pose$",
        ),
        (
            {"pose_model": "motions", "match_model": "nowhere"},
            "^the model for correspondence: nowhere is not on this shelf",
        ),
        ({"pose_model": "nowhere"}, "^nowhere is not on this shelf"),
    ],
    ids=["swapped", "no matches", "no motions", "partial", "alone"],
)
def test_wrong_models_for_motions(make_pose_rig, views, chosen, text):
    shelf = Shelf(of_motion(views), of_matches(views), of_depth(views))
    rig = make_pose_rig(shelf, **chosen)
    rig.wait_for_status("model", ERROR, text)
    assert rig.state() == "unconfigured"
    assert not rig.node.model.engines
    assert all(shelf.models[name].is_closed for name in shelf.names)


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (
            {"model": "facebook/VLM3-pose"},
            "^facebook/VLM3-pose did not learn metric depth: its prompt set 'vlm3-pose' has no "
            "depth questions; set depth_model to a checkpoint that did, such as "
            "facebook/VLM3-depth$",
        ),
        ({"model": str(default_model("depth")), "profile": "vlm3-corr"}, "set depth_model to"),
    ],
    ids=["hub", "profile"],
)
def test_the_wrong_checkpoint_is_refused_before_it_is_downloaded(make_rig, chosen, text):
    shelf = Shelf()
    rig = make_rig(loader=shelf, parameters=chosen)
    rig.wait_for_status("model", ERROR, text)
    assert rig.state() == "unconfigured"
    assert shelf.loaded == []


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ({}, {"pose": "vlm3-tiny-pairs", "correspondence": "vlm3-tiny-pairs"}),
        ({"ask_depth": True}, {}),
        ({"model": "mine"}, {"pose": "mine", "correspondence": "mine", "depth": "mine"}),
        ({"pose_model": "mine"}, {"pose": "mine", "correspondence": "mine", "depth": "mine"}),
        ({"depth_model": "deep", "ask_depth": True}, {"pose": "vlm3-tiny-pairs", "depth": "deep"}),
    ],
    ids=["embedded", "embedded with depth", "all", "motion", "depth"],
)
def test_pose_node_asks_everything_of_one_model_unless_another_is_named(ros, chosen, names):
    """So that ask_depth and match_rows can change while the node runs."""
    given = [Parameter(name, value=value) for name, value in chosen.items()]
    node = PoseNode(parameter_overrides=[Parameter("autostart", value=False), *given])
    try:
        models = {task: Path(engine.model).name for task, engine in node.models().items()}
    finally:
        node.destroy_node()
    assert models.keys() == {"pose", "correspondence", "depth"}
    if "depth_model" not in chosen:
        assert len(set(models.values())) == 1
    assert names.items() <= models.items()


def test_swapped_checkpoints_are_refused_before_they_are_downloaded(make_pose_rig):
    shelf = Shelf()
    chosen = {"pose_model": "facebook/VLM3-corr", "match_model": "facebook/VLM3-pose"}
    rig = make_pose_rig(shelf, **chosen)
    rig.wait_for_status("model", ERROR, "seem to be swapped: facebook/VLM3-corr learned corresp")
    assert shelf.loaded == []


def show(asker: Asker, bench, view: View) -> None:
    asker.wait_active()
    message = bench.rgb_message(bench.now(), view.image)
    asker.show(message, camera_info_message(message.header, view.camera))


def test_pixels_and_objects_of_two_models(make_rig, bench, yard):
    depths = Model("depths", [yard], "depth", focal=300.0)
    objects = Model("objects", [yard], "objects", focal=400.0)
    shelf = Shelf(depths, objects)
    chosen = {"depth_model": "depths", "object_model": "objects"}
    asker = Asker(make_rig, bench, loader=shelf, parameters=chosen)
    show(asker, bench, yard)
    v, u = np.argwhere(np.isfinite(yard.depth))[1234]
    assert asker.ask({"depth": [int(u), int(v)]})["value"] == pytest.approx(yard.depth[v, u])
    assert (depths.passes, objects.passes) == (1, 0)
    thing = seen_objects(yard)[0]
    answer = asker.ask({"width": [int(side) for side in thing.box]})
    assert answer["value"] == pytest.approx(quantity_of("width", thing), rel=1e-5)
    assert (depths.passes, objects.passes) == (1, 1)
    assert depths.sizes != objects.sizes
    assert shelf.names == ["depths", "objects"]


@pytest.mark.parametrize(
    ("task", "refused", "text"),
    [
        ("depth", {"width": [10, 20, 90, 100]}, "set object_model to a .*ct$"),
        ("objects", {"point": [10, 20]}, "set depth_model to a .*facebook/VLM3-depth$"),
    ],
)
def test_a_task_that_the_only_model_did_not_learn(make_rig, bench, yard, task, refused, text):
    asker = Asker(
        make_rig, bench, loader=Shelf(Model("only", [yard], task)), parameters={"model": "only"}
    )
    show(asker, bench, yard)
    v, u = np.argwhere(np.isfinite(yard.depth))[1234]
    asked = {
        "depth": {"depth": [int(u), int(v)]},
        "objects": {"width": [int(side) for side in seen_objects(yard)[0].box]},
    }[task]
    assert asker.ask(asked)["status"] == "ok"
    answer = asker.ask(refused)
    assert answer["status"] == "refused"
    assert re.search(text, answer["reason"])
    assert asker.rig.log_lines("only did not learn .*; until then, such questions are refused")


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (
            {"depth_model": "objects", "object_model": "depths"},
            r"depth_model \(or model\) and object_model seem to be swapped: objects learned about "
            "objects, and depths metric depth",
        ),
        ({"model": "motions"}, "motions did not learn metric depth: .*set depth_model to"),
        ({"depth_model": "motions", "object_model": "objects"}, "set depth_model to"),
        ({"depth_model": "depths", "object_model": "motions"}, "set object_model to"),
    ],
    ids=["swapped", "neither", "depth", "objects"],
)
def test_wrong_models_for_questions(make_rig, bench, yard, chosen, text):
    models = [Model("motions", [], "pose"), Model("depths", [], "depth")]
    shelf = Shelf(*models, Model("objects", [], "objects"))
    asker = Asker(make_rig, bench, loader=shelf, parameters=chosen)
    asker.rig.wait_for_status("model", ERROR, text)
    assert asker.rig.state() == "unconfigured"
    assert all(shelf.models[name].is_closed for name in shelf.names)


def test_a_failed_load_releases_what_was_loaded():
    models = [Model("one", [], "depth"), Model("two", [], "objects")]
    handle = ModelHandle(Shelf(*models), lambda text: None)
    settings = {name: EngineSettings(name) for name in ("one", "two", "three")}
    with pytest.raises(EngineError, match=r"^the model for three: three is not on this shelf$"):
        handle.load(settings)
    assert [model.is_closed for model in models] == [True, True]
    assert not handle.engines


def test_the_memory_of_all_models_is_told_once_before_any_loads(ros, bench, monkeypatch):
    """Three nodes with two models: the embedded ones."""
    pytest.importorskip("transformers")
    events: list[str] = []

    class Pool:
        def load(self, settings, progress):
            events.append("load")
            names = ("depth", "pose", "correspondence", "objects")
            return Model(settings.model, [], *names)

    monkeypatch.setattr(perception_node, "EnginePool", Pool)
    overrides = [
        Parameter("autostart", value=False),
        Parameter("base_from_camera", value="0 0 0 0 0 0 1"),
        Parameter("device", value="cpu"),
    ]
    nodes = perception_nodes(namespace="told", parameter_overrides=overrides)
    try:
        for node in nodes:
            logger = node.get_logger()
            for level in ("info", "warning"):
                monkeypatch.setattr(logger, level, lambda text, **_: events.append(text))
            monkeypatch.setattr(node, "get_logger", lambda logger=logger: logger)
        for node in nodes:
            assert node.trigger_configure().name == "SUCCESS"
        texts = [event for event in events if "models, about" in event]
        assert len(texts) == 1 and events[0] == texts[0]
        pattern = r"2 models, about \d+ MB of .* on cpu: vlm3-tiny \d+ MB, vlm3-tiny-pairs \d+ MB"
        assert re.fullmatch(pattern, texts[0])
        # It is told again when all have been released.
        for node in nodes:
            node.trigger_cleanup()
        nodes[2].trigger_configure()
        assert len([event for event in events if "models, about" in event]) == 2
    finally:
        for node in nodes:
            node.destroy_node()


def test_the_names_of_all_models_are_checked_before_the_first_one_loads():
    shelf = Shelf()
    handle = ModelHandle(shelf, lambda text: None)
    for wrong, meant in (
        (EngineSettings(model="facebook/VLM3-cor"), "facebook/VLM3-corr"),
        (EngineSettings(model="facebook/VLM3-corr", profile="vlm3-cor"), "vlm3-corr"),
    ):
        settings = {"pose": EngineSettings(model="facebook/VLM3-pose"), "correspondence": wrong}
        message = rf"the model for correspondence: .* \(?did you mean {meant}\?"
        with pytest.raises(EngineError, match=message):
            handle.load(settings)
    assert not shelf.loaded
