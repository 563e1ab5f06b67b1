"""Where the package's own files are: in a source tree or in an installation."""

from __future__ import annotations

from pathlib import Path

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
        f"{_PACKAGE} lies neither in its source tree nor beside a share/{_PACKAGE.name}: "
        "install the package with colcon or pip"
    )


def default_model() -> Path:
    """The checkpoint that ships with the package, vlm3-tiny."""
    return share_folder() / "models" / "vlm3-tiny"


def sample_bag() -> Path:
    """The rosbag2 that ships with the package: a drive through an unseen synthetic scene."""
    return share_folder() / "bags" / "sample"
