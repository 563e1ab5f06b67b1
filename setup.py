# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

from setuptools import find_packages, setup

NAME = "vlm3_ros"
LAB = "vlm3_lab"


def shared(*folders: str) -> list[tuple[str, list[str]]]:
    """The files below these folders, to lie at the same paths in the package's share folder."""
    return [
        (f"share/{NAME}/{folder}", sorted(str(file) for file in folder.iterdir() if file.is_file()))
        for top in folders
        for folder in (Path(top), *Path(top).rglob("*"))
        if folder.is_dir() and folder.name != "__pycache__"
    ]


setup(
    name=NAME,
    version="0.1.0",
    description="A vision language model as a metric 3D sensor for ROS 2 robots",
    license="Apache-2.0",
    maintainer="vlm3_ros maintainers",
    maintainer_email="maintainers@vlm3-ros.example.org",
    packages=find_packages(include=[NAME, f"{NAME}.*", LAB, f"{LAB}.*"]),
    package_data={
        NAME: ["py.typed"],
        LAB: ["py.typed"],
        f"{NAME}.language": ["prompt_sets/*.json"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *shared("bags", "config", "foxglove", "launch", "models", "rviz"),
    ],
    install_requires=["setuptools"],
    extras_require={
        "lora": ["peft"],
        "rerun": ["rerun-sdk>=0.23"],
        # The last three are what `transformers serve` imports, the server of the tests.
        "test": ["pytest", "fastapi", "openai", "uvicorn"],
    },
    zip_safe=True,
    entry_points={
        "console_scripts": [
            "bag_player = vlm3_ros.nodes.bag_player:main",
            "depth_node = vlm3_ros.nodes.depth_node:main",
            "perception_node = vlm3_ros.nodes.perception_node:main",
            "pose_node = vlm3_ros.nodes.pose_node:main",
            "query_node = vlm3_ros.nodes.query_node:main",
            "vlm3 = vlm3_ros.cli.__main__:run",
        ],
        # How vlm3_ros finds the laboratory, which it never imports.
        "vlm3.commands": [
            "ablate = vlm3_lab.cli.ablate",
            "bench = vlm3_lab.cli.bench",
            "dataset = vlm3_lab.cli.dataset",
            "figure = vlm3_lab.cli.figure",
            "sample-bag = vlm3_lab.cli.sample_bag",
            "train = vlm3_lab.cli.train",
        ],
        "vlm3.evaluations": ["synthetic = vlm3_lab.cli.evaluate_synthetic:evaluate_on_scenes"],
    },
)
