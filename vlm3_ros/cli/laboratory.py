# SPDX-License-Identifier: Apache-2.0
"""What vlm3_lab adds to the command `vlm3`, found by entry points: vlm3_ros never imports it."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from vlm3_ros.errors import CommandError

_PACKAGE = "vlm3_lab"


def load_from_lab(group: str, name: str) -> Any | None:
    """Object of an entry point; None if vlm3_lab is not installed."""
    for entry_point in entry_points(group=group, name=name):
        try:
            return entry_point.load()
        except ModuleNotFoundError as error:
            # A package that vlm3_lab itself lacks is another fault.
            if (error.name or "").split(".")[0] != _PACKAGE:
                raise
    return None


def missing_lab(feature: str) -> CommandError:
    """Error for a feature that needs vlm3_lab."""
    return CommandError(
        f"{feature} needs the package {_PACKAGE}, which is not installed: "
        "run `pip install .` in a checkout of vlm3_ros"
    )
