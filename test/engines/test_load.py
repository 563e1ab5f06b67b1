from __future__ import annotations

import subprocess
import sys


def test_who_only_imports_does_not_wait_for_torch():
    """Nodes and commands import the loader long before they know whether a model is wanted."""
    script = "import sys; import vlm3_ros.engines.load; print(sorted(sys.modules))"
    modules = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert "'vlm3_ros.engines.settings'" in modules
    assert "'torch'" not in modules
    assert "'transformers'" not in modules
