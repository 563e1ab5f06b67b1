# SPDX-License-Identifier: Apache-2.0
"""Entries of a large file are found whatever their texts hold, and wherever blocks end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from vlm3_ros.datasets import json_entries
from vlm3_ros.datasets.json_entries import open_entries
from vlm3_ros.errors import DatasetError

ENTRIES = [
    {"name": "plain"},
    {"text": 'braces } { and "quotes" }', "inner": {"a": [{}, {"b": "}"}]}},
    {"counts": "ends with a backslash \\", "next": "{"},
    {"counts": 'backslashes \\\\" and \\" a quote', "umlaut": "ä{"},
    {},
]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("lines", [False, True])
def test_every_entry_is_found(
    block: int, lines: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_entries, "_BLOCK", block)
    path = tmp_path / "data.json"
    texts = [json.dumps(entry, ensure_ascii=False) for entry in ENTRIES]
    path.write_text("\n".join(texts) if lines else json.dumps(ENTRIES, indent=1))
    entries = open_entries(path)
    assert [entries.read(index) for index in range(len(entries))] == ENTRIES
    assert not list(tmp_path.glob("*.npz")), "places of a small file are not kept"


def test_random_texts_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_entries, "_BLOCK", 50)
    rng = np.random.default_rng(0)
    entries = [
        {"".join(rng.choice(list('\\"{}[],a'), 9)): "".join(rng.choice(list('\\"{}a'), 30))}
        for _ in range(200)
    ]
    path = tmp_path / "data.json"
    path.write_text(json.dumps(entries))
    found = open_entries(path)
    assert [found.read(index) for index in range(len(found))] == entries


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(json_entries, "KEPT_FROM", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vlm3_ros"


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_places_are_kept_and_found_again_for_the_same_file_only(
    name: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_text("\n".join(map(json.dumps, ENTRIES)))
    places = open_entries(path)
    (kept,) = cache.iterdir()

    def never(path: Path) -> None:
        raise AssertionError("scanned again")

    with monkeypatch.context() as patched:
        patched.setattr(json_entries, "_scan", never)
        patched.setattr(json_entries, "_scan_lines", never)
        again = open_entries(path)
        assert again.starts.tolist() == places.starts.tolist()
        assert again.name(1) == places.name(1)
    path.write_text("\n".join(map(json.dumps, ENTRIES[:2])))
    os.utime(path, ns=(1, 1))
    assert len(open_entries(path)) == 2
    kept.write_bytes(b"half")
    assert len(open_entries(path)) == 2


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path, cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    path = tmp_path / "data.json"
    path.write_text(json.dumps(ENTRIES))
    assert len(open_entries(path)) == len(ENTRIES)


def test_lines_are_entries_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'\n{"a": 1}\r\n   \n{"b": \n[1]\n{"c": "}"}')
    entries = open_entries(path)
    assert len(entries) == 4
    assert entries.read(0) == {"a": 1}
    assert entries.read(3) == {"c": "}"}
    with pytest.raises(DatasetError, match=r"data\.jsonl:4: Expecting value"):
        entries.read(1)
    with pytest.raises(DatasetError, match=r"data\.jsonl:5: it is not a JSON object"):
        entries.read(2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "it holds no JSON object"),
        ("[1, 2]", "it holds no JSON object"),
        ('[{"a": 1}, {"b"', "it ends within an entry"),
        ('[{"a": "cut', "it ends within an entry"),
        ('{"a": 1}}', "a brace closes none"),
    ],
)
def test_a_file_without_whole_entries_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=complaint) as caught:
        open_entries(path)
    assert str(path) in str(caught.value)
    with pytest.raises(DatasetError, match="it cannot be read"):
        open_entries(tmp_path / "none.json")


def test_a_broken_entry_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text('[{"a": 1}, {"b": nonsense}]')
    entries = open_entries(path)
    assert entries.read(0) == {"a": 1}
    with pytest.raises(DatasetError, match=r"data\.json, entry 2: Expecting value"):
        entries.read(1)
