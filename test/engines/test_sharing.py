# SPDX-License-Identifier: Apache-2.0
"""One model for several users, with recordings in place of models."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from truth import TruthEngine, record_truth

from vlm3_lab.scenes.views import sample_view
from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.engines.sharing import EnginePool
from vlm3_ros.tasks.depth import ask_depth, uniform_grid

VIEW = sample_view(np.random.default_rng(0), "room")


class CountedLoads:
    """Wraps `load_engine`; counts loads and closes."""

    def __init__(self) -> None:
        self.loads: list[EngineSettings] = []
        self.closed = 0

    def __call__(self, settings, progress):
        self.loads.append(settings)
        engine = load_engine(settings, progress)

        def close() -> None:
            self.closed += 1

        engine.close = close
        return engine


@pytest.fixture
def settings(tmp_path) -> EngineSettings:
    file = tmp_path / "room.jsonl"
    record_truth(file, [VIEW], grid=(3, 2))
    return EngineSettings("", engine="recorded", recording=str(file))


def depths(engine) -> list[float]:
    answers = ask_depth(engine, VIEW.image, VIEW.camera, uniform_grid(VIEW.camera, 3, 2))
    return answers.depth.tolist()


def test_model_is_loaded_once_and_closed_by_its_last_user(settings):
    loads, progress = CountedLoads(), []
    pool = EnginePool(loads)
    one = pool.load(settings, progress.append)
    two = pool.load(replace(settings), progress.append)
    assert len(loads.loads) == 1
    assert progress == [
        f"reading {settings.recording}",
        f"sharing {one.name}, which is loaded already",
    ]
    expected = depths(TruthEngine([VIEW]))
    assert depths(one) == depths(two) == pytest.approx(expected)
    assert one.profile == two.profile and one.limits == two.limits
    assert one.warning is None and one.memory_bytes() is None

    one.close()
    one.close()
    assert loads.closed == 0
    assert depths(two) == pytest.approx(expected)
    with pytest.raises(EngineError, match="is closed"):
        depths(one)
    two.close()
    assert loads.closed == 1
    assert depths(pool.load(settings)) == pytest.approx(expected)
    assert len(loads.loads) == 2


def test_other_settings_load_another_model(settings):
    loads = CountedLoads()
    pool = EnginePool(loads)
    pool.load(settings)
    pool.load(replace(settings, chunk=3)).close()
    assert len(loads.loads) == 2 and loads.closed == 1


def test_failed_load_is_retried(settings, tmp_path):
    pool = EnginePool()
    missing = replace(settings, recording=str(tmp_path / "later.jsonl"))
    with pytest.raises(EngineError, match="later"):
        pool.load(missing)
    record_truth(tmp_path / "later.jsonl", [VIEW], grid=(3, 2))
    assert len(depths(pool.load(missing))) == 6


def test_concurrent_users_wait_for_one_load(settings):
    loads, entered, gate = CountedLoads(), threading.Event(), threading.Event()

    def slow(settings, progress):
        entered.set()
        assert gate.wait(600)
        return loads(settings, progress)

    pool, engines = EnginePool(slow), []
    threads = [
        threading.Thread(target=lambda: engines.append(pool.load(settings))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert entered.wait(600)
    gate.set()
    for thread in threads:
        thread.join()
    assert len(engines) == 3 and len(loads.loads) == 1
