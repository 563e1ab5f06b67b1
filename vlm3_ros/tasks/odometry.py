# SPDX-License-Identifier: Apache-2.0
"""Visual odometry: check the motions that a model answers, and chain them to a pose.

Each image is compared with a reference image whose pose is known: a keyframe, kept while enough of
it is still visible, or always the previous image. If the motion since a keyframe does not pass
`verify_motion`, the motion since the last image with a pose is asked. If that does not pass either,
the image has no pose.

The next image is compared with the last one with a pose again, and then, as the camera may have
turned away from all that it showed, with the image that has no pose. If that passes, the chain goes
on: the last twist predicts the motion until the image without a pose, with a covariance that says
so.

Frames: `odom` is the base at the first image. `T_base_camera` fixes the camera to the base. The
camera's axes are optical, those of the base as in REP-103.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import AnswerUncertainty, Engine, EngineError
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.chain import ChainedPose
from vlm3_ros.geometry.features import Features
from vlm3_ros.geometry.flow import image_flow
from vlm3_ros.geometry.motion import (
    Covariance,
    Transform,
    base_motion,
    base_motion_covariance,
    compose,
    inverse,
    motion_of_twist,
    rotation_angle,
)
from vlm3_ros.geometry.twist import ACCELERATION_STD, FittedTwist, TrackedPose, fit_twist
from vlm3_ros.paths import Task as TaskName
from vlm3_ros.tasks.correspondence import CORRESPONDENCE, Matches
from vlm3_ros.tasks.depth import DEPTH, ask_depth, uniform_grid
from vlm3_ros.tasks.feature_check import FeatureEvidence, checked_features, feature_evidence
from vlm3_ros.tasks.learned import check_not_swapped, why_unlearned
from vlm3_ros.tasks.pose import POSE, RelativePose, ask_pose
from vlm3_ros.tasks.task import (
    CameraPair,
    ImagePair,
    Model,
    Task,
    learned_wording,
    model_view,
)
from vlm3_ros.tasks.two_view import ask_pair, assumed_uncertainty
from vlm3_ros.tasks.verification import (
    INLIER,
    Check,
    VerifiedMotion,
    match_residuals,
    verify_motion,
)

StepStatus = Literal["first", "standstill", "accepted", "fused", "refused", "skipped", "reset"]

STILL_SHARE = 0.9
"""Share of corners that must stand still: a few may lie on something that moves."""

STILL_COVARIANCE: Covariance = np.diag([0.01**2] * 3 + [math.radians(0.1) ** 2] * 3)
"""Covariance of the motion that a still image may hide.

A quarter of a pixel is 0.05 degrees of a view of 60 degrees, or one millimetre per metre of
distance to the nearest objects.
"""

MAX_LATE = 3
"""Maximum number of images in a row out of order: after more of them, time has jumped back."""

TWIST_WINDOW, TWIST_POSES = 2.0, 20
"""Seconds and maximum number of poses from which a twist is fitted; older ones say nothing."""

CAMERA_CHANGE = 0.05
"""Relative change of intrinsics above which the camera has changed; autofocus stays below."""


@dataclass(frozen=True)
class OdometrySettings:
    """How motions are asked, checked and chained.

    Attributes:
        keyframes: compare with a keyframe, which keeps the chain short; False: always compare with
            the previous image.
        min_overlap: the newer image replaces a keyframe if less than this share of the keyframe's
            matches lies inside it and agrees with the motion.
        match_columns: columns of the grid of reference pixels whose matches are asked.
        match_rows: rows of that grid. 0: ask no matches. Then motions are not checked, and as the
            overlap is unknown, the reference is always the previous image.
        check_features: also compare motions with image features, see `feature_evidence`.
        check_backward: also ask for the motion back, which must close the loop.
        ask_depth: also ask for the depth at the grid: matches with depth determine a metric motion
            by geometry. Needs matches.
        still_flow: an image shows a standstill, and the model is not asked, if `STILL_SHARE` of the
            corners have moved by less than this many px of an image `FLOW_WIDTH` wide. 0: always
            ask.
        still_distance: metres.
        still_rotation_deg: an answered motion below both limits is a standstill, too. 0: none is.
        max_speed: m/s; a motion since the last pose that is faster is refused. Epipolar lines do
            not check distances: without `ask_depth` this is the only check of them.
        max_bridge: seconds of a motion that may be predicted from the last twist if it was refused
            and the chain can go on behind it. 0: none.
        max_gap: seconds without a pose after which a new chain begins.
    """

    keyframes: bool = True
    min_overlap: float = 0.5
    match_columns: int = 8
    match_rows: int = 6
    check_features: bool = True
    check_backward: bool = False
    ask_depth: bool = False
    still_flow: float = 0.25
    still_distance: float = 0.01
    still_rotation_deg: float = 0.3
    max_speed: float = 5.0
    max_bridge: float = 1.0
    max_gap: float = 5.0

    @property
    def asks_matches(self) -> bool:
        """Whether the grid of matches holds any."""
        return self.match_columns > 0 and self.match_rows > 0

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """The tasks that are asked."""
        asked: dict[TaskName, bool] = {
            "pose": True,
            "correspondence": self.asks_matches,
            "depth": self.ask_depth,
        }
        return tuple(task for task, is_asked in asked.items() if is_asked)

    def without_matches(self) -> OdometrySettings:
        """Return the settings without matches, and without the depth at their pixels."""
        return replace(self, match_columns=0, match_rows=0, ask_depth=False)


@dataclass(frozen=True)
class OdometryStep:
    """Result of one image.

    `status`: "first" image; "reset": first image of a new chain; "standstill"; "accepted" or
    "fused": a motion, see `VerifiedMotion`; "refused": a motion that must not be used; "skipped":
    an image out of order. `reason`: one sentence for diagnostics.

    `stamp_ns`, `reference_stamp_ns`: stamps of the pair; `reference_stamp_ns` is None for first,
    reset and skipped. `T_ref_camera`: (4, 4), metres, the camera's motion since the reference, and
    its `covariance` (6, 6) in the reference camera's axes; None without a motion.

    `T_odom_base`: (4, 4), metres, and `covariance_odom_base` (6, 6) in the axes of odom: the pose
    at this image; NaN if refused or skipped. `twist`: (6,), m/s and rad/s in the axes of the base,
    fitted to the last poses, and `covariance_twist` (6, 6), which is larger than that of the error
    by the number of successive twists that share it, so that a filter may take them as
    independent; NaN if unknown.

    `pose`, `matches`: the raw answers, None if nothing was asked. `refused_by`: the check that
    refused the motion; None unless refused. `refused_before`: the refused
    step since another reference, if there was one. `bridged`: seconds before the reference that
    are predicted from the last twist.
    """

    stamp_ns: int
    reference_stamp_ns: int | None
    status: StepStatus
    reason: str
    T_ref_camera: Transform | None
    covariance: Covariance | None
    T_odom_base: Transform
    covariance_odom_base: Covariance
    twist: NDArray[np.float64]
    covariance_twist: Covariance
    pose: RelativePose | None = None
    matches: Matches | None = None
    refused_by: Check | None = None
    refused_before: OdometryStep | None = None
    bridged: float = 0.0

    @property
    def has_pose(self) -> bool:
        """Whether the pose at the image is known."""
        return self.status not in ("refused", "skipped")

    @property
    def attempts(self) -> tuple[OdometryStep, ...]:
        """The steps of the image since different references, this one last."""
        earlier = self.refused_before
        return (self,) if earlier is None else (*earlier.attempts, self)


@dataclass(frozen=True)
class _Frame:
    """An image as it arrived; see `VisualOdometry.update`."""

    image: NDArray[np.uint8]
    camera: PinholeCamera
    stamp_ns: int
    visible: NDArray[np.bool_] | None

    @cached_property
    def features(self) -> Features:
        """For `feature_evidence`."""
        return checked_features(self.image, self.visible)


@dataclass(frozen=True)
class _Reference:
    """An image with which later images are compared.

    `pixels`: shape (n, 2), whose matches are asked. `depth`: metres at the pixels, shape (n,), None
    until asked.
    """

    frame: _Frame
    pixels: NDArray[np.float64]
    depth: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class _Latest:
    """The last image with a pose, which starts at the reference.

    `stamp_ns` is newer than the frame's if the robot has stood still since.
    """

    frame: _Frame
    stamp_ns: int
    pose: ChainedPose


@dataclass(frozen=True)
class _Chain:
    """Where a motion is appended.

    `track`: the last poses, for the twist. `bridged`: see `OdometryStep`.
    """

    reference: _Reference
    latest: _Latest
    track: tuple[TrackedPose, ...]
    bridged: float = 0.0


def check_learned(models: Mapping[str, Model], settings: OdometrySettings) -> None:
    """Check that models learned what odometry asks.

    Args:
        models: by the name of their task.
        settings: what is asked.

    Raises:
        EngineError: if one did not or is missing; says which setting avoids the question.
    """
    pose = models[POSE.name]
    if match := models.get(CORRESPONDENCE.name):
        check_not_swapped((pose, POSE), (match, CORRESPONDENCE))
    learned_wording(pose, POSE)
    asked: tuple[tuple[Task[Any, Any, Any, Any], str], ...] = (
        (CORRESPONDENCE, "ask no matches (match_rows: 0)"),
        (DEPTH, "ask no depth (ask_depth: false)"),
    )
    for task, remedy in asked:
        if task.name not in settings.tasks:
            continue
        if task.name not in models:
            raise EngineError(
                f"the model for {task.title} was not loaded, since it was not needed: configure "
                f"the node again, or {remedy}"
            )
        if reason := why_unlearned(models[task.name], task):
            raise EngineError(f"{reason}, or {remedy}")


def why_no_matches(models: Mapping[str, Model]) -> str:
    """Return why the model for motions cannot answer matches as well; empty if it can.

    Also empty if another model answers matches: that one must have learned them.
    """
    if models.get(CORRESPONDENCE.name) is not models[POSE.name]:
        return ""
    reason = why_unlearned(models[POSE.name], CORRESPONDENCE)
    return f"{reason}, or ask none (match_rows: 0)" if reason else ""


class VisualOdometry:
    """Chain of motions of one camera. Not thread-safe.

    If an image or the engine raises an error, the chain does not change.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        T_base_camera: Transform,
        settings: OdometrySettings | None = None,
    ) -> None:
        """Begin without a pose.

        Args:
            engines: that answer "pose", and "correspondence" and "depth" if these are asked; one
                may answer several tasks.
            T_base_camera: shape (4, 4), takes points of the optical frame to the base.
            settings: see `OdometrySettings`.

        Raises:
            EngineError: if a model is missing, or did not learn what it is asked.
        """
        self._engines = engines
        self._T_base_camera = T_base_camera
        self.settings = settings or OdometrySettings()
        """May change between two updates."""
        check_learned(engines, self.settings)
        self._chain: _Chain | None = None
        self._twist: FittedTwist | None = None
        self._lost: _Frame | None = None
        """The last image, if its motion was refused."""
        self._late = 0
        self._reset_reason: str | None = None
        self._time_jumped = False

    def reset(self, reason: str, time_jumped: bool = False) -> None:
        """Begin a new chain with the next image, whose step reports the reason.

        Args:
            reason: one sentence.
            time_jumped: whether that image may be older than the last one. Otherwise a late image
                is skipped, so that stamps never go back.
        """
        still_jumped = self._reset_reason is not None and self._time_jumped
        self._reset_reason, self._time_jumped = reason, time_jumped or still_jumped

    @property
    def T_base_camera(self) -> Transform:
        """How the base carries the camera, shape (4, 4), metres."""
        return self._T_base_camera

    def remount(self, T_base_camera: Transform, reason: str) -> None:
        """Carry the camera like this from the next image on, which begins a new chain.

        Motions between images before and after are not those of the base.
        """
        self._T_base_camera = T_base_camera
        self.reset(reason)

    @property
    def awaits_reset(self) -> bool:
        """Whether the next image begins a new chain."""
        return self._reset_reason is not None

    def update(
        self,
        image: NDArray[np.uint8],
        camera: PinholeCamera,
        stamp_ns: int,
        visible: NDArray[np.bool_] | None = None,
    ) -> OdometryStep:
        """Return the pose at an image.

        Args:
            image: rectified RGB, shape (camera.height, camera.width, 3), uint8.
            camera: its intrinsics.
            stamp_ns: time of the image, nanoseconds.
            visible: mask of valid pixels, shape (camera.height, camera.width); None if all are
                valid.

        Raises:
            GeometryError: if the image does not fit its camera or the engine's limits.
            EngineError: if the model cannot answer.
        """
        frame = _Frame(image, camera, stamp_ns, visible)
        self._check(frame)
        if self._chain is None:
            if self._reset_reason is not None:
                return self._begun(frame, "reset", self._reset_reason)
            return self._begun(frame, "first", "the first image")
        if self._reset_reason is not None and self._time_jumped:
            return self._begun(frame, "reset", self._reset_reason)
        latest = self._chain.latest
        elapsed = (stamp_ns - latest.stamp_ns) / 1e9
        is_late = -self.settings.max_gap <= elapsed < 0 and self._late < MAX_LATE
        if is_late or elapsed == 0:
            self._late += is_late
            what = f"{-elapsed:.3f} s older than" if elapsed else "as old as"
            return _nothing(frame, None, "skipped", f"the image is {what} the last one")
        if self._reset_reason is not None:
            return self._begun(frame, "reset", self._reset_reason)
        if elapsed < 0:
            return self._begun(frame, "reset", f"time has jumped back by {-elapsed:.3f} s")
        if elapsed > self.settings.max_gap:
            reason = (
                f"no pose for {elapsed:.1f} s, longer than max_gap ({self.settings.max_gap:g} s)"
            )
            return self._begun(frame, "reset", reason)
        if not _same_camera(camera, latest.frame.camera):
            return self._begun(frame, "reset", "the camera has changed its size or intrinsics")
        self._late = 0
        if self._shows_standstill(frame, latest.frame):
            return self._stood_still(frame, self._chain)
        return self._moved(frame, self._chain)

    def _check(self, frame: _Frame) -> None:
        """Refuse an image that could not be compared with others before it becomes a reference."""
        camera = frame.camera
        if frame.image.shape != (camera.height, camera.width, 3):
            raise GeometryError(
                f"the image has shape {frame.image.shape}, its camera is {camera.width}x"
                f"{camera.height}"
            )
        check_learned(self._engines, self.settings)  # which may have changed
        for task in self.settings.tasks:
            engine = self._engines[task]
            model_view(engine.profile, engine.limits, camera)

    def _begun(self, frame: _Frame, status: StepStatus, reason: str) -> OdometryStep:
        """Begin a chain."""
        self._late, self._reset_reason, self._lost, self._twist = 0, None, None, None
        pose = ChainedPose()
        origin = _Latest(frame, frame.stamp_ns, pose)
        self._chain = self._refer_to(origin, (_tracked(frame.stamp_ns, pose, frame.stamp_ns),))
        return replace(
            _nothing(frame, None, status, reason),
            T_odom_base=pose.T_odom_base,
            covariance_odom_base=pose.covariance_odom_base,
        )

    def _refer_to(self, latest: _Latest, track: tuple[TrackedPose, ...]) -> _Chain:
        """Compare the next images with this one."""
        reference = _Reference(latest.frame, self._pixels(latest.frame))
        return _Chain(reference, replace(latest, pose=latest.pose.as_reference()), track)

    def _pixels(self, frame: _Frame) -> NDArray[np.float64]:
        """Pixels to match under the current settings, shape (n, 2)."""
        settings = self.settings
        if not settings.asks_matches:
            return np.empty((0, 2))
        pixels = uniform_grid(frame.camera, settings.match_columns, settings.match_rows)
        if frame.visible is None:
            return pixels
        u, v = np.rint(pixels).astype(int).T
        return pixels[frame.visible[v, u]]

    def _shows_standstill(self, frame: _Frame, last: _Frame) -> bool:
        """Whether the image shows the same as that of the last pose."""
        limit = self.settings.still_flow
        if limit <= 0:
            return False
        flow = image_flow(last.image, frame.image, last.visible)
        return flow is not None and float(np.mean(flow < limit)) >= STILL_SHARE

    def _stood_still(self, frame: _Frame, chain: _Chain) -> OdometryStep:
        """Repeat the last pose. Keep its image, so that slow motion adds up until it is visible."""
        latest = chain.latest
        still = VerifiedMotion("accepted", "the image stands still", np.eye(4), STILL_COVARIANCE)
        noise = base_motion_covariance(STILL_COVARIANCE, np.eye(4), self._T_base_camera)
        seconds = (frame.stamp_ns - latest.stamp_ns) / 1e9
        twist = FittedTwist(np.zeros(6), noise / seconds**2, 1.0)
        to_odom = np.kron(np.eye(2), latest.pose.T_odom_base[:3, :3])
        tracked = TrackedPose(
            frame.stamp_ns,
            latest.pose.T_odom_base,
            to_odom @ noise @ to_odom.T,
            latest.frame.stamp_ns,
        )
        step = _step(
            frame, latest.stamp_ns, "standstill", still, latest.pose.disturbed(noise), twist
        )
        # Only this step has the noise: a longer standstill does not make the pose worse.
        self._chain = replace(
            chain,
            latest=replace(latest, stamp_ns=frame.stamp_ns),
            track=_extended(chain.track, tracked),
        )
        self._twist, self._lost = twist, None
        return step

    def _moved(self, frame: _Frame, chain: _Chain) -> OdometryStep:
        """Move the pose by the first answered motion that passes its checks."""
        step = self._compared(frame, chain)
        if not step.has_pose and chain.latest.frame is not chain.reference.frame:
            chain = self._chain = self._refer_to(chain.latest, chain.track)
            step = replace(self._compared(frame, chain), refused_before=step)
        if not step.has_pose and self._lost is not None:
            step = self._found_again(frame, chain, self._lost, step)
        self._lost = None if step.has_pose else frame
        return step

    def _found_again(
        self, frame: _Frame, chain: _Chain, lost: _Frame, refused: OdometryStep
    ) -> OdometryStep:
        """Compare with an image without a pose, which the last twist predicts."""
        latest, twist = chain.latest, self._twist
        seconds = (lost.stamp_ns - latest.stamp_ns) / 1e9
        if seconds > self.settings.max_bridge:
            return refused
        pose = latest.pose
        if twist is not None:
            spread = (ACCELERATION_STD * seconds**2 / 2) ** 2 * np.eye(6)
            pose = pose.as_reference().moved(
                motion_of_twist(twist.twist, seconds), twist.covariance * seconds**2 + spread
            )
        pose = pose.as_reference()
        predicted = _Latest(lost, lost.stamp_ns, pose)
        bridge = self._refer_to(predicted, (_tracked(lost.stamp_ns, pose, lost.stamp_ns),))
        step = self._compared(frame, replace(bridge, bridged=seconds))
        if step.has_pose and twist is None:
            return self._begun(
                frame, "reset", f"nothing is known about the first motion ({refused.reason})"
            )
        return replace(step, refused_before=refused)

    def _compared(self, frame: _Frame, chain: _Chain) -> OdometryStep:
        """Ask for the motion since the reference, check it, and append it to the chain."""
        reference, last = self._prepared(chain), chain.latest
        images = (reference.frame.image, frame.image)
        cameras = (reference.frame.camera, frame.camera)
        pose, matches, backward = self._answers(images, cameras, reference.pixels)
        features = self._features(reference.frame, frame, pose)
        verified = verify_motion(
            pose, matches, cameras, reference.depth, backward, self._uncertainty(), features
        )
        stamp, motion = reference.frame.stamp_ns, verified.T_cam1_cam2
        if verified.status == "refused":
            refused = _nothing(frame, stamp, "refused", verified.reason)
            by = verified.refused_by
            return replace(refused, pose=pose, matches=matches, refused_by=by)
        status: StepStatus = verified.status
        if self._is_still(motion):
            status, motion = "standstill", np.eye(4)
            verified = replace(verified, T_cam1_cam2=motion, reason="the answered motion is tiny")
        moved = last.pose.moved(
            base_motion(motion, self._T_base_camera),
            base_motion_covariance(verified.covariance, motion, self._T_base_camera),
        )
        speed = self._speed(last, moved, frame.stamp_ns)
        if speed > self.settings.max_speed:
            reason = f"the motion since the last pose would be {speed:.1f} m/s, more than max_speed"
            refused = _nothing(frame, stamp, "refused", reason)
            return replace(refused, pose=pose, matches=matches, refused_by="max_speed")
        if chain.bridged:
            reason = f"{verified.reason}; {chain.bridged:.2f} s before are predicted"
            verified = replace(verified, reason=reason)
        track = _extended(chain.track, _tracked(frame.stamp_ns, moved, stamp))
        self._twist = fit_twist(track)
        step = _step(frame, stamp, status, verified, moved, self._twist)
        latest = _Latest(frame, frame.stamp_ns, moved)
        # Keep the reference after tiny motions, so that they add up.
        if status != "standstill" and self._is_worn(motion, matches, cameras):
            self._chain = self._refer_to(latest, track)
        else:
            self._chain = _Chain(reference, latest, track)
        return replace(step, pose=pose, matches=matches, bridged=chain.bridged)

    def _features(
        self, first: _Frame, second: _Frame, pose: RelativePose
    ) -> FeatureEvidence | None:
        """What image features say about a motion; None if nothing, or if it is not checked."""
        if not (self.settings.check_features and pose.has_motion):
            return None
        features, cameras = (first.features, second.features), (first.camera, second.camera)
        return feature_evidence(pose.T_cam1_cam2, features, cameras)

    def _speed(self, last: _Latest, moved: ChainedPose, stamp_ns: int) -> float:
        """Speed of the camera from the last pose to another one from the same reference, m/s."""
        motion = compose(inverse(last.pose.T_ref_base), moved.T_ref_base)
        of_camera = base_motion(motion, inverse(self._T_base_camera))
        return float(np.linalg.norm(of_camera[:3, 3])) / ((stamp_ns - last.stamp_ns) / 1e9)

    def _answers(
        self, images: ImagePair, cameras: CameraPair, pixels: NDArray[np.float64]
    ) -> tuple[RelativePose, Matches | None, RelativePose | None]:
        """Ask for the motion and, as the settings say, for matches and the motion back."""
        engine = self._engines[POSE.name]
        matches = backward = None
        if self.settings.asks_matches:
            match_engine = self._engines[CORRESPONDENCE.name]
            pose, matches = ask_pair(engine, images, cameras, pixels, match_engine)
        else:
            pose = ask_pose(engine, images, cameras)
        if self.settings.check_backward:
            backward = ask_pose(engine, (images[1], images[0]), (cameras[1], cameras[0]))
        return pose, matches, backward

    def _uncertainty(self) -> AnswerUncertainty:
        engine = self._engines[POSE.name]
        return assumed_uncertainty(engine, self._engines.get(CORRESPONDENCE.name, engine))

    def _prepared(self, chain: _Chain) -> _Reference:
        """Return the reference with the pixels, and depth at them, that the settings ask for.

        Depth is asked once for each reference.
        """
        reference = chain.reference
        pixels = self._pixels(reference.frame)
        if not np.array_equal(pixels, reference.pixels):  # the settings have changed
            reference = _Reference(reference.frame, pixels)
        frame = reference.frame
        if not self.settings.ask_depth or not len(pixels):
            reference = replace(reference, depth=None)
        elif reference.depth is None:
            engine = self._engines[DEPTH.name]
            depth = ask_depth(engine, frame.image, frame.camera, pixels).depth
            reference = replace(reference, depth=depth)
        if self._chain is not None and self._chain.reference.frame is frame:
            self._chain = replace(self._chain, reference=reference)
        return reference

    def _is_still(self, motion: Transform) -> bool:
        settings = self.settings
        return bool(
            np.linalg.norm(motion[:3, 3]) < settings.still_distance
            and rotation_angle(motion) < math.radians(settings.still_rotation_deg)
        )

    def _is_worn(self, motion: Transform, matches: Matches | None, cameras: CameraPair) -> bool:
        """Whether the newer image shows too little of the reference."""
        if matches is None or not self.settings.keyframes:
            return True
        inlier_deg = INLIER * self._uncertainty().match_deg
        agree = match_residuals(motion, matches, cameras) < math.radians(inlier_deg)
        return bool(agree.mean() < self.settings.min_overlap)


def _nothing(
    frame: _Frame, reference_stamp_ns: int | None, status: StepStatus, reason: str
) -> OdometryStep:
    """Build a step without motion and pose."""
    unknown = np.full((6, 6), np.nan)
    return OdometryStep(
        frame.stamp_ns,
        reference_stamp_ns,
        status,
        reason,
        T_ref_camera=None,
        covariance=None,
        T_odom_base=np.full((4, 4), np.nan),
        covariance_odom_base=unknown,
        twist=np.full(6, np.nan),
        covariance_twist=unknown,
    )


def _step(
    frame: _Frame,
    reference_stamp_ns: int,
    status: StepStatus,
    verified: VerifiedMotion,
    pose: ChainedPose,
    twist: FittedTwist,
) -> OdometryStep:
    """Build a step with a pose."""
    return OdometryStep(
        frame.stamp_ns,
        reference_stamp_ns,
        status,
        verified.reason,
        verified.T_cam1_cam2,
        verified.covariance,
        pose.T_odom_base,
        pose.covariance_odom_base,
        twist.twist,
        twist.covariance * twist.poses,
    )


def _tracked(stamp_ns: int, pose: ChainedPose, reference_ns: int) -> TrackedPose:
    return TrackedPose(stamp_ns, pose.T_odom_base, pose.motion_covariance, reference_ns)


def _extended(track: tuple[TrackedPose, ...], pose: TrackedPose) -> tuple[TrackedPose, ...]:
    """Append a pose. Forget old ones, except the last."""
    oldest = pose.stamp_ns - round(TWIST_WINDOW * 1e9)
    recent = [old for old in track[:-1] if old.stamp_ns >= oldest]
    return (*recent, track[-1], pose)[-TWIST_POSES:]


def _same_camera(camera: PinholeCamera, other: PinholeCamera) -> bool:
    """Whether two cameras are equal in size and, except for autofocus, in intrinsics."""
    if (camera.width, camera.height) != (other.width, other.height):
        return False
    return bool(np.allclose(camera.K, other.K, rtol=CAMERA_CHANGE))
