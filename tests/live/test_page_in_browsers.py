"""The page in real browsers, from file://, without any network."""

import json
import random
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pagescan.render.html.page import page
from tests.browser import Chromium, chromium, firefox
from tests.made_pages import (
    ANON,
    BEGUN,
    HEAP,
    PAGE,
    STACK,
    contents_of,
    mapping,
    random_contents,
    random_looks,
)

LOOKS = 240
CONTENTS = random_contents(LOOKS)
WRITTEN = random_looks(LOOKS)
WORDS = re.compile(
    r"(?P<written>[\d.,]+) of (?P<pages>[\d,]+) pages? written"
    r"(?P<average> per look)? (at )?(?P<when>[\d:]+)(–[\d:]+)?, (?P<name>.*)\n"
    r"0x(?P<start>[0-9a-f]+) – 0x(?P<end>[0-9a-f]+)\n"
    r"mapping 0x(?P<low>[0-9a-f]+) – 0x(?P<high>[0-9a-f]+), [\d.]+ [KM]iB"
    r"(?P<more>, and 1 other mapping)?\n"
    r"looks? (?P<first>\d+)(–(?P<last>\d+))?"
)
SHIFT = 8


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a page about random looks."""
    path = tmp_path_factory.mktemp("page") / "a page.html"
    path.write_text(page(CONTENTS))
    return path


@pytest.fixture(scope="module")
def started() -> Iterator[Chromium]:
    """Return a Chromium."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(started: Chromium, path: Path) -> Chromium:
    """Return a Chromium that shows the page."""
    started.events.clear()
    started.show(path)
    return started


def map_box(browser: Chromium) -> dict[str, float]:
    """Return the place of the map in the window, without its labels and its axis."""
    browser.value("document.getElementById('map').scrollIntoView()")
    box: dict[str, float] = json.loads(
        browser.value(
            "JSON.stringify(document.getElementById('over').getBoundingClientRect())"
        )
    )
    return {
        "x": box["x"] + 168,
        "y": box["y"],
        "width": box["width"] - 168 - 118,
        "height": box["height"] - 26,
    }


def tip(browser: Chromium) -> str:
    """Return the words beside the pointer."""
    return str(browser.value("document.getElementById('tip').innerText")).strip()


def check(words: str) -> bool:
    """Compare the words for a cell with what the test has written there.

    Returns False where the words say that nothing was mapped.
    """
    if words.startswith("not mapped"):
        return False
    found = WORDS.fullmatch(words)
    assert found, words
    start, end = (int(found[name], 16) // PAGE for name in ("start", "end"))
    first = int(found["first"]) - 1
    last = int(found["last"] or found["first"]) - 1
    number = float(found["written"].replace(",", ""))
    looks = WRITTEN[first : last + 1]
    true = sum(len([page for page in look if start <= page < end]) for look in looks)
    if found["average"]:
        assert number == pytest.approx(true / len(looks), abs=0.051)
    else:
        assert (number, first) == (true, last)
        seconds = (BEGUN // 10**9 + first + 1) % 86400
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        assert found["when"] == clock
    mapped = [
        one
        for one in CONTENTS.mappings
        if one.start < end * PAGE and one.end > start * PAGE and one.first <= last
    ]
    assert {one.name for one in mapped} == {found["name"]}
    sizes = {
        (one.start, one.end): min(one.end // PAGE, end) - max(one.start // PAGE, start)
        for one in mapped
        if one.last >= first
    }
    size = max(sizes.values())
    assert int(found["pages"].replace(",", "")) == size
    assert sizes[int(found["low"], 16), int(found["high"], 16)] == size
    assert bool(found["more"]) == (len(sizes) > 1)
    return True


def hover(browser: Chromium, times: int, seed: int) -> int:
    """Point at random cells, and check the words; return how many had numbers."""
    rolled = random.Random(seed)
    box = map_box(browser)
    numbers = 0
    for _ in range(times):
        x = box["x"] + rolled.uniform(1, box["width"] - 2)
        y = box["y"] + rolled.uniform(1, box["height"] - 2)
        browser.mouse("mouseMoved", x, y)
        numbers += check(tip(browser))
    return numbers


def changed_pixels(browser: Chromium) -> int:
    """Return how many colours the map has."""
    return int(
        browser.value(
            """(() => {
              const map = document.getElementById("base");
              const pen = map.getContext("2d");
              const { data } = pen.getImageData(0, 0, map.width, map.height);
              return new Set(new Uint32Array(data.buffer)).size;
            })()"""
        )
    )


@pytest.mark.needs("chromium")
def test_it_paints_and_asks_no_network(browser: Chromium, path: Path) -> None:
    assert changed_pixels(browser) > 50
    assert browser.value("document.getElementById('title').textContent") == (
        "worker (4242)"
    )
    assert browser.value("document.querySelectorAll('.uplot').length") == 3
    legends = "[...document.querySelectorAll('.u-legend .u-value')]"
    words = browser.value(f"{legends}.map((each) => each.textContent)")
    assert "–" not in words, "a legend has no values before the pointer moves"
    assert browser.errors() == []
    assert browser.requests() == [path.as_uri()]


@pytest.mark.needs("chromium")
def test_the_words_of_a_cell_are_what_was_written(browser: Chromium) -> None:
    assert hover(browser, 60, 1) > 30


@pytest.mark.needs("chromium")
def test_they_are_at_every_zoom(browser: Chromium) -> None:
    rolled = random.Random(7)
    for step in range(12):
        box = map_box(browser)
        x, y = (
            box["x"] + rolled.uniform(0.1, 0.9) * box["width"],
            box["y"] + rolled.uniform(0.1, 0.9) * box["height"],
        )
        browser.mouse(
            "mouseWheel",
            x,
            y,
            deltaX=0,
            deltaY=-300,
            modifiers=2 | (SHIFT if step % 2 else 0),
        )
        settle(browser)
        assert hover(browser, 12, step) > 0
    assert browser.errors() == []


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_addresses_beside_the_map_are_right(
    started: Chromium, path: Path, width: int
) -> None:
    """Each is in the cell beside it, and those where bands begin are there."""
    started.show(path, width=width)
    started.value("document.getElementById('map').scrollIntoView()")
    over = "document.getElementById('over').getBoundingClientRect()"
    box = json.loads(started.value(f"JSON.stringify({over})"))
    beside = """JSON.stringify(
        [...document.querySelectorAll('#addresses span')].map((each) => {
          const { top, bottom, left, right } = each.getBoundingClientRect();
          const at = parseFloat(each.style.top);
          return { address: each.textContent, at, top, bottom, left, right };
        }))"""
    seen = set()
    for key in ("0", *("]" * 8), *("[" * 3)):
        started.value("document.getElementById('over').focus()")
        started.key(key)
        settle(started)
        ticks = json.loads(started.value(beside))
        assert ticks
        for tick, following in pairwise(ticks):
            assert tick["bottom"] <= following["top"], "one is written over the other"
        for tick in ticks:
            assert 0 <= tick["left"] < tick["right"] <= width
            started.mouse("mouseMoved", box["x"] + 210, box["y"] + tick["at"] + 0.5)
            start, end = re.findall("0x[0-9a-f]+", tip(started))[:2]
            assert int(start, 16) <= int(tick["address"], 16) < int(end, 16)
            seen.add(int(tick["address"], 16))
    # On a narrow screen there is no room for that of the small band at the top.
    places = (HEAP, ANON, STACK)[width < 700 :]
    assert {page * PAGE for page in places} <= seen
    assert len(seen) > 12


def settle(browser: Chromium) -> None:
    """Wait until a change has been drawn."""
    browser.value(
        "new Promise((done) =>"
        " requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


def shown(browser: Chromium) -> str:
    """Return the picture of the map."""
    settle(browser)
    return str(browser.value("document.getElementById('base').toDataURL()"))


@pytest.mark.needs("chromium")
def test_a_drag_zooms_and_a_double_click_shows_all(browser: Chromium) -> None:
    before = shown(browser)
    box = map_box(browser)
    drag(browser, box, (0.2, 0.1), (0.5, 0.6))
    assert shown(browser) != before
    assert hover(browser, 20, 3) > 0
    for count in (1, 2):
        for kind in ("mousePressed", "mouseReleased"):
            browser.mouse(
                kind, box["x"] + 9, box["y"] + 9, button="left", clickCount=count
            )
    assert shown(browser) == before


def drag(
    browser: Chromium,
    box: dict[str, float],
    begin: tuple[float, float],
    end: tuple[float, float],
    modifiers: int = 0,
) -> None:
    """Drag over parts of the map."""
    places = [
        (box["x"] + x * box["width"], box["y"] + y * box["height"])
        for x, y in (begin, end)
    ]
    words: dict[str, Any] = {"button": "left", "buttons": 1, "modifiers": modifiers}
    browser.mouse("mousePressed", *places[0], clickCount=1, **words)
    browser.mouse("mouseMoved", *places[1], **words)
    browser.mouse("mouseReleased", *places[1], clickCount=1, **words)


@pytest.mark.needs("chromium")
def test_the_keyboard_zooms_moves_and_speaks(browser: Chromium) -> None:
    before = shown(browser)
    browser.value("document.getElementById('over').focus()")
    browser.key("ArrowRight")
    spoken = "document.getElementById('spoken').textContent"
    first = browser.value(spoken)
    assert check(tip(browser))
    browser.key("ArrowRight")
    assert browser.value(spoken) != first
    looks = [
        int(str(words).split("look ")[1]) for words in (first, browser.value(spoken))
    ]
    assert looks[1] == looks[0] + 1
    browser.key("+")
    near = shown(browser)
    assert near != before
    browser.key("ArrowRight", SHIFT)
    assert shown(browser) != near
    browser.key("]")
    browser.key("0")
    browser.key("Escape")
    assert shown(browser) == before


@pytest.mark.needs("chromium")
def test_all_parts_share_the_moment_and_the_view(browser: Chromium) -> None:
    box = map_box(browser)
    browser.mouse("mouseMoved", box["x"] + box["width"] / 2, box["y"] + 40)
    clock = tip(browser).split("at ")[1].split(",")[0]
    legends = "[...document.querySelectorAll('.u-legend tr:first-child .u-value')]"
    times = browser.value(f"{legends}.map((each) => each.textContent)")
    assert times == [f"{clock} UTC"] * 3
    before = shown(browser)
    line = json.loads(
        browser.value(
            "(document.querySelector('.u-over').scrollIntoView(), JSON.stringify("
            "document.querySelector('.u-over').getBoundingClientRect()))"
        )
    )
    drag(browser, line, (0.3, 0.5), (0.6, 0.5))
    assert shown(browser) != before, "a zoom of a line does not zoom the map"
    assert hover(browser, 20, 5) > 0


@pytest.mark.needs("chromium")
def test_it_is_read_in_light_and_dark_wide_and_narrow(
    started: Chromium, path: Path
) -> None:
    pictures = set()
    for theme in ("light", "dark"):
        for width in (1280, 390):
            started.show(path, width=width, theme=theme)
            assert started.value("document.documentElement.dataset.theme") == theme
            assert started.value("document.documentElement.scrollWidth") == width
            sizes = """Math.min(...[...document.querySelectorAll("body *")]
                .filter((each) => each.innerText && each.checkVisibility())
                .map((each) => parseFloat(getComputedStyle(each).fontSize)))"""
            assert started.value(sizes) >= 12
            pictures.add(started.picture())
    assert len(pictures) == 4
    started.value("document.getElementById('theme').click()")
    assert started.value("document.documentElement.dataset.theme") == "light"


@pytest.mark.needs("chromium")
def test_it_prints_on_white(started: Chromium, path: Path) -> None:
    started.show(path, theme="dark")
    started.call("Page.printToPDF", printBackground=True)
    assert started.value("document.documentElement.dataset.theme") == "dark"
    started.value("dispatchEvent(new Event('beforeprint'))")
    assert started.value("document.documentElement.dataset.theme") == "light"
    assert started.value("document.getElementById('base').clientWidth") <= 700
    started.value("dispatchEvent(new Event('afterprint'))")
    display = "getComputedStyle(document.getElementById('over')).display"
    assert started.value(display) == "block"
    started.call("Emulation.setEmulatedMedia", media="print")
    assert started.value(display) == "none", "printed as white, it would hide the map"
    started.call("Emulation.setEmulatedMedia", media="")


@pytest.mark.needs("chromium")
def test_names_are_text(started: Chromium, tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=alert(1)><b>"
    contents = contents_of([{5}, {6}], [mapping(0, 10, evil)], name=evil)
    file = tmp_path / "evil.html"
    file.write_text(page(contents))
    started.events.clear()
    started.show(file)
    assert started.errors() == []
    assert started.value("document.querySelectorAll('img, main b').length") == 0
    assert evil in started.value("document.getElementById('title').textContent")


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_long_names_leave_the_page_as_wide_as_it_is(
    started: Chromium, tmp_path: Path, width: int
) -> None:
    names = [f"/{'folder' * 30}/{letter * 200}" for letter in "ab"]
    mappings = [mapping(at << 20, 10, name) for at, name in enumerate(names)]
    contents = contents_of([{5, 1 << 20}], mappings, name="n" * 200)
    file = tmp_path / "long.html"
    file.write_text(page(contents))
    started.show(file, width=width)
    assert started.value("document.documentElement.scrollWidth") == width


@pytest.mark.needs("chromium")
def test_the_list_says_where_a_mapping_is(started: Chromium, tmp_path: Path) -> None:
    places = [0x1000, 0x9000, 0x50_000]
    mappings = [mapping(at, 16, "[anon]") for at in places]
    mappings.append(mapping(0x90_000, 4, "[heap]"))
    written = [{0x9000, 0x9001, 0x50_003, 0x90_000}]
    file = tmp_path / "places.html"
    file.write_text(page(contents_of(written, mappings)))
    started.show(file)
    rows = "[...document.querySelectorAll('#mappings tr')].map((row) => row.innerText)"
    anon, heap = started.value(rows)
    assert "3 places" in anon
    assert f"{0x90_000 * PAGE:#x} – {0x90_004 * PAGE:#x}" in heap
    before = shown(started)
    started.value("document.querySelector('#mappings .places').click()")
    _, *found, others, _ = started.value(rows)
    assert [row.split("\t")[0].strip() for row in found] == [
        f"{at * PAGE:#x} – {(at + 16) * PAGE:#x}" for at in places[1:]
    ]
    assert [row.split("\t")[2] for row in found] == ["8.0 KiB", "4.0 KiB"]
    assert others.strip() == "and 1 place without a written page"
    started.value("document.querySelector('#mappings .place button').click()")
    assert shown(started) != before, "the place is not shown in the map"
    started.value("document.querySelector('#mappings .places').click()")
    assert started.value(f"{rows}.length") == 2


@pytest.mark.needs("chromium")
def test_a_coarser_map_says_so(started: Chromium, tmp_path: Path) -> None:
    contents = random_contents(300, scale=6)
    file = tmp_path / "coarse.html"
    file.write_text(page(contents, cap=len(page(contents)) // 3))
    started.show(file)
    notes = str(started.value("document.getElementById('notes').innerText"))
    assert "coarser than the recording" in notes
    assert "--time or --range" in notes


@pytest.mark.needs("chromium")
def test_a_damaged_page_says_so(started: Chromium, path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    at = text.index('id="data">') + 500
    file = tmp_path / "broken.html"
    file.write_text(text[:at] + text[at + 400 :])
    started.call("Page.navigate", url=file.as_uri())
    title = "document.getElementById('title')?.textContent"
    started.wait_for(f"{title} === 'This page cannot be shown'")
    while not started.errors():  # it comes after the title, also to the next page
        started.value("1")
    started.events.clear()


@pytest.mark.needs("chromium")
def test_an_empty_recording_is_shown(started: Chromium, tmp_path: Path) -> None:
    file = tmp_path / "empty.html"
    file.write_text(page(contents_of([], [])))
    started.events.clear()
    started.show(file)
    assert started.errors() == []


@pytest.mark.needs("firefox")
def test_firefox_paints_it_too(path: Path) -> None:
    with firefox() as browser:
        browser.show(path)
        assert browser.value("return document.querySelectorAll('.uplot').length") == 3
        browser.value("document.getElementById('map').scrollIntoView()")
        box = browser.value(
            "return document.getElementById('over').getBoundingClientRect().toJSON()"
        )
        for part in (0.2, 0.5, 0.8):
            browser.move(box["x"] + 168 + part * 900, box["y"] + 200)
            words = browser.value(
                "return document.getElementById('tip').innerText"
            ).strip()
            assert check(words), words
