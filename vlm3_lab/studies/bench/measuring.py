# SPDX-License-Identifier: Apache-2.0
"""Time and memory of one way to ask a model; run in its own process."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vlm3_lab.studies.bench.calls import Call, engine_call
from vlm3_lab.studies.bench.roofline import measure_device, model_work
from vlm3_lab.studies.bench.stock import ask_batched, ask_naive, ask_packed
from vlm3_lab.studies.bench.work import DeviceSpeed, ModelWork
from vlm3_ros.engines.model import LoadedModel
from vlm3_ros.engines.processor import encode_questions
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.engines.transformers import TransformersEngine
from vlm3_ros.language.wordings.depth import DepthWording

Method = Literal["naive", "batched", "packed", "engine", "engine-forced"]

STOCK = {"naive": ask_naive, "batched": ask_batched, "packed": ask_packed}
LIBRARIES = ("torch", "transformers", "numpy")


@dataclass(frozen=True)
class Workload:
    """One image and the questions about it.

    Attributes:
        image: RGB, shape (height, width, 3), uint8, of a size that enters the model unresized.
    """

    image: NDArray[np.uint8]
    questions: Sequence[str]


@dataclass(frozen=True)
class Measurement:
    """Measured values of one method.

    Attributes:
        seconds: per repeat; empty if memory ran out.
        peak_bytes: peak memory while asking, of the process or, on a GPU, of its tensors.
        idle_bytes: the same memory before asking, with the model loaded.
        texts: the answers.
    """

    method: Method
    questions: int
    seconds: tuple[float, ...]
    peak_bytes: int
    idle_bytes: int
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """The machine, model and workload of a benchmark.

    Attributes:
        hardware: name of the device.
        threads: of torch on the CPU.
        image_size: (width, height), px.
        visual_tokens: tokens of the image.
        prefix_tokens: tokens that all questions share, including the visual ones.
        question_tokens: mean number of other tokens per question.
        answer_tokens: tokens of an answer in the form of the checkpoint's prompts, with its end.
        number_tokens: those answer tokens that are decoded if answers are forced.
    """

    hardware: str
    cores: int
    memory_bytes: int
    threads: int
    versions: dict[str, str]
    parameters: int
    dtype: str
    device: str
    image_size: tuple[int, int]
    visual_tokens: int
    prefix_tokens: int
    question_tokens: float
    answer_tokens: int
    number_tokens: int
    speed: DeviceSpeed
    work: ModelWork


class WorkloadCalls(NamedTuple):
    """The workload as the engine answers it: as free text, and forced into its form."""

    free: Call
    forced: Call


def describe(loaded: LoadedModel, workload: Workload) -> tuple[Setting, WorkloadCalls]:
    """Name the machine, count the workload's tokens, and measure the speed of the device."""
    model = loaded.model
    encoded = encode_questions(loaded.processor, [workload.image], workload.questions)
    height, width, _ = workload.image.shape
    template, answers = _template(loaded), [_answer(loaded)] * len(workload.questions)
    calls = WorkloadCalls(
        free=engine_call(loaded.processor, encoded, answers),
        # The greedy numbers alone: the least that can be decoded.
        forced=engine_call(
            loaded.processor, encoded, answers, template, [1.0] * len(_number(loaded))
        ),
    )
    on_gpu = model.device.type == "cuda"
    setting = Setting(
        hardware=torch.cuda.get_device_name(model.device) if on_gpu else _cpu_name(),
        cores=os.cpu_count() or 1,
        memory_bytes=(
            torch.cuda.get_device_properties(model.device).total_memory
            if on_gpu
            else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        ),
        threads=torch.get_num_threads(),
        versions={
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        parameters=sum(weights.numel() for weights in model.parameters()),
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        image_size=(width, height),
        visual_tokens=calls.free.visual_tokens,
        prefix_tokens=len(encoded.prefix),
        question_tokens=float(np.mean([len(suffix) for suffix in encoded.suffixes])),
        answer_tokens=_answer_tokens(loaded),
        number_tokens=len(_number(loaded)) + 1,
        speed=measure_device(model.device, model.dtype),
        work=model_work(model),
    )
    return setting, calls


def measure(
    loaded: LoadedModel,
    method: Method,
    workload: Workload,
    settings: EngineSettings,
    repeats: int,
) -> Measurement:
    """Measure time and memory of a method on a workload.

    One question is asked first, unmeasured, to warm up. Memory is only meaningful in a process
    that has measured nothing else. Only the cost of answers is measured, not their sense: random
    weights, or an image size that the checkpoint never saw, may make a model ramble. So free
    answers are limited to the tokens of an answer in the checkpoint's form, and forced answers are
    forced whether or not the model keeps to that form.

    Args:
        settings: of the engine.
        repeats: number of times that all questions are asked.
    """
    settings = replace(settings, max_new_tokens=_answer_tokens(loaded))
    device = loaded.model.device
    ask = _asking(loaded, method, workload, settings)
    idle = _start_of_peak(device)
    seconds: list[float] = []
    texts: list[str] = []
    try:
        ask(workload.questions[:1])
        for _ in range(repeats):
            start = time.perf_counter()
            texts = ask(workload.questions)
            seconds.append(time.perf_counter() - start)
    except torch.OutOfMemoryError:
        seconds.clear()
        texts.clear()
    return Measurement(
        method, len(workload.questions), tuple(seconds), _peak(device), idle, tuple(texts)
    )


def _asking(
    loaded: LoadedModel, method: Method, workload: Workload, settings: EngineSettings
) -> Callable[[Sequence[str]], list[str]]:
    if method in STOCK:
        ask = STOCK[method]
        return lambda questions: ask(loaded, workload.image, questions, settings.max_new_tokens)
    engine = TransformersEngine(loaded, settings)
    template = _template(loaded) if method == "engine-forced" else None
    if template is not None:
        engine.force(template)
    return lambda questions: [
        answer.text for answer in engine.ask([workload.image], questions, template)
    ]


def _number(loaded: LoadedModel) -> str:
    """A number in the format of answers, as long as indoor depths are."""
    return f"{2.345678:.{loaded.profile.prompts[DepthWording].decimals}f}"


def _template(loaded: LoadedModel) -> str:
    return loaded.profile.prompts[DepthWording].answer


def _answer(loaded: LoadedModel) -> str:
    return _template(loaded).replace("{value}", _number(loaded))


def _answer_tokens(loaded: LoadedModel) -> int:
    tokenizer = loaded.processor.tokenizer
    return len(tokenizer(_answer(loaded), add_special_tokens=False)["input_ids"]) + 1


def _cpu_name() -> str:
    names = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return names[1] if names else platform.machine()


def _start_of_peak(device: torch.device) -> int:
    """Reset the peak; return the memory in use now, in bytes."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    # Loading may take more memory than asking. Writing 5 resets the peak, see proc(5).
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status_bytes("VmRSS")


def _peak(device: torch.device) -> int:
    """Peak memory in use since `_start_of_peak`, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not getrusage's ru_maxrss, which includes the process that started this one.
    return _status_bytes("VmHWM")


def _status_bytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _read("/proc/self/status"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")
