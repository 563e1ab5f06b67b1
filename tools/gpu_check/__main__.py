# SPDX-License-Identifier: Apache-2.0
"""`make gpu-check`: measure on this machine; write gpu.json and the page gpu.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gpu_check.extent import FULL, TINY
from gpu_check.page import gpu_page
from gpu_check.parts import TOTAL_S, check_parts
from gpu_check.running import Outcome, run_parts


def main() -> int:
    """Run the check; return 1 if a part fails or answers in float32 differ."""
    parser = argparse.ArgumentParser(prog="make gpu-check", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for results and logs")
    parser.add_argument("--tiny", action="store_true", help="a short trial, also without a GPU")
    options = parser.parse_args()
    # For the processes of the parts.
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Asking for a GPU must not initialise CUDA in the process that the parts are forked from.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    outcomes: list[Outcome] = []
    for outcome in run_parts(check_parts(TINY if options.tiny else FULL), options.out, TOTAL_S):
        outcomes.append(outcome)
        print(f"{outcome.name}: {outcome.failure or 'done'} ({outcome.seconds} s)", flush=True)
        # After each part: what is measured is kept if this process is ended.
        _write(options.out, outcomes, options.tiny, time.monotonic() - start)
        if not options.tiny and _has_no_gpu(outcome):
            print("torch reaches no GPU here: --tiny runs the check on the CPU", file=sys.stderr)
            return 1
    print(f"wrote gpu.json and gpu.md to {options.out}")
    if differ := [row for row in _rows(outcomes, "float32") if row["equal"] < row["compared"]]:
        print(f"answers in float32 differ from those of `generate`: {differ}", file=sys.stderr)
    return 1 if differ or any(outcome.failure for outcome in outcomes) else 0


def _rows(outcomes: Sequence[Outcome], name: str) -> list[dict]:
    return [row for outcome in outcomes if outcome.name == name for row in outcome.rows]


def _has_no_gpu(outcome: Outcome) -> bool:
    return any(row.get("device") == "cpu" for row in outcome.rows)


def _write(folder: Path, outcomes: Sequence[Outcome], is_tiny: bool, seconds: float) -> None:
    result = {
        "is_tiny": is_tiny,
        "seconds": round(seconds, 1),
        "parts": [asdict(outcome) for outcome in outcomes],
    }
    text = json.dumps(result, indent=1) + "\n"
    (folder / "gpu.json").write_text(text)
    (folder / "gpu.md").write_text(gpu_page(json.loads(text)))


if __name__ == "__main__":
    sys.exit(main())
