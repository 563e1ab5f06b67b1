# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

from setuptools import find_packages, setup

NAME = "vlm3_ros"
LAB = "vlm3_lab"

# The only list of versions. `make setup` installs all of it but `rerun`; apt's packages on a robot
# and what pip adds to them: tools/requirements_over_apt.txt and package.xml.
REQUIREMENTS = [
    "httpx>=0.26,<1",
    "huggingface_hub>=1.31",
    "matplotlib>=3.8,<4",
    "numpy>=1.26,<3",
    # The build without windows: `opencv-python` needs X11 libraries that a bare Debian lacks.
    "opencv-python-headless>=4.10,<6",
    "packaging>=20",
    "Pillow>=10.2",
    "plotly>=7,<8",
    "PyYAML>=6,<7",
    "rich>=13.7,<16",
    "rosbags>=0.11,<0.12",
    "rosbags-image>=0.10,<0.11",
    "safetensors>=0.4.3,<1",
    # Since 1.15 rotations may be an empty array, as if no pair of images is answered.
    "scipy>=1.15,<2",
    "torch>=2.6",
    # From 5.19 the Qwen3-VL processor loads without torchvision.
    "transformers>=5.19,<5.25",
    "typing_extensions>=4.5",
]
EXTRAS = {
    # training, studies (`vlm3 train`, `vlm3 ablate`) and depth of data sets in EXR files
    "lab": ["accelerate>=1.10,<2", "OpenEXR>=3.3,<4", "tokenizers", "tqdm"],
    # adapters: `lora` in a training's configuration
    "lora": ["peft>=0.17,<1"],
    # `--rerun`
    "rerun": ["rerun-sdk>=0.23"],
    "test": [
        "colcon-common-extensions>=0.3",
        "hypothesis>=6.100,<7",
        "import-linter>=2.1,<3",
        "mypy>=1.13,<3",
        # the report in a browser; uses an installed Chromium
        "playwright>=1.40,<2",
        "psutil",
        "pytest>=8.2,<10",
        "pytest-timeout>=2.3,<3",
        "pytest-xdist>=3.6,<4",
        "ruff>=0.17.5,<0.18",
        "types-PyYAML",
        # `transformers serve`, the server of the tests
        "fastapi>=0.110,<1",
        "openai>=1.98",
        "uvicorn>=0.30,<1",
    ],
}


def shared(*folders: str) -> list[tuple[str, list[str]]]:
    """Files in these folders, for the same paths in the package's share folder."""
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
    # colcon --symlink-install runs a link to this file in a folder without README.md.
    long_description=Path(__file__).resolve().with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    keywords=["ROS 2", "depth", "visual odometry", "vision language model", "point cloud"],
    # The package has no public address of its own yet.
    project_urls={"Method": "https://github.com/facebookresearch/VLM3"},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    license="Apache-2.0",
    maintainer="vlm3_ros maintainers",
    maintainer_email="maintainers@vlm3-ros.example.org",
    packages=find_packages(include=[NAME, f"{NAME}.*", LAB, f"{LAB}.*"]),
    package_data={
        NAME: ["py.typed"],
        LAB: ["py.typed"],
        f"{NAME}.engines": ["shipped_profiles/*.json"],
        f"{NAME}.evaluation.dataset": ["published.json"],
        f"{NAME}.language": ["prompt_sets/*.json"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *shared("bags", "config", "foxglove", "launch", "models", "rviz"),
    ],
    python_requires=">=3.10",
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
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
