# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys


def test_importing_the_loader_does_not_import_torch():
    """Nodes and commands import the loader long before they need a model, if they ever do."""
    script = "import sys; import vlm3_ros.engines.load; print(sorted(sys.modules))"
    modules = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert "'vlm3_ros.engines.settings'" in modules
    assert "'torch'" not in modules
    assert "'transformers'" not in modules


def test_broken_torch_is_an_engine_error(tmp_path):
    """The commonest broken installation: a torchvision built for another torch."""
    (tmp_path / "torch.py").write_text("raise RuntimeError('operator nms does not exist')")
    script = (
        "from vlm3_ros.engines.base import EngineError\n"
        "from vlm3_ros.engines.load import load_engine\n"
        "from vlm3_ros.engines.settings import EngineSettings\n"
        "try:\n"
        "    load_engine(EngineSettings('anything'))\n"
        "except EngineError as error:\n"
        "    print(error)\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{script}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert printed.startswith(
        "torch and transformers cannot be imported: operator nms does not exist"
    )
    assert "fit together" in printed
