# SPDX-License-Identifier: Apache-2.0
"""Where the package's own files are: in a source tree or in an installation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).resolve().parent


def share_folder() -> Path:
    """The folder of launch/, models/ and so on: the source tree, else share/vlm3_ros.

    Raises:
        FileNotFoundError: when the package was copied somewhere without its data.
    """
    source_tree = _PACKAGE.parent
    installations = (prefix / "share" / _PACKAGE.name for prefix in _PACKAGE.parents)
    for folder in (source_tree, *installations):
        if (folder / "package.xml").is_file():
            return folder
    raise FileNotFoundError(
        f"{_PACKAGE} lies neither in its source tree nor next to a share/{_PACKAGE.name}: "
        "install the package with colcon or pip"
    )


Task = Literal["depth", "pose", "correspondence", "objects"]
"""What a model is asked, as in prompt sets; each task may have a model of its own."""

_EMBEDDED: dict[Task, str] = {
    "depth": "vlm3-tiny",
    "pose": "vlm3-tiny-pairs",
    "correspondence": "vlm3-tiny-pairs",
    "objects": "vlm3-tiny",
}

SHIPPED_PROFILES = _PACKAGE / "engines" / "shipped_profiles"


def shipped_profiles() -> list[str]:
    """Names of the profiles that ship with the package; see `vlm3_ros.engines.profiles`."""
    return sorted(path.stem for path in SHIPPED_PROFILES.glob("*.json"))


def default_model(task: Task = "depth") -> Path:
    """The checkpoint for a task that ships with the package."""
    return share_folder() / "models" / _EMBEDDED[task]


def sample_bag() -> Path:
    """The rosbag2 that ships with the package: a drive through an unseen synthetic scene."""
    return share_folder() / "bags" / "sample"
