# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from vlm3_ros.cli import main
from vlm3_ros.paths import default_model

ONE_DEVICE = ["--hardware", "H100"]


def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """The cells of the printed table by the name of their row; the last table's."""
    lines = capsys.readouterr().out.splitlines()
    cells = [re.split(r" {2,}", line.strip()) for line in lines]
    return {name: values for name, *values in cells if values}


def test_the_authors_checkpoints_by_task(capsys):
    assert main(["bench", "--estimate", "--shape", "4b", *ONE_DEVICE]) == 0
    out = capsys.readouterr().out
    for wording in ("vlm3-depth", "vlm3-pose", "vlm3-corr", "vlm3-object"):
        assert wording in out
    for words in ("4b: 4,437.8 M parameters", "H100, s", "max(FLOP / speed", "our own tokenizer"):
        assert words in out
    assert "H200" not in out


def test_a_frame_of_depth_questions(capsys):
    command = ["bench", "--estimate", "--shape", "4b", "--wording", "vlm3-depth", *ONE_DEVICE]
    assert main(command) == 0
    table = rows(capsys)
    assert table["image, px"] == ["1056x800"]
    assert (table["questions"], table["visual tokens"]) == (["192"], ["825"])
    assert float(table["sum, TFLOP"][0]) == pytest.approx(130, rel=0.02)
    assert float(table["H100, s"][0]) == pytest.approx(0.133, rel=0.02)
    assert main([*command, "--grid", "32x24", "--chunk", "128"]) == 0
    table = rows(capsys)
    assert (table["questions"], table["decoding steps"]) == (["768"], ["24"])


def test_image_sizes(capsys):
    command = ["bench", "--estimate", "--shape", "4b", "--wording", "vlm3-depth", *ONE_DEVICE]
    assert main([*command, "--image-size", "1280x720", "--fx", "1000"]) == 0
    assert rows(capsys)["image, px"] == ["1280x704"]
    assert main([*command, "--focal", "500"]) == 0
    assert rows(capsys)["image, px"] == ["544x384"]
    assert main([*command, "--visual-tokens", "1000"]) == 0
    assert rows(capsys)["visual tokens"] == ["999"]


def test_free_answers_take_more_steps(capsys):
    command = ["bench", "--estimate", "--shape", "4b", *ONE_DEVICE, "--no-force-answers"]
    assert main([*command, "--wording", "vlm3-depth"]) == 0
    assert int(rows(capsys)["decoding steps"][0]) == pytest.approx(30, abs=1)
    assert main([*command, "--wording", "vlm3-corr-think", "--answer-tokens", "2048"]) == 0
    assert rows(capsys)["decoding steps"] == ["2,047"]


def test_a_checkpoint_needs_its_config_alone(tmp_path, capsys):
    assert main(["bench", "--estimate", *ONE_DEVICE]) == 0
    embedded = rows(capsys)
    folder = tmp_path / "robot"
    folder.mkdir()
    shutil.copy(default_model() / "config.json", folder)
    command = ["bench", "--estimate", "--model", str(folder), *ONE_DEVICE]
    assert main(command) == 2
    assert "nothing says what" in capsys.readouterr().err
    assert main([*command, "--profile", str(default_model())]) == 0
    alone = rows(capsys)
    assert alone["questions"] == embedded["questions"]
    assert embedded["own tokens per question"][0] == "15.6"
    assert float(alone["own tokens per question"][0]) > 70  # words are no single tokens
    assert main([*command, "--wording", str(default_model() / "vlm3.json")]) == 0
    assert rows(capsys) == alone
    tokenizer = ["--tokenizer", str(default_model()), "--wording", "vlm3-depth"]
    assert main([*command, *tokenizer]) == 0
    assert f"the tokenizer in {default_model()}" in " ".join(capsys.readouterr().out.split())


def test_a_prompt_set_is_asked_at_the_models_focal_length(tmp_path, capsys):
    profile = json.loads((default_model() / "vlm3.json").read_text())
    own = tmp_path / "own.json"
    own.write_text(json.dumps({**profile["prompts"], "name": "own"}))
    command = ["bench", "--estimate", *ONE_DEVICE, "--wording"]
    assert main([*command, str(own)]) == 0
    assert rows(capsys)["image, px"] == ["160x128", "160x128"]
    assert main([*command, "vlm3-short", "--shape", "4b"]) == 0
    assert rows(capsys)["image, px"][0] == "1056x800"


def test_a_device_of_ones_own(capsys):
    command = ["bench", "--estimate", "--flops", "100", "--bandwidth", "500"]
    assert main(command) == 0
    assert "100 TFLOP/s, 500 GB/s, s" in rows(capsys)
    assert main([*command, "--hardware", "agx orin 64gb", "h200"]) == 0
    assert {"100 TFLOP/s, 500 GB/s, s", "AGX Orin 64GB, s", "H200, s"} <= rows(capsys).keys()


WRONG = {
    ("--shape", "4b", "--model", "any"): "--shape replaces --model",
    ("--flops", "100"): "--flops and --bandwidth belong together",
    ("--bandwidth", "100"): "--flops and --bandwidth belong together",
    ("--device", "cuda"): "instead of --device cuda give --hardware",
    ("--engine", "openai"): "leave out --engine openai",
    ("--dtype", "float32"): "leave out --dtype float32",
    ("--out", "out"): "leave out --out",
    ("--questions", "16"): "--questions is for measurements",
    ("--model", "facebook/VLM3-depth"): "--model facebook/VLM3-depth is no folder",
    ("--wording", "vlm4"): "--wording: no prompt set is called 'vlm4'",
    ("--wording", "absent.json"): "--wording: prompt set absent.json: No such file",
    ("--tokenizer", "absent"): "--tokenizer absent is no folder",
    ("--visual-tokens", "100", "--fx", "500"): "leave out --image-size, --fx and --focal",
    ("--image-size", "9999x1"): "focal lengths of 600 and 600 px in images of 9999x1 px mean",
}


@pytest.mark.parametrize("options", WRONG, ids=" ".join)
def test_wrong_options_end_with_one_line(options, capsys):
    assert main(["bench", "--estimate", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert WRONG[options] in line


UNREADABLE = {
    ("--hardware", "H101"): "'H101' has no published speed here: use 'H100', 'H200', 'RTX 4090'",
    ("--grid=-16x12",): "'-16x12' is not a grid size such as 16x12",
    ("--image-size", "640"): "'640' is not an image size such as 640x480",
    ("--fx", "-1"): "'-1' is not a number above 0",
    ("--flops", "0"): "'0' is not a number above 0",
    ("--answer-tokens", "0"): "'0' is not a whole number of at least 1",
}


@pytest.mark.parametrize("options", UNREADABLE, ids=" ".join)
def test_unreadable_options_are_refused(options, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "--estimate", *options])
    assert stopped.value.code == 2
    assert UNREADABLE[options] in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read"),
        ('{"model_type": "llama"}', "its model_type is 'llama'"),
        ("{}", "its model_type is None"),
        ("[]", "its model_type is None"),
        ('{"model_type": "qwen3_vl", "text_config": {"hidden_size": "x"}}', "cannot be read"),
        ('{"model_type": "qwen3_vl", "text_config": 3}', "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_config_of_another_model(tmp_path, capsys, content, words):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert main(["bench", "--estimate", "--model", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'config.json'}" in line
    assert words in line


@pytest.mark.parametrize(
    ("part", "sizes"),
    [
        ("text_config", {"num_attention_heads": 0}),
        ("text_config", {"hidden_size": -5}),
        ("vision_config", {"spatial_merge_size": 0}),
    ],
)
def test_a_config_with_sizes_of_no_model(tmp_path, capsys, part, sizes):
    config = json.loads((default_model() / "config.json").read_text())
    config[part] |= sizes
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["bench", "--estimate", "--model", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"no model has the sizes in {tmp_path}/config.json" in line


@pytest.mark.parametrize("option", [["--hardware", "H100"], ["--grid", "4x3"], ["--fx", "500"]])
def test_options_of_the_estimate_need_it(tmp_path: Path, capsys, option):
    assert main(["bench", "--out", str(tmp_path), *option]) == 2
    assert f"{option[0]} needs --estimate" in capsys.readouterr().err


def test_measurements_need_a_folder(capsys):
    assert main(["bench"]) == 2
    assert "--out is missing" in capsys.readouterr().err
