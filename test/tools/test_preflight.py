# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import sys
from pathlib import Path

import preflight
import pytest
from preflight import SetupError


@pytest.fixture
def only_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A PATH on which only the named programs are found."""

    def keep(*names: str) -> None:
        for name in names:
            (tmp_path / name).symlink_to(shutil.which(name))
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.delenv("CXX", raising=False)

    return keep


@pytest.mark.parametrize(
    ("programs", "missing"),
    [((), "make"), (("make",), "cc"), (("make", "cc"), "c++"), (("cc", "c++"), "make")],
)
def test_a_missing_build_tool_is_named(only_programs, programs, missing):
    only_programs(*programs)
    with pytest.raises(SetupError) as error:
        preflight.check_build_tools()
    assert str(error.value) == f"`{missing}` is missing: sudo apt install build-essential"


def test_the_compilers_of_this_machine_are_accepted():
    preflight.check_build_tools()


def test_a_compiler_that_compiles_nothing_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(SetupError, match=r"`false` compiles nothing.*build-essential"):
        preflight.check_build_tools()


def test_a_compiler_with_arguments_is_accepted(monkeypatch):
    monkeypatch.setenv("CC", "cc -O1")
    preflight.check_build_tools()


def test_missing_headers_are_named_with_their_package(monkeypatch, tmp_path):
    monkeypatch.setattr(preflight.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(SetupError, match=rf"headers of Python.*{tmp_path}.*python3\.\d+-dev"):
        preflight.check_build_tools()


@pytest.mark.parametrize("version", [(3, 9, 2), (3, 13, 0)])
def test_other_pythons_are_refused(monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SetupError, match=r"is not supported, 3\.10 to 3\.12 are: .*PYTHON="):
        preflight.check_python()


def test_a_python_without_ensurepip_is_refused(monkeypatch):
    hidden = [path for path in sys.path if not (Path(path) / "ensurepip").is_dir()]
    monkeypatch.setattr(sys, "path", hidden)
    monkeypatch.delitem(sys.modules, "ensurepip", raising=False)
    sys.path_importer_cache.clear()
    with pytest.raises(SetupError, match=r"venv module is missing: sudo apt install .*-venv"):
        preflight.check_venv_module()


def test_a_full_disk_is_reported_before_anything_is_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(preflight, "DISK_BYTES", 10**18)
    with pytest.raises(SetupError, match=r"GB free, the set-up needs 1000000000 GB"):
        preflight.check_folder(tmp_path / "not" / "yet" / "there")


def test_a_folder_that_is_not_an_environment_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SetupError, match="not empty and no virtual environment"):
        preflight.check_folder(tmp_path)
    (tmp_path / "pyvenv.cfg").touch()
    preflight.check_folder(tmp_path)


def test_everything_that_is_missing_is_reported_at_once(only_programs, tmp_path):
    only_programs()
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SetupError) as error:
        preflight.check_all(tmp_path)
    tools, folder = str(error.value).splitlines()
    assert "build-essential" in tools
    assert "not empty" in folder
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
