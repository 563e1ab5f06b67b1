# SPDX-License-Identifier: Apache-2.0
"""Parameters of every node that asks a model about a camera's images, and what they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from vlm3_ros.engines import anycalib
from vlm3_ros.engines.settings import (
    API_KEY_VARIABLE,
    LOCAL_SERVER,
    Attention,
    Dtype,
    EngineKind,
)
from vlm3_ros.geometry.camera import GeometryError
from vlm3_ros.geometry.lens import load_camera_yaml
from vlm3_ros.ros.parameters import ParameterError, ParameterTable, parameter


@dataclass(frozen=True)
class CameraModelParameters(ParameterTable):
    """Parameters of every node that asks a model about a camera's images."""

    autostart: bool = parameter(True, "Configure and activate the node at start.", changes="start")
    engine: str = parameter(
        "transformers",
        "Who answers: a model in this process, a server like vLLM (openai), or a recording.",
        choices=get_args(EngineKind),
        changes="unconfigured",
    )
    model: str = parameter(
        "",
        "Checkpoint: a folder or a Hugging Face id; empty for the embedded one. For engine "
        "openai the server's name for it; empty if the server has only one.",
        changes="unconfigured",
    )
    device: str = parameter(
        "auto",
        "Device of the model: auto (CUDA where torch can use it), cpu, cuda or cuda:<index>.",
        changes="unconfigured",
    )
    dtype: str = parameter(
        "auto",
        "Number type of the model's weights.",
        choices=get_args(Dtype),
        changes="unconfigured",
    )
    attn_implementation: str = parameter(
        "auto",
        "Attention implementation, as transformers names it.",
        choices=get_args(Attention),
        changes="unconfigured",
    )
    offline: bool = parameter(
        False, "Never look for the model on the network.", changes="unconfigured"
    )
    force_answers: bool = parameter(
        True,
        "Decode only the numbers of answers, under a grammar: faster, and with an uncertainty.",
        changes="unconfigured",
    )
    chunk: int = parameter(
        0,
        "Questions that are answered at the same time: more are faster and take more memory. "
        "0: as many as fit into the memory that is free.",
        minimum=0,
        maximum=4096,
        changes="unconfigured",
    )
    max_new_tokens: int = parameter(
        128,
        "Tokens after which an answer in free text is cut off: models that think need more.",
        minimum=1,
        maximum=32_768,
        changes="unconfigured",
    )
    base_url: str = parameter(
        LOCAL_SERVER,
        "For engine openai: the server, up to and with /v1.",
        changes="unconfigured",
    )
    api_key_variable: str = parameter(
        API_KEY_VARIABLE,
        "For engine openai: the environment variable with the server's key, if it wants one.",
        changes="unconfigured",
    )
    profile: str = parameter(
        "",
        "For engine openai: what the server's model was trained for, as a vlm3.json or a folder "
        "with one, such as a copy of the checkpoint; empty for the authors'.",
        changes="unconfigured",
    )
    concurrency: int = parameter(
        32,
        "For engine openai: questions that the server is asked at the same time.",
        minimum=1,
        maximum=4096,
        changes="unconfigured",
    )
    request_timeout: float = parameter(
        10.0,
        "For engine openai: seconds for one answer.",
        minimum=0.01,
        maximum=3600.0,
        changes="unconfigured",
    )
    frame_timeout: float = parameter(
        20.0,
        "For engine openai: seconds for all answers about an image.",
        minimum=0.01,
        maximum=3600.0,
        changes="unconfigured",
    )
    recording: str = parameter(
        "", "For engine recorded: the file whose answers are replayed.", changes="unconfigured"
    )
    record_to: str = parameter(
        "",
        "File to which all questions and answers are added, for engine recorded; empty for none.",
        changes="unconfigured",
    )
    image_transport: str = parameter(
        "raw",
        "Whether to subscribe to `image` or to `image/compressed`.",
        choices=("raw", "compressed"),
        changes="unconfigured",
    )
    image_is_rectified: bool = parameter(
        False, "The image topic is rectified already: P of its CameraInfo describes it."
    )
    max_frame_age: float = parameter(
        0.0,
        "Frames whose stamp is older than this, in seconds, are refused, and so are answers that "
        "come when their frame has become older; 0 for any age.",
        minimum=0.0,
        maximum=1e6,
    )
    image_timeout: float = parameter(
        5.0, "Warn after this many seconds without an image.", minimum=0.1, maximum=1e6
    )
    camera_info_timeout: float = parameter(
        5.0,
        "Warn, or take fallback_intrinsics, after this many seconds without a CameraInfo.",
        minimum=0.0,
        maximum=1e6,
    )
    fallback_intrinsics: str = parameter(
        "none",
        "Intrinsics for a camera that is uncalibrated or sends no CameraInfo; anycalib, if "
        "installed, takes them from its first images.",
        choices=("none", "hfov", "file", "anycalib"),
    )
    fallback_hfov: float = parameter(
        60.0,
        "Horizontal field of view in degrees, for fallback_intrinsics: hfov.",
        minimum=1.0,
        maximum=179.0,
    )
    fallback_file: str = parameter(
        "", "Calibration in camera_calibration's YAML format, for fallback_intrinsics: file."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fallback_intrinsics == "anycalib" and not anycalib.is_installed():
            raise ParameterError(
                f"fallback_intrinsics: anycalib needs the package anycalib: {anycalib.INSTALL}"
            )
        if self.fallback_intrinsics != "file":
            return
        if not self.fallback_file:
            raise ParameterError("fallback_intrinsics: file needs parameter 'fallback_file'")
        try:
            load_camera_yaml(self.fallback_file)
        except GeometryError as error:
            raise ParameterError(f"parameter 'fallback_file': {error}") from None


@dataclass(frozen=True)
class FrameParameters(CameraModelParameters):
    """Parameters of every node that asks about each frame that the model has time for."""

    process_every_frame: bool = parameter(
        False,
        "For replay: let frames wait for the model, instead of the newest frame only.",
        changes="unconfigured",
    )
    queue_size: int = parameter(
        100,
        "Frames that may wait with process_every_frame.",
        minimum=1,
        maximum=10_000,
        changes="unconfigured",
    )
    lazy: bool = parameter(True, "Ask the model only while someone subscribes to an output.")
