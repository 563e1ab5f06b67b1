# SPDX-License-Identifier: Apache-2.0
"""Lists of scenes, such as those of a split."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from typing_extensions import override

from vlm3_ros.errors import DatasetError


def read_scene_list(path: Path) -> list[str]:
    """Read names of scenes: a line each, or an .npy file of map-anything.

    Raises:
        DatasetError: naming the file that is missing, broken or empty.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: it cannot be read: {error.strerror}") from error
    try:
        names = _array(data) if path.suffix == ".npy" else data.decode().splitlines()
    except Exception as error:  # numpy and pickle raise anything on broken files
        raise DatasetError(f"{path}: it is no list of scenes: {error}") from error
    scenes = [str(name).strip() for name in names]
    if not any(scenes):
        raise DatasetError(f"{path}: the list of scenes is empty")
    return list(dict.fromkeys(filter(None, scenes)))


class _Arrays(pickle.Unpickler):
    """Unpickles arrays and nothing else: a pickle may run any program."""

    @override
    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in (
            "_reconstruct",
            "ndarray",
            "dtype",
            "scalar",
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}, not only names")


def _array(data: bytes) -> list[Any]:
    """Read a one-dimensional array of texts, or of objects as map-anything writes them."""
    file: BinaryIO = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read_header(file)
    array = _Arrays(file).load() if dtype.hasobject else np.load(io.BytesIO(data))
    if len(shape) != 1:
        raise ValueError(f"its shape is {shape}")
    names: list[Any] = np.asarray(array).tolist()
    return names
