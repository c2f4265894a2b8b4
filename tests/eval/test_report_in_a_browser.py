"""The page in headless Chromium: it opens, its controls do what they say, and nothing breaks out of it."""

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.eval.browser import Browser, find_browser
from yolojax.eval.analysis import analyse, compare
from yolojax.eval.report.write import write_report
from yolojax.eval.tide import KINDS, tide_errors

HOSTILE = ("</script><script>window.broken=1</script>", "<img src=x onerror=window.broken=1>", "犬 собака كلب")


@pytest.fixture(scope="module")
def browser():
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium or Chrome on this machine")
    browser = Browser(program)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def case(make_case):
    truth, found = make_case(9, images=12)
    for record, name in zip(truth["categories"], HOSTILE, strict=True):
        record["name"] = name
    for record in truth["images"]:
        record["file_name"] = f"{HOSTILE[0]}{record['id']}.jpg"
    return truth, found


@pytest.fixture(scope="module")
def page(case, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    photo = lambda image_id: np.full((300, 400, 3), image_id, np.uint8)  # noqa: E731
    write_report(folder, analyse(*case, samples=4), photo=photo, title=HOSTILE[0], provenance={"command": HOSTILE[1]})
    return folder / "index.html"


def count(browser: Browser, selector: str) -> int:
    return browser.run(f"document.querySelectorAll({selector!r}).length")


def tally(browser: Browser) -> dict[str, int]:
    """How many errors of each kind the cards name, all together."""
    total = dict.fromkeys(KINDS, 0)
    for text in browser.run("[...document.querySelectorAll('.card .words')].map(e => e.textContent)"):
        for part in text.split(", "):
            number, _, kind = part.partition(" ")
            if kind in total:
                total[kind] += int(number)
    return total


@pytest.mark.parametrize(("width", "scheme"), [(1300, "light"), (1300, "dark"), (390, "light"), (390, "dark")])
def test_opens_without_a_complaint(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.open(page, width=width, scheme=scheme)
    assert browser.problems == [] and browser.requests == [page.resolve().as_uri()]
    assert browser.run("typeof window.broken") == "undefined"
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.title") == HOSTILE[0]
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    assert count(browser, ".card") == 12 and count(browser, ".card image") == 12


def test_slider_draws_what_scores_enough(browser: Browser, page: Path, case) -> None:
    truth, found = case
    browser.open(page)
    for threshold in (0.25, 0.6, 0.9, 0.0):
        browser.set("threshold", str(threshold), "input")
        rest = [d for d in found if d["score"] >= threshold]
        assert count(browser, ".card rect.det") == len(rest)
        assert count(browser, ".card rect.gt") == len(truth["annotations"])
        assert f"on them {len(rest)} detections and {len(truth['annotations'])} objects" in browser.run(
            "document.getElementById('count').textContent"
        )
        analysis = analyse(truth, rest, samples=0)
        errors = tide_errors(analysis.truth, analysis.found)
        assert tally(browser) == {kind: getattr(errors, kind).count for kind in KINDS}


def test_filters(browser: Browser, page: Path, case) -> None:
    truth, found = case
    browser.open(page)
    browser.set("threshold", "0.4", "input")
    rest = analyse(truth, [d for d in found if d["score"] >= 0.4], samples=0)
    for k, kind in enumerate(KINDS[:-1]):
        browser.set("kind", kind, "change")
        assert count(browser, ".card") == len(np.unique(rest.found.images[rest.kinds == k]))
        assert count(browser, ".card rect.det") == count(browser, f".card rect.k-{kind}") == np.sum(rest.kinds == k)
    browser.set("kind", "", "change")
    for k, category in enumerate(truth["categories"]):
        browser.set("class", str(k), "change")
        objects = [a for a in truth["annotations"] if a["category_id"] == category["id"]]
        assert count(browser, ".card rect.gt") == len(objects)
        own = sum(d["category_id"] == category["id"] and d["score"] >= 0.4 for d in found)
        taken = (rest.kinds == KINDS.index("classification")) & (rest.truth.categories[rest.points_at] == k)
        assert count(browser, ".card rect.det") == own + np.sum(taken)
    browser.set("class", "", "change")
    browser.run("document.getElementById('show-truth').click()")
    assert count(browser, ".card rect.gt") == 0 and count(browser, ".card rect.det") > 0


def test_table_sorts_curve_appears_and_viewer_opens(browser: Browser, page: Path, case) -> None:
    browser.open(page)
    cells = "[...document.querySelectorAll('#class-table tbody tr')].map(r => Number(r.cells[1].dataset.value))"
    objects = browser.run(cells)
    browser.run("document.querySelector('#class-table thead th:nth-child(2) button').click()")
    assert browser.run(cells) == sorted(objects, reverse=True)
    browser.run("document.querySelector('#class-table thead th:nth-child(2) button').click()")
    assert browser.run(cells) == sorted(objects)
    browser.set("curve-class", "1", "change")
    assert count(browser, "#pr polyline.class") == 2
    browser.run("document.querySelector('.card').click()")
    assert browser.run("document.getElementById('viewer').open") is True
    assert count(browser, "#viewer-picture rect") == count(browser, "#viewer-table tbody tr") > 0
    assert browser.problems == [] and browser.run("typeof window.broken") == "undefined"


def test_differences_of_two_detectors(browser: Browser, case, tmp_path: Path) -> None:
    truth, found = case
    first, second = analyse(truth, found, samples=2), analyse(truth, found[::3], samples=2)
    comparison = compare(first, second)
    write_report(tmp_path, first, comparison=comparison)
    browser.open(tmp_path / "index.html", width=390)
    pairs = count(browser, "#differences .two")
    assert pairs > 0 and count(browser, "#differences .card") == 2 * pairs
    assert browser.run("document.documentElement.scrollWidth") <= 390
    # An object that only one of them finds is drawn as found there and as missed at the other's side.
    found_by = [f"#differences .card:nth-child({side}) rect.gt.found" for side in (1, 2)]
    words = browser.run("[...document.querySelectorAll('#differences .words')].map(e => e.textContent)")
    here, there = (sum(int(re.search(f"only {side} finds (\\d+)", text)[1]) for text in words) for side in ("A", "B"))
    assert count(browser, found_by[0]) - count(browser, found_by[1]) == here - there != 0
    browser.run("document.querySelector('#differences .card').click()")
    assert browser.run("document.getElementById('viewer').open") is True
    assert browser.problems == [] and browser.run("typeof window.broken") == "undefined"


def test_five_thousand_images_open_at_once(browser: Browser, make_case, tmp_path: Path) -> None:
    """Noise for photographs, which compresses worst of all."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (240, 320, 3), np.uint8)
    truth, found = make_case(1, images=5000, classes=1, objects=1)
    backend = "hotcoco" if find_spec("hotcoco") else "pycocotools"  # the same numbers sooner
    write_report(tmp_path, analyse(truth, found, samples=0, backend=backend), photo=lambda _: noise)
    assert (tmp_path / "index.html").stat().st_size < 16e6
    seconds = browser.open(tmp_path / "index.html")
    assert seconds < 3 and browser.problems == []
    assert "160 of 5,000 images: a page holds 160 at most" in browser.run("document.body.textContent")
    assert count(browser, ".card") == 24
    browser.run("document.getElementById('more').click()")
    assert count(browser, ".card") == 48
