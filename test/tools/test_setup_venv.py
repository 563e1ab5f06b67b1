# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import message_package
import preflight
import pytest
import setup_venv


def test_stamped_work_is_done_once(tmp_path):
    done = []
    stamp = tmp_path / "stamp"
    assert setup_venv.unless_stamped(stamp, "a", lambda: done.append(1))
    assert not setup_venv.unless_stamped(stamp, "a", lambda: done.append(2))
    assert setup_venv.unless_stamped(stamp, "b", lambda: done.append(3))
    assert done == [1, 3]


def test_work_that_fails_is_not_stamped(tmp_path):
    stamp = tmp_path / "stamp"
    setup_venv.unless_stamped(stamp, "a", lambda: None)

    def fail() -> None:
        raise preflight.SetupError("no")

    with pytest.raises(preflight.SetupError):
        setup_venv.unless_stamped(stamp, "b", fail)
    assert setup_venv.unless_stamped(stamp, "a", lambda: None), "the old state is gone, too"


def test_a_changed_file_or_setting_changes_the_fingerprint(tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("numpy>=1\n")
    before = setup_venv.fingerprint([requirements], "torch==2.13.0", "")
    assert setup_venv.fingerprint([requirements], "torch==2.13.0", "") == before
    assert setup_venv.fingerprint([requirements], "torch==2.12.0", "") != before
    requirements.write_text("numpy>=2\n")
    assert setup_venv.fingerprint([requirements], "torch==2.13.0", "") != before


@pytest.mark.slow
def test_without_a_network_one_line_says_so(tmp_path):
    """The real program, with an index that refuses every connection."""
    offline = {
        **os.environ,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_NO_INDEX": "",
    }
    command = [sys.executable, setup_venv.__file__, "--venv", tmp_path / "venv"]
    answer = subprocess.run(command, env=offline, capture_output=True, text=True)
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert line.startswith("set-up: there is no network: pip cannot reach the package index")


def test_each_ros_has_its_requirements():
    """And all of them have the same packages of ROS itself, in versions of their own."""
    assert setup_venv.DISTROS == ("jazzy", "kilted")
    lines = {}
    for distro in setup_venv.DISTROS:
        setup = setup_venv.Setup(Path("/venv"), ros_distro=distro, torch="", torch_index="")
        text = setup.requirements.read_text()
        assert f"# ROS 2 {distro.capitalize()}:" in text
        lines[distro] = [line for line in text.splitlines() if line.startswith("ros-")]
    assert not set(lines["jazzy"]) & set(lines["kilted"])
    for package in ("ros-common-interfaces", "ros-rclpy", "ros-rmw-fastrtps-cpp"):
        for pinned in lines.values():
            assert any(line.startswith(f"{package}~=") for line in pinned)


def test_a_failed_command_is_reported_by_its_last_line(tmp_path):
    setup = setup_venv.Setup(tmp_path, ros_distro="kilted", torch="", torch_index="")
    setup.run(["sh", "-c", "echo first"])
    with pytest.raises(preflight.SetupError, match=r"`sh` failed: third \(details: .*setup\.log\)"):
        setup.run(["sh", "-c", "echo second; echo third >&2; exit 3"])
    assert "first" in setup.log.read_text()


def test_a_full_disk_is_reported_in_plain_words(tmp_path):
    setup = setup_venv.Setup(tmp_path, ros_distro="kilted", torch="", torch_index="")
    with pytest.raises(preflight.SetupError, match="the disk is full"):
        setup.run(["sh", "-c", "cat /dev/zero >/dev/full"])


def test_links_replace_existing_files(tmp_path):
    for content in ("old", "new"):
        (tmp_path / content).write_text(content)
        setup_venv.link(tmp_path / "share" / "place", tmp_path / content)
    assert (tmp_path / "share" / "place").read_text() == "new"


def test_cmake_files_of_the_wheels_point_to_this_machine(tmp_path):
    file = tmp_path / "share" / "std_msgs" / "cmake" / "export.cmake"
    file.parent.mkdir(parents=True)
    built = "/opt/python/cp310-cp310"
    file.write_text(
        f'set(a "{built}/include/python3.10")\n'
        f'set(b "{built}/lib/python3.10/site-packages/numpy/_core/include;/opt/python/other")\n'
    )
    message_package.point_wheels_here(tmp_path, "/usr/include/python3.12", "/numpy")
    assert file.read_text() == (
        'set(a "/usr/include/python3.12")\nset(b "/numpy;/opt/python/other")\n'
    )


@pytest.fixture
def environment() -> Path:
    """The environment that runs these tests, if the set-up made it."""
    venv = Path(sys.prefix)
    if not (venv / "setup.log").is_file():
        pytest.skip("not run from an environment that setup_venv.py made")
    return venv


def test_no_path_of_the_wheel_builder_is_left(environment):
    files = list(environment.glob("share/*/cmake/*_pyExport.cmake"))
    assert files
    for file in files:
        text = file.read_text()
        assert "/opt/python/cp" not in text
        assert sysconfig.get_path("include") in text


def test_tf2_msgs_is_the_official_one(environment):
    message = "tf2_msgs/msg/TFMessage"
    message_package.check_type_hash(environment, message, setup_venv.TF_MESSAGE_HASH)
    with pytest.raises(preflight.SetupError, match="came out with the type hash RIHS01_e369"):
        message_package.check_type_hash(environment, message, "RIHS01_0")


def test_tf2_msgs_and_rclpy_import_without_any_environment_variable(environment):
    code = (
        "from tf2_msgs.msg import TFMessage; import rclpy.serialization as s;"
        "assert s.deserialize_message(s.serialize_message(TFMessage()), TFMessage) == TFMessage()"
    )
    subprocess.run([environment / "bin" / "python", "-c", code], env={}, cwd="/", check=True)


def test_ros_finds_the_package(environment, monkeypatch):
    packages = pytest.importorskip("ament_index_python.packages")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(environment))
    assert packages.get_package_prefix("vlm3_ros") == str(environment)
    share = Path(packages.get_package_share_directory("vlm3_ros"))
    for file in ("package.xml", "launch/depth.launch.py", "config/depth.yaml"):
        assert (share / file).is_file()
    for program in ("bag_player", "depth_node", "perception_node", "pose_node", "query_node"):
        assert os.access(environment / "lib" / "vlm3_ros" / program, os.X_OK)
