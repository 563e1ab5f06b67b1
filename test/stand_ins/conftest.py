# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vlm3_ros.engines.base import Engine
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings


@pytest.fixture
def load(stand_ins: Path) -> Iterator[Callable[..., Engine]]:
    """Load a stand-in by its name, as a node does."""
    engines: list[Engine] = []

    def make(name: str, **settings: Any) -> Engine:
        options = {"device": "cpu", "dtype": "float32", "offline": True, **settings}
        engines.append(load_engine(EngineSettings(model=str(stand_ins / name), **options)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture(scope="session")
def picture() -> Callable[..., NDArray[np.uint8]]:
    """Make a picture that no stand-in has seen."""

    def make(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
        coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3))
        rows = np.arange(height) * 8 // height
        columns = np.arange(width) * 8 // width
        return coarse[rows][:, columns].astype(np.uint8)

    return make
