# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from vlm3_ros.evaluation.tables import TextTable, split_table

WIDE = TextTable(
    "depth",
    ("", "first", "second", "third"),
    (("a", "1", "2", "3"), ("b", "4", "5", "6")),
    "a note",
)


def test_a_table_that_fits_is_left_alone() -> None:
    assert split_table(WIDE, 80) == [WIDE]


def test_a_wide_table_is_split_between_columns() -> None:
    first, second = split_table(WIDE, 20)
    assert first.columns == ("", "first", "second")
    assert first.rows == (("a", "1", "2"), ("b", "4", "5"))
    assert (first.title, first.note) == ("depth", "")
    assert second.columns == ("", "third")
    assert second.rows == (("a", "3"), ("b", "6"))
    assert (second.title, second.note) == ("depth (continued)", "a note")


def test_every_part_has_a_column_however_narrow_the_terminal() -> None:
    assert [part.columns for part in split_table(WIDE, 3)] == [
        ("", "first"),
        ("", "second"),
        ("", "third"),
    ]
