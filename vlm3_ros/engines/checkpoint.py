# SPDX-License-Identifier: Apache-2.0
"""Check before loading that a checkpoint is complete and fits this machine."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import huggingface_hub
import torch
import transformers
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from packaging.version import Version
from safetensors import SafetensorError, safe_open

from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.settings import Attention, Dtype, EngineSettings

ARCHITECTURES = ("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration")

MIN_TRANSFORMERS = "5.19"
"""The oldest version that `make test-versions` runs; earlier ones need torchvision for images."""

SMALL_FILES = ("*.json", "*.txt", "*.jinja")
WEIGHT_FILES = ("*.safetensors",)
INDEX_FILE = "model.safetensors.index.json"
WEIGHTS_FILE = "model.safetensors"
OTHER_FILES = (
    ("config.json",),
    ("tokenizer_config.json",),
    ("tokenizer.json", "vocab.json"),
    ("processor_config.json", "preprocessor_config.json"),
)
"""Files that a checkpoint must hold besides its weights: one of each row."""

MEMORY_MARGIN = 1.2
"""Memory that a model needs, relative to its weights; the rest is for activations."""


@dataclass(frozen=True)
class Preflight:
    """A checkpoint that fits this machine.

    Attributes:
        folder: folder of its files.
        architecture: class of the model in transformers.
        device: device to run on.
        dtype: dtype of the loaded weights.
        parameters: number of parameters.
        needed_bytes: estimate of the memory needed on the device.
        free_bytes: free memory on the device, now.
    """

    folder: Path
    architecture: str
    device: torch.device
    dtype: torch.dtype
    parameters: int
    needed_bytes: int
    free_bytes: int

    def __str__(self) -> str:
        """Describe it in one line."""
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"{self.folder.name}: {self.architecture} of {self.parameters / 1e6:,.1f} M parameters "
            f"as {dtype} on {self.device}, needs about {_gigabytes(self.needed_bytes)} of "
            f"{_gigabytes(self.free_bytes)} free memory"
        )


def preflight(
    settings: EngineSettings, progress: Callable[[str], None] = lambda message: None
) -> Preflight:
    """Find a checkpoint and check that it is complete and fits; download a hub id if needed.

    Args:
        settings: which model, device and dtype.
        progress: receives a line of text before each step that takes time.

    Raises:
        EngineError: if the model cannot be loaded here; says why and what to do.
    """
    _check_versions()
    device, dtype = choose_device(settings.device), choose_dtype(settings)
    _check_attention(settings.attn_implementation, device)
    folder = _find(settings, progress)
    architecture = _check_architecture(folder)
    parameters = sum(_count_parameters(path) for path in _weight_files(folder))
    checked = Preflight(
        folder,
        architecture,
        device,
        dtype,
        parameters,
        needed_bytes=_needed_bytes(parameters, dtype),
        free_bytes=free_memory(device),
    )
    if checked.needed_bytes > checked.free_bytes:
        advice = "another device or a smaller model"
        if dtype.itemsize > 2:
            advice = "dtype bfloat16, " + advice
        raise EngineError(f"{checked}: free some, or choose {advice}")
    return checked


def estimate_memory(model: str, dtype: torch.dtype) -> int | None:
    """Estimate the memory that a model needs as `preflight` does, in bytes; download nothing.

    Args:
        model: folder or hub id.
        dtype: of the loaded weights.

    Returns:
        None if the checkpoint is not on this machine.

    Raises:
        EngineError: if its files are damaged.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        try:
            folder = Path(huggingface_hub.snapshot_download(model, local_files_only=True))
        except (FileNotFoundError, HFValidationError):
            return None
    if _missing_files(folder):
        return None
    return _needed_bytes(sum(map(_count_parameters, _weight_files(folder))), dtype)


def _needed_bytes(parameters: int, dtype: torch.dtype) -> int:
    return int(parameters * dtype.itemsize * MEMORY_MARGIN)


def _check_versions() -> None:
    installed = Version(transformers.__version__)
    if installed < Version(MIN_TRANSFORMERS):
        raise EngineError(
            f"transformers {installed} is too old: install {MIN_TRANSFORMERS} or newer"
        )


def choose_dtype(settings: EngineSettings) -> torch.dtype:
    """Return the dtype for these settings.

    Raises:
        EngineError: if the dtype or the device does not exist.
    """
    name = settings.dtype
    if name not in get_args(Dtype):
        raise EngineError(f"dtype is {name!r}, it must be one of {', '.join(get_args(Dtype))}")
    if name == "auto":
        name = "bfloat16" if choose_device(settings.device).type == "cuda" else "float32"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def choose_device(name: str) -> torch.device:
    """Return the device of this name; see `EngineSettings.device`.

    Raises:
        EngineError: if this machine has no such device, or torch cannot use it.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", name)
    if not match:
        raise EngineError(f"device is {name!r}, it must be auto, cpu, cuda or cuda:<index>")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    index = int(match[1] or 0)
    if not count:
        raise EngineError(
            f"device is {name!r}, but torch {torch.__version__} cannot use CUDA here: install a "
            "build of torch for this machine's CUDA driver, or set device to cpu"
        )
    if index >= count:
        raise EngineError(f"device is {name!r}, but this machine has {count} CUDA device(s)")
    return torch.device("cuda", index)


def _check_attention(name: str, device: torch.device) -> None:
    if name not in get_args(Attention):
        raise EngineError(
            f"attn_implementation is {name!r}, it must be one of {', '.join(get_args(Attention))}"
        )
    if name == "flash_attention_2":
        if device.type != "cuda":
            raise EngineError(f"attn_implementation {name} needs a CUDA device, not {device}")
        # Without the package, transformers would download compiled code from the hub.
        if not importlib.util.find_spec("flash_attn"):
            raise EngineError(f"attn_implementation {name} needs the package flash-attn")


def _find(settings: EngineSettings, progress: Callable[[str], None]) -> Path:
    """Return the folder of a complete checkpoint."""
    folder = Path(settings.model).expanduser()
    if folder.is_dir():
        if missing := _missing_files(folder):
            raise EngineError(f"{folder} is not a complete checkpoint: it lacks {missing}")
        return folder
    if not is_hub_id(settings.model):
        raise EngineError(
            f"the model folder {folder} does not exist (nor is {settings.model!r} an "
            "<owner>/<name> of the Hugging Face hub)"
        )
    return _find_on_hub(settings, progress)


def is_hub_id(model: str) -> bool:
    """Return whether a model may be an <owner>/<name> of the Hugging Face hub."""
    try:
        validate_repo_id(model)
    except HFValidationError:
        return False
    return model.count("/") == 1 and not model.startswith((".", "~"))


def _find_on_hub(settings: EngineSettings, progress: Callable[[str], None]) -> Path:
    """Return the local copy of a checkpoint on the hub; download only what is missing."""
    model = settings.model
    try:
        folder = Path(huggingface_hub.snapshot_download(model, local_files_only=True))
        missing = _missing_files(folder)
    except FileNotFoundError:
        missing = "its files"
    if not missing:
        return folder
    if settings.offline or huggingface_hub.constants.HF_HUB_OFFLINE:
        raise EngineError(
            f"{model} is not on this machine (missing: {missing}) and offline mode forbids the "
            "download: turn offline mode off once, or give the folder of a checkpoint"
        )
    try:
        progress(f"looking for {model} on the Hugging Face hub")
        folder = Path(huggingface_hub.snapshot_download(model, allow_patterns=list(SMALL_FILES)))
        if (folder / "config.json").exists():
            _check_architecture(folder)  # before downloading gigabytes
        progress(f"downloading the weights of {model}")
        huggingface_hub.snapshot_download(model, allow_patterns=list(WEIGHT_FILES))
    except EngineError:
        raise
    except Exception as error:  # from many libraries: HTTP, sockets, disk, the hub's own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise EngineError(
            f"{model} cannot be downloaded from the Hugging Face hub: {reason}. Check its name, "
            "the network and, for a gated model, your access token"
        ) from error
    if missing := _missing_files(folder):
        raise EngineError(f"{model} is not a complete checkpoint on the hub: it lacks {missing}")
    return folder


def _missing_files(folder: Path) -> str:
    """Return the names of the files that a checkpoint lacks; empty if it is complete."""
    missing = [
        " or ".join(names)
        for names in OTHER_FILES
        if not any((folder / name).is_file() for name in names)
    ]
    weights = _weight_files(folder)
    if not weights:
        missing.append(f"{WEIGHTS_FILE} or {INDEX_FILE}")
    lost = [path.name for path in weights if not path.is_file()]
    if len(lost) > 3:
        lost[3:] = [f"{len(lost) - 3} more of its {len(weights)} weight files"]
    return ", ".join(missing + lost)


def _weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that the checkpoint should hold."""
    index = folder / INDEX_FILE
    if not index.is_file():
        weights = folder / WEIGHTS_FILE
        return [weights] if weights.is_file() else []
    names = _read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise EngineError(f"{index} names no weight files: fetch the checkpoint again")
    return [folder / name for name in sorted(set(names.values()))]


def _check_architecture(folder: Path) -> str:
    path = folder / "config.json"
    architectures = _read_json(path).get("architectures") or ["no architecture"]
    if architectures[0] not in ARCHITECTURES:
        raise EngineError(
            f"{path} names {architectures[0]}: only models of the Qwen3-VL family "
            f"({', '.join(ARCHITECTURES)}) can be asked"
        )
    if not hasattr(transformers, architectures[0]):
        raise EngineError(
            f"transformers {transformers.__version__} has no {architectures[0]}, which {path} "
            "names: install a newer one"
        )
    return str(architectures[0])


def _count_parameters(path: Path) -> int:
    """Count the parameters in a file by its header, which must match the file's size."""
    try:
        with safe_open(path, framework="np") as tensors:
            shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise EngineError(f"{path} is truncated or corrupt ({error}): fetch it again") from error
    return sum(torch.Size(shape).numel() for shape in shapes)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise EngineError(f"{path} does not hold a JSON object")
    return content


def free_memory(device: torch.device) -> int:
    """Return the free memory of a device in bytes, now."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    memory = Path("/proc/meminfo").read_text(encoding="ascii")
    match = re.search(r"^MemAvailable:\s+(\d+) kB", memory, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB"
