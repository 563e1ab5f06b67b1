# SPDX-License-Identifier: Apache-2.0
"""The targets of the pages' links exist."""

from __future__ import annotations

import re

import pytest
from pages import PAGES, ROOT, anchors, commands, page_name, prose

FOLDERS = r"(config|docker|tools|benchmarks|test)/"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_and_pictures_exist(page):
    lost = []
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(target)
    assert lost == []


def test_the_readme_lists_every_page():
    readme = (ROOT / "README.md").read_text()
    pages = [page_name(page) for page in PAGES if page.name != "README.md"]
    assert [page for page in pages if f"]({page})" not in readme] == []


def test_make_targets_and_scripts_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets, files = set(), set()
    for page in PAGES:
        targets.update(re.findall(r"`make ([a-z-]+)", prose(page)))
        for command in commands(page):
            if command[0] == "make":
                targets.update(word for word in command[1:] if "=" not in word)
            files.update(
                w for w in command if re.match(r"(config|docker|tools|benchmarks|test)/", w)
            )
    assert targets
    assert files
    assert [t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)] == []
    assert [file for file in files if not (ROOT / file).exists()] == []
