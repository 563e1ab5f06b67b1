# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
import struct

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from requirements import REQUIREMENTS, versions
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.checkpoint import MIN_TRANSFORMERS, preflight
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.language.wordings.depth import DepthWording, depth_question


@pytest.fixture
def folder(fluent, tmp_path):
    """A complete checkpoint for tests to damage."""
    shutil.copytree(fluent.folder, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def sharded(folder):
    model = AutoModelForImageTextToText.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="200KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(folder, **settings):
    """Return the message of the error that loading raises."""
    with pytest.raises(EngineError) as refused:
        load_engine(EngineSettings(model=str(folder), **settings))
    assert "\n" not in str(refused.value), "one clear message is one line"
    return str(refused.value)


def test_complete_checkpoint_passes(folder, fluent):
    checked = preflight(EngineSettings(model=str(folder), device="cpu"))
    parameters = sum(p.numel() for p in fluent.model.parameters())
    assert checked.parameters == parameters
    assert parameters * 4 <= checked.needed_bytes <= parameters * 4 * 1.5
    assert (checked.device, checked.dtype) == (torch.device("cpu"), torch.float32)
    assert "Qwen3VLForConditionalGeneration" in str(checked)
    assert "float32 on cpu" in str(checked)


def test_an_older_transformers_than_setup_allows_is_refused(folder, monkeypatch):
    assert versions(REQUIREMENTS)["transformers"].startswith(f">={MIN_TRANSFORMERS},")
    monkeypatch.setattr(transformers, "__version__", "5.18.0")
    assert refusal(folder) == f"transformers 5.18.0 is too old: install {MIN_TRANSFORMERS} or newer"


def test_half_the_bytes_need_half_the_memory(folder):
    needed = [
        preflight(EngineSettings(model=str(folder), device="cpu", dtype=dtype)).needed_bytes
        for dtype in ("float32", "bfloat16", "float16")
    ]
    assert needed[0] == pytest.approx(2 * needed[1], abs=1)
    assert needed[1] == needed[2]


def test_parameters_of_all_shards_are_counted(sharded, fluent):
    checked = preflight(EngineSettings(model=str(sharded), device="cpu"))
    assert checked.parameters == sum(p.numel() for p in fluent.model.parameters())
    image = np.zeros((32, 32, 3), np.uint8)
    assert load_engine(EngineSettings(model=str(sharded), device="cpu")).ask([image], ["How far?"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["auto", "sdpa", "eager"])
def test_loaded_engine_answers(folder, fluent, dtype, attention):
    messages: list[str] = []
    engine = load_engine(
        EngineSettings(model=str(folder), device="cpu", dtype=dtype, attn_implementation=attention),
        messages.append,
    )
    image = np.zeros((32, 32, 3), np.uint8)
    wording = engine.profile.prompts[DepthWording]
    template, question = wording.answer, depth_question(wording, (1500, 1200), 2000)
    (answer,) = engine.ask([image], [question], template)
    if dtype == "float32":
        stock = AutoModelForImageTextToText.from_pretrained(folder).eval()
        inputs = fluent.inputs([image], question)
        output = stock.generate(**inputs, max_new_tokens=40, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        assert answer.text == fluent.processor.tokenizer.decode(new, skip_special_tokens=True)
    else:
        (free,) = engine.ask([image], [question])
        assert answer.text == free.text
    assert engine.memory_bytes() is None, "the CPU has no separate memory"
    assert engine.name == str(folder)
    assert messages[0] == f"checking {folder}"
    assert messages[1].endswith("wording vlm3, answers about depth (by its vlm3.json)")
    assert "loading" in messages[-1]


def test_missing_folder(tmp_path):
    assert f"the model folder {tmp_path / 'nothing'} does not exist" in refusal(
        tmp_path / "nothing"
    )


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("config.json", "config.json"),
        ("tokenizer.json", "tokenizer.json or vocab.json"),
        ("tokenizer_config.json", "tokenizer_config.json"),
        ("processor_config.json", "processor_config.json or preprocessor_config.json"),
        ("model.safetensors", "model.safetensors or model.safetensors.index.json"),
    ],
)
def test_missing_file(folder, lost, named):
    (folder / lost).unlink()
    assert refusal(folder) == f"{folder} is not a complete checkpoint: it lacks {named}"


def test_missing_shards(sharded):
    shards = sorted(sharded.glob("*.safetensors"))
    shards[1].unlink()
    assert refusal(sharded).endswith(f"it lacks {shards[1].name}")
    for shard in shards[2:]:
        shard.unlink()
    assert f"of its {len(shards)} weight files" in refusal(sharded)


def test_pickled_weights_do_not_count(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "it lacks model.safetensors" in refusal(folder)


def test_index_without_files(sharded):
    edit(sharded / "model.safetensors.index.json", weight_map={})
    assert "model.safetensors.index.json names no weight files" in refusal(sharded)


@pytest.mark.parametrize("architecture", ["LlavaForConditionalGeneration", None])
def test_another_architecture(folder, architecture):
    edit(folder / "config.json", architectures=architecture and [architecture])
    message = refusal(folder)
    assert message.startswith(f"{folder / 'config.json'} names {architecture or 'no architecture'}")
    assert "Qwen3-VL" in message


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
@pytest.mark.parametrize("name", ["config.json", "vlm3.json"])
def test_invalid_json(folder, name, content):
    (folder / name).write_text(content, encoding="latin-1")
    assert refusal(folder).startswith(f"{folder / name}")


def test_invalid_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")
    assert str(folder) in refusal(folder)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_truncated_weights(folder, share):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert refusal(folder).startswith(f"{path} is truncated or corrupt")


def test_corrupt_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(np.random.default_rng(0).bytes(100_000))
    assert refusal(folder).startswith(f"{path} is truncated or corrupt")


@pytest.mark.parametrize("change", ["drop", "reshape"])
def test_weights_of_another_model(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    tensor = weights.pop(name)
    if change == "reshape":
        weights[name] = tensor[:-1].clone()
    save_file(weights, path, metadata={"format": "pt"})
    message = refusal(folder)
    assert str(folder) in message
    assert name in message


def test_processor_of_another_model(folder):
    path = folder / "processor_config.json"
    config = json.loads(path.read_text())
    config["image_processor"]["patch_size"] = 14
    path.write_text(json.dumps(config))
    assert "cuts patches" in refusal(folder)


def test_tokenizer_of_a_larger_model(folder):
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    last = max(tokenizer["added_tokens"], key=lambda token: token["id"])
    tokenizer["added_tokens"].append({**last, "id": last["id"] + 1, "content": "<more>"})
    path.write_text(json.dumps(tokenizer))
    assert "the tokenizer in" in refusal(folder)


def test_no_chat_template(folder):
    for path in folder.glob("chat_template*"):
        path.unlink()
    assert "chat template" in refusal(folder)


def test_model_larger_than_free_memory(folder):
    """A sparse file of four terabytes."""
    path = folder / "model.safetensors"
    shape = [1024, 1024, 1024, 1024]
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 << 40]}})
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header.encode())
        file.truncate(8 + len(header) + (4 << 40))
    message = refusal(folder, device="cpu")
    assert "1,099,511.6 M parameters as float32 on cpu" in message
    assert "needs about 5,277.66 GB" in message
    assert "choose dtype bfloat16" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_no_cuda(folder):
    for device in ("cuda", "cuda:1"):
        message = refusal(folder, device=device)
        assert message.startswith(f"device is '{device}', but torch {torch.__version__}")
    assert "needs a CUDA device" in refusal(folder, attn_implementation="flash_attention_2")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "CPU", "", "0"])
def test_unknown_device(folder, device):
    assert f"device is {device!r}, it must be auto, cpu" in refusal(folder, device=device)


def test_unknown_dtype_or_attention(folder):
    assert "dtype is 'int8', it must be one of auto" in refusal(folder, dtype="int8")
    for name in ("fast", "kernels-community/flash-attn"):
        message = refusal(folder, attn_implementation=name)
        assert f"attn_implementation is {name!r}, it must be one of auto" in message


@pytest.fixture
def hub_cache(monkeypatch, tmp_path):
    """An empty cache of the hub, without network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.parametrize("offline", [True, False], ids=["by parameter", "by environment"])
def test_hub_id_is_not_downloaded_offline(hub_cache, offline):
    message = refusal("someone/some-model", offline=offline)
    assert message.startswith("someone/some-model is not on this machine (missing: its files)")


def test_downloaded_hub_id_loads_offline(hub_cache, folder):
    repository = hub_cache / "models--someone--some-model"
    shutil.copytree(folder, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    checked = preflight(EngineSettings(model="someone/some-model"))
    assert checked.folder == repository / "snapshots" / "abc"
    (repository / "snapshots" / "abc" / "model.safetensors").unlink()
    assert "(missing: model.safetensors or" in refusal("someone/some-model")


@pytest.mark.parametrize("name", ["some-model", "a/b/c", "some one/model", "./a/b", "../a"])
def test_neither_a_folder_nor_a_hub_id(hub_cache, name):
    assert "does not exist" in refusal(name)
