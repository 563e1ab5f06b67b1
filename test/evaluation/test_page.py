# SPDX-License-Identifier: Apache-2.0
"""The report page, in a real browser."""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from vlm3_ros.evaluation.html import write_page
from vlm3_ros.evaluation.pictures.figures import new_figure, png_source, save_png, svg_source
from vlm3_ros.evaluation.scene import Cloud, Polyline, Scene3D
from vlm3_ros.evaluation.tables import TextTable

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LIMIT_MS = 120_000  # a software renderer on a busy machine
RED, BLUE = (255, 0, 0), (0, 0, 255)


def scene() -> Scene3D:
    """A red wall 4 m ahead, a blue one that is hidden at first, and a green line."""
    y, z = np.meshgrid(np.linspace(-2, 2, 30), np.linspace(0, 2, 30))
    wall = np.stack([np.full(900, 4.0), y.ravel(), z.ravel()], axis=1)
    wall[0] = np.nan
    behind = wall + np.array([1, 0, 0])
    clouds = [
        Cloud("answers", wall, np.full((900, 3), RED, np.uint8)),
        Cloud("truth", behind, np.full((900, 3), BLUE, np.uint8), is_shown=False),
    ]
    way = np.array([[0, 0, 0], [1, 0, 0], [2, 1, 0]], float)
    return Scene3D(clouds, [Polyline("trajectory", way, "#00a000")], note="A wall.")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    figure = new_figure(8, 3)
    figure.subplots().plot([1, 2, 3])
    png = io.BytesIO()
    save_png(figure, png)
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(
        path,
        "Model on <bag>",
        "Depth: δ1 0.87 & more.",
        [("Depth", png_source(png.getvalue())), ("Trajectory", svg_source(figure))],
        scene(),
        [TextTable("depth", ("", "δ1"), (("model", "0.87"), ("constant", "0.3")), "a < b")],
        {"depth": "/camera/depth_registered/image_rect/compressed" * 2},
    )
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    pytest.importorskip("plotly", reason="the 3D view needs plotly: pip install plotly")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="the browser test needs playwright: pip install playwright"
    )
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser is installed: looked for {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=path,
            args=["--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
            timeout=LIMIT_MS,
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def errors() -> list[str]:
    """Errors of the page and requests that leave it; `page` adds them."""
    return []


@pytest.fixture(scope="module")
def page(browser: Browser, report: Path, errors: list[str]) -> Iterator[Page]:
    """The report with its scene drawn; opened once, since that takes seconds."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(LIMIT_MS)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("requestfailed", lambda request: errors.append(f"failed: {request.url[:80]}"))
    page.on(
        "request",
        lambda r: errors.append(r.url) if not r.url.startswith(("file:", "data:")) else None,
    )
    page.goto(report.as_uri())
    page.wait_for_selector("#scene-view[data-state=drawn]")
    yield page
    page.close()


def top(page: Page, selector: str) -> float:
    box = page.locator(selector).first.bounding_box()
    assert box is not None
    return box["y"]


def pixels(view: Locator) -> np.ndarray:
    """A screenshot of the view, RGB."""
    picture = cv2.imdecode(np.frombuffer(view.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(int)


def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture - colour).max(axis=2) < 40).sum())


def wait_for_colour(view: Locator, colour: tuple[int, int, int], is_shown: bool) -> None:
    """The view shows much of a colour, or not: at once or, half drawn, some frames later."""
    end = time.monotonic() + LIMIT_MS / 1000
    while ((seen := count(pixels(view), colour)) > 500) != is_shown:
        assert time.monotonic() < end, f"{seen} pixels of {colour}"


@contextmanager
def drawn_after(page: Page, event: str) -> Iterator[None]:
    """Wait for an event of plotly and for the frames after it, which show its effect."""
    page.evaluate(
        """event => {
          window.isDrawn = false;
          document.getElementById("scene-view").once(event, () =>
            requestAnimationFrame(() => requestAnimationFrame(() => { window.isDrawn = true; })));
        }""",
        event,
    )
    yield
    page.wait_for_function("window.isDrawn")


def test_verdict_and_pictures_come_before_the_tables(page: Page, errors: list[str]) -> None:
    order = [top(page, s) for s in ("p.verdict", "img", "#scene-view", "table", "dl")]
    assert order == sorted(order)
    assert order[1] < 300, "verdict and picture on the first screen"
    assert order[3] > 900, "tables below it"
    widths = page.locator("img").evaluate_all("all => all.map(i => i.complete * i.naturalWidth)")
    assert len(widths) == 2
    assert min(widths) > 100
    assert page.inner_text("h1") == "Model on <bag>"
    assert page.inner_text("p.verdict") == "Depth: δ1 0.87 & more."
    assert page.inner_text(".table .note") == "a < b"
    links = page.locator("[href], [src]").evaluate_all(
        "all => all.map(e => e.getAttribute('href') ?? e.getAttribute('src'))"
    )
    assert all(link.startswith(("data:", "#")) for link in links)
    assert errors == []


def test_the_mouse_turns_the_scene_and_the_legend_hides_layers(
    page: Page, errors: list[str]
) -> None:
    view = page.locator("#scene-view")
    view.scroll_into_view_if_needed()
    wait_for_colour(view, RED, True)
    start = pixels(view)
    assert count(start, BLUE) == 0, "hidden at first"
    box = view.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    with drawn_after(page, "plotly_relayout"):
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 200, y + 40, steps=4)
        page.mouse.up()
    wait_for_colour(view, RED, True)
    turned = pixels(view)
    assert (np.abs(turned - start).max(axis=2) > 40).sum() > 2000
    for name, colour, is_shown in (("answers", RED, False), ("truth", BLUE, True)):
        with drawn_after(page, "plotly_restyle"):
            page.locator("#scene-view .traces", has_text=name).locator(".legendtoggle").click()
        wait_for_colour(view, colour, is_shown)
    assert errors == []


def test_the_page_fits_a_phone(page: Page, errors: list[str]) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function("document.querySelector('#scene-view canvas').clientWidth < 390")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert errors == []


def test_without_plotly_the_page_says_what_the_view_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    write_page(tmp_path / "a.html", "title", "verdict", [], scene(), [], {})
    page = (tmp_path / "a.html").read_text()
    assert "The 3D view needs plotly: pip install plotly" in page
    assert "<script" not in page


def test_the_scene_adds_less_than_5_megabytes(report: Path) -> None:
    pytest.importorskip("plotly", reason="the 3D view needs plotly: pip install plotly")
    assert report.stat().st_size < 5e6
