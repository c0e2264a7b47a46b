"""The map as a visitor has it: in a browser, from the file system, with the network off."""

import os
import re
import shutil

import numpy as np
import polars as pl
import pytest
from worlds import small, tastes

from recsys_embed import Recommender
from recsys_embed.config.answers import MapConfig
from recsys_embed.maps.draw import draw_map
from recsys_embed.models.fold_in.softmax import SoftmaxFoldIn

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
# On CI a browser that is missing is a fault, and no reason to be silent.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ, reason="no Chromium here: install one, or name it in $CHROMIUM"
    ),
]

HOSTILE = {
    3: "</script><script>document.title = 'taken'</script>",
    4: "<img src=x onerror=\"document.title='taken'\">",
    5: "{{script}} é \u2028 \N{FILM FRAMES} 映画",
    6: "",
}
RATINGS, TABLE, COLOUR = tastes()


@pytest.fixture(scope="module")
def model():
    titles = [HOSTILE.get(n, title) for n, title in enumerate(TABLE["title"])]
    return Recommender(*small("softmax", dim=8)).fit(RATINGS, TABLE.with_columns(title=pl.Series(titles)))


@pytest.fixture(scope="module")
def drawn(model, tmp_path_factory):
    before = Recommender(*small("softmax", dim=8, seed=1)).fit(RATINGS, TABLE)
    folder = tmp_path_factory.mktemp("map")
    return draw_map(model, folder, MapConfig(users=True, method="pca"), compare=before), folder


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


def until(page, expression):
    """Wait for something to become true. (The page's policy forbids what `wait_for_function` does.)"""
    for _ in range(500):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"{expression} did not come true")


def ready(page):
    until(page, "typeof plot === 'object' && !!plot.pixels && plot.labels.length > 0")
    return page


@pytest.fixture(params=["file", "sandbox"])
def page(request, browser, drawn):
    """The map, opened as a file, or as MLflow shows it: in a frame without origin and storage, with scripts alone."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, offline=True)
    tab = context.new_page()
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda r: None if r.url.startswith(("file:", "about:")) else said.append(r.url))
    if request.param == "file":
        tab.goto((drawn[1] / "map.html").as_uri())
        frame = tab.main_frame
    else:
        tab.set_content("<style>* {margin: 0; border: 0}</style>")
        # Loaded before anything is asked of it: a frame that is still on its way loses what is asked.
        tab.evaluate(
            """html => new Promise(done => {
              const frame = document.createElement("iframe");
              Object.assign(frame, { sandbox: "allow-scripts", width: 1200, height: 800, onload: () => done() });
              frame.srcdoc = html;
              document.body.append(frame);
            })""",
            (drawn[1] / "map.html").read_text("utf-8"),
        )
        frame = tab.query_selector("iframe").content_frame()
    yield ready(frame)
    context.close()
    assert said == []


def place(page, row):
    return page.evaluate("row => plot.place(row)", row)


def row_of(model, drawn, item):
    return int(np.flatnonzero(drawn[0].rows == model.items.rows([item])[0])[0])


def colours_at(page, rows):
    """The colours of the middles of points, as the canvas shows them."""
    return page.evaluate(
        """rows => {
          const { width, height } = plot.canvas;
          const shown = plot.canvas.getContext("2d").getImageData(0, 0, width, height).data;
          return rows.map((row) => {
            const [x, y] = plot.place(row).map((p) => Math.round(p * plot.ratio));
            return Array.from(shown.subarray(4 * (y * width + x), 4 * (y * width + x) + 3));
          });
        }""",
        rows,
    )


# Whether a row's own point is what lies under the pointer there, and no card.
FREE = "(r) => plot.pick(...plot.place(r)) === r && plot.place(r)[0] > plot.inset.left"


def open_spot(page):
    """A row that no other point covers."""
    return page.evaluate(f"Array.from({{length: items}}, (_, r) => r).find({FREE})")


def test_every_point_is_painted(page, drawn):
    ground = page.evaluate("channels(plot.colour.ground)")
    shown = colours_at(page, list(range(len(drawn[0].rows))))
    assert all(colour != ground for colour in shown)
    assert len({tuple(c) for c in shown}) >= 3


def test_hover_tells_the_title_and_facts(page):
    row = open_spot(page)
    page.locator("#overlay").hover(position=dict(zip("xy", place(page, row), strict=True)))
    until(page, "!document.getElementById('tip').hidden")
    tip = page.inner_text("#tip")
    assert page.evaluate("row => titleOf(row)", row) in tip
    assert "ratings" in tip


def test_a_click_shows_the_nearest_items_of_the_full_space(page, model, drawn):
    row = open_spot(page)
    page.locator("#overlay").click(position=dict(zip("xy", place(page, row), strict=True)))
    item = model.items.ids(drawn[0].rows)[row]
    want = model.similar(item, 10)
    shown = page.locator("#nearest li > button").all_inner_texts()
    scores = [float(s) for s in page.locator("#nearest li > span").all_inner_texts()]
    np.testing.assert_allclose(scores, want["score"].to_numpy(), atol=0.02)
    assert len(set(shown) & set(want["title"])) >= 9
    assert page.evaluate("plot.lines.length") == 10
    page.locator("#nearest button").first.press("Enter")
    assert page.evaluate("document.activeElement.id") == "item-title"
    page.click("#close")
    assert page.evaluate("document.activeElement.id") == "overlay"
    page.page.keyboard.press("Escape")
    assert page.evaluate("plot.selected") == -1


def test_search_finds_by_title_and_goes_there(page):
    page.fill("#search", "NUMBER 17")
    assert page.locator("#results li > button").all_inner_texts() == [
        page.evaluate("data.titles.find((t) => t.endsWith(' 17'))")
    ]
    page.press("#search", "Enter")
    assert page.inner_text("#item-title").endswith("number 17")
    x, y = page.evaluate("plot.place(plot.selected)")
    assert 300 < x < 1200
    assert 0 < y < 800
    page.fill("#search", page.evaluate("data.ids[2]"))
    assert page.locator("#results li > button").first.inner_text() == page.evaluate("data.titles[2]")
    users = page.evaluate("`user ${data.users.ids[1]}`")
    page.fill("#search", users)
    assert page.locator("#results li > button").first.inner_text() == users
    page.fill("#search", "no such thing")
    assert page.inner_text("#results") == "nothing found"


def test_the_genre_filter_leaves_its_items_lit(page, drawn):
    page.locator("#legend button", has_text="red").click()
    lit = np.array(page.evaluate("Array.from(plot.lit)"))
    want = (COLOUR[drawn[0].rows] == 0).astype(int)
    np.testing.assert_array_equal(lit[: len(want)], want)
    assert not lit[len(want) :].any()
    hidden = int(np.flatnonzero(want == 0)[0])
    assert page.evaluate("row => plot.pick(...plot.place(row)) !== row", hidden)
    page.locator("#legend button", has_text="red").click()
    assert page.evaluate("plot.lit.every((l) => l === 1)")


def test_three_picks_are_answered_as_the_library_would(page, model, drawn):
    rows = [r for r in range(len(drawn[0].rows)) if COLOUR[drawn[0].rows[r]] == 1][:3]
    for row in rows:
        page.evaluate("row => select(row, true)", row)
        page.click("#like")
    assert page.locator("#picked li").count() == 3
    got = page.locator("#for-you li > button").all_inner_texts()
    user = SoftmaxFoldIn.of(model.model, model.item_counts).closed_form(drawn[0].rows[rows])
    scores = (model.model.items @ user + model.model.item_bias)[drawn[0].rows]
    scores[rows] = -np.inf
    want = model.table["title"].gather(drawn[0].rows[np.argsort(-scores)[:10]]).to_list()
    assert len(set(got) & set(want)) >= 9
    assert got[0] in want[:3]
    page.locator("#picked button", has_text="×").first.click()
    assert page.locator("#picked li").count() == 2
    assert page.evaluate("document.activeElement.closest('#picked') !== null"), "the focus stays where one was"
    page.click("#clear")
    assert page.locator("#picks").is_hidden()
    assert page.evaluate("plot.marked.length + plot.hinted.length") == 0


def test_titles_stay_text(page, model, drawn):
    for item, title in HOSTILE.items():
        page.evaluate("row => select(row, true)", row_of(model, drawn, item))
        assert page.evaluate("document.getElementById('item-title').textContent") == (title or str(item))
    assert page.evaluate("document.title") == "items"
    assert page.evaluate("document.images.length + document.scripts.length") == 2


def test_keys_move_zoom_and_choose(page):
    page.focus("#overlay")
    keys = page.page.keyboard
    before = page.evaluate("({...plot.view})")
    for key in ("ArrowRight", "ArrowDown", "+"):
        keys.press(key)
    after = page.evaluate("({...plot.view})")
    assert after["x"] > before["x"]
    assert after["y"] < before["y"]
    assert after["zoom"] > before["zoom"]
    keys.press("Enter")
    assert page.evaluate("plot.selected") >= 0
    keys.press("0")
    assert page.evaluate("plot.view.zoom") == 1
    keys.press("/")
    assert page.evaluate("document.activeElement.id") == "search"


def test_dragging_moves_the_map_and_chooses_nothing(page):
    mouse = page.page.mouse
    x, y = place(page, 0)
    mouse.move(700, 400)
    mouse.down()
    mouse.move(760, 430, steps=3)
    mouse.up()
    np.testing.assert_allclose(place(page, 0), [x + 60, y + 30], atol=0.01)
    assert page.evaluate("plot.selected") == -1
    mouse.wheel(0, -400)
    until(page, "plot.view.zoom > 1.2")


def test_colours_follow_the_column(page):
    page.select_option("#colour", "ratings")
    assert re.fullmatch(r"\d+\s*by rank\s*\d+", page.inner_text("#legend").strip())
    most = page.evaluate("ratings.indexOf(Math.max(...ratings))")
    assert page.evaluate("row => plot.colours[row] === packed(channels(data.palette.scale.at(-1)))", most)


def test_what_moved_is_drawn_when_asked(page):
    page.check("#moves")
    assert page.evaluate("plot.lines.filter((l) => l.arrow).length") > 0
    page.uncheck("#moves")
    assert page.evaluate("plot.lines.length") == 0


def test_a_user_stands_amid_what_they_like(page):
    page.evaluate("select(items + 1)")
    assert page.inner_text("#item-title") == page.evaluate("'user ' + data.users.ids[1]")
    assert page.locator("#nearest li").count() == 5
    assert page.locator("#like").is_hidden()


def test_labels_cover_neither_each_other_nor_the_panel(page):
    page.evaluate("plot.zoomAt(700, 400, 1.5)")
    until(page, "!plot.asked")
    boxes = np.array(page.evaluate("plot.boxes"))
    assert len(boxes) > 5
    for at, box in enumerate(boxes):
        assert box[0] >= page.evaluate("document.getElementById('panel').getBoundingClientRect().right") - 4
        others = np.delete(boxes, at, axis=0)
        clash = (others[:, 0] < box[2]) & (box[0] < others[:, 2]) & (others[:, 1] < box[3]) & (box[1] < others[:, 3])
        assert not clash.any()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser, drawn, scheme):
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, device_scale_factor=2, has_touch=True, is_mobile=True,
        color_scheme=scheme,
    )  # fmt: skip
    tab = context.new_page()
    tab.goto((drawn[1] / "map.html").as_uri())
    ready(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    assert tab.evaluate("document.documentElement.dataset.theme") == scheme
    ground = tab.evaluate("channels(plot.colour.ground)")
    assert (sum(ground) < 200) == (scheme == "dark")
    row = tab.evaluate("Array.from({length: items}, (_, r) => r).find((r) => plot.pick(...plot.place(r)) === r)")
    tab.touchscreen.tap(*tab.evaluate("row => plot.place(row)", row))
    assert tab.evaluate("plot.selected") == row
    tab.click("#fold")
    assert tab.locator("#colours").is_hidden()
    assert tab.locator("#search").is_visible()
    tab.click("#fold")
    heights = tab.evaluate(
        "Array.from(document.querySelectorAll('button')).filter((b) => b.offsetParent).map((b) => b.offsetHeight)"
    )
    assert min(heights) >= 30  # a finger's width
    context.close()
