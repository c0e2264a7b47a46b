"""The page of the service as a visitor has it: in a browser, over the service itself."""

import os
import shutil
from contextlib import contextmanager
from urllib.parse import quote

import polars as pl
import pytest
from services import counts_of, serving
from worlds import small, tastes

from recsys_embed import Recommender
from recsys_embed.data.ratings import Ratings

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
# On CI a browser that is missing is a fault, and no reason to be silent.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ, reason="no Chromium here: install one, or name it in $CHROMIUM"
    ),
]

# Ids of items are text with all that an address may stumble over; users are integers that no float holds.
IDS = [f"{n:02d}/a,b&\"'#=%41+ \N{FILM FRAMES}" for n in range(60)]
BIG = 2**60 + 1
HOSTILE = {
    3: "<img src=x onerror=\"document.title='taken'\">",
    4: "</script><script>document.title = 'taken'</script>",
    5: "\u202eright to left \u2067שלום\u2069 \N{FILM FRAMES}",
    6: "long" * 75,
}
TOKEN = "a token for tests"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    ratings, table, _ = tastes()
    titles = [HOSTILE.get(n, title) for n, title in enumerate(table["title"])]
    frame = pl.DataFrame({"user": ratings.user + BIG, "item": [IDS[i] for i in ratings.item]})
    table = table.with_columns(item_id=pl.Series(IDS), title=pl.Series(titles), year=pl.Series(range(1950, 2010)))
    made = Recommender(*small("softmax", dim=8)).fit(Ratings.from_frame(frame).with_items(table["item_id"]), table)
    return made, made.save(tmp_path_factory.mktemp("model") / "tastes")


@pytest.fixture(scope="module")
def base(model, tmp_path_factory):
    with serving(model[1], tmp_path_factory.mktemp("events") / "events.db") as (client, _):
        yield f"{client.url}/"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def desk(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(10_000)
    return context


@contextmanager
def opened(desk, base, view="", refused=False):
    """A tab that asks nobody but the service, and whose console stays empty.

    view: what it opens with. refused: whether the service is to refuse something, which a browser logs by itself.
    """
    tab = desk.new_page()
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda r: None if r.url.startswith((base, "data:")) else said.append(r.url))
    tab.goto(base + view)
    listed(tab)
    yield tab
    tab.close()
    logged = [line for line in said if line.startswith("Failed to load resource")]
    assert bool(logged) == refused
    assert [line for line in said if line not in logged] == []


@pytest.fixture
def page(desk, base):
    with opened(desk, base) as tab:
        yield tab


def until(tab, true):
    """Wait until something is true of a tab, and return what it gave. (Its policy forbids `wait_for_function`.)"""
    for _ in range(500):
        if found := true():
            return found
        tab.wait_for_timeout(20)
    raise AssertionError("it did not become true")


def listed(tab):
    """Return the titles of the list, once it is the answer to what is asked."""
    until(tab, lambda: tab.get_attribute("#answer", "aria-busy") == "false")
    return tab.locator("#list .title").all_text_contents()


def settled(tab, titles):
    until(tab, lambda: listed(tab) == titles)


def link(**parts):
    """The address of a view, as the page writes it."""
    written = {
        n: ",".join(quote(i, safe="!'()*") for i in ([v] if isinstance(v, str) else v)) for n, v in parts.items()
    }
    return "#" + "&".join(f"{name}={value}" for name, value in written.items())


def best(model, likes, **given):
    return model[0].recommend_for(likes, 10, **given)["title"].to_list()


def pick(tab, title):
    tab.fill("#search", title)
    tab.locator("#found [role=option]", has_text=title).first.click()


def test_before_anything_is_picked_popular_items_are_shown(page):
    assert len(listed(page)) == 10
    assert page.text_content("#answer-title") == "Popular and varied, to begin with"
    assert "Pick a few" in page.text_content("#hint")
    assert page.text_content("#status").startswith("10 recommendations")
    assert page.locator("[data-act=why]").count() == 0, "there is nobody to explain it for"


def test_picks_change_the_list_at_once_and_say_why(page, model):
    titles = model[0].titles
    for n in (10, 13, 17):
        pick(page, titles[n])
        until(page, lambda n=n: page.locator("#picks li").count() == {10: 1, 13: 2, 17: 3}[n])
    want = best(model, [IDS[10], IDS[13], IDS[17]])
    settled(page, want)
    assert want != best(model, [IDS[10], IDS[13]])
    near = page.locator("#list .nearest a").all_text_contents()
    assert near and set(near) <= {titles[10], titles[13], titles[17]}
    assert page.locator("#list .facts").first.text_content() != ""
    # The view is its address: it opens again, and Back takes the last pick away.
    assert page.url.endswith(link(likes=[IDS[10], IDS[13], IDS[17]]))
    page.reload()
    settled(page, want)
    assert page.locator("#picks a").all_text_contents() == [titles[10], titles[13], titles[17]]
    page.go_back()
    settled(page, best(model, [IDS[10], IDS[13]]))


def test_likes_and_dislikes_are_told_apart_and_taken_back(page, model):
    def asked(act):
        with page.expect_request("**/recommend") as request:
            act()
        listed(page)
        return {name: request.value.post_data_json[name] for name in ("likes", "dislikes")}

    ids = {title: id_ for id_, title in zip(IDS, model[0].titles, strict=True)}
    first = listed(page)[0]
    assert asked(page.locator("#list [data-act=like]").first.click) == {"likes": [ids[first]], "dislikes": []}
    assert first not in listed(page)
    second = listed(page)[0]
    both = {"likes": [ids[first]], "dislikes": [ids[second]]}
    assert asked(page.locator("#list [data-act=dislike]").first.click) == both
    assert page.locator("#picks .disliked a").text_content() == second
    turned = {"likes": [], "dislikes": [ids[second], ids[first]]}
    assert asked(page.locator("#picks .liked [data-act=turn]").click) == turned
    page.locator("#picks [data-act=remove]").first.focus()
    assert asked(lambda: page.keyboard.press("Enter")) == {"likes": [], "dislikes": [ids[first]]}
    assert page.evaluate("document.activeElement.closest('#picks') !== null"), "the focus stays where one was"
    assert asked(lambda: page.keyboard.press("Enter")) == {"likes": [], "dislikes": []}
    assert page.evaluate("document.activeElement.id") == "search"


def test_similar_items_open_one_from_another_and_back(page, model):
    def near(title):
        item = IDS[model[0].titles.index(title)]
        until(page, lambda: page.text_content("#panel-title") == title)
        want = model[0].similar(item, 10)["title"].to_list()
        until(page, lambda: page.locator("#panel-body .title").all_text_contents() == want)
        return want

    first = listed(page)[0]
    page.locator("#list [data-act=similar]").first.click()
    second = near(first)[0]
    assert page.evaluate("document.activeElement.id") == "panel-title"
    page.locator("#list [data-act=like]").last.click()
    until(page, lambda: page.locator("#picks li").count() == 1)
    page.locator("#panel-body .title").first.click()
    third = near(second)[1]
    page.locator("#panel-body .title").nth(1).click()
    near(third)
    assert page.text_content("#back") == f"‹ {second}"
    page.click("#back")
    near(second)
    assert page.text_content("#back") == f"‹ {first}"
    for title in (third, second, first):
        page.go_back()
        near(title)
        assert page.locator("#picks li").count() == 1, "what was picked meanwhile is still there"
    assert page.locator("#back").is_hidden()
    page.go_back()
    until(page, lambda: page.locator("#picks li").count() == 0)
    near(first)
    assert until(page, lambda: listed(page)[0] == first)
    page.click("#close")
    until(page, lambda: page.locator("#panel").is_hidden())
    assert page.evaluate("document.activeElement.textContent") == first, "the focus is where one came from"
    page.locator("#list [data-act=similar]").first.click()
    near(first)
    page.locator("#panel-body .title").first.click()
    near(second)
    page.click("#close")
    until(page, lambda: page.locator("#panel").is_hidden())
    page.locator("#list [data-act=similar]").nth(1).click()
    near(listed(page)[1])
    assert page.locator("#back").is_hidden(), "a new way begins"


def test_a_users_history_stands_beside_the_list(page, model, base):
    user = BIG + 7
    page.fill("#user", str(user))
    page.press("#user", "Enter")
    settled(page, model[0].recommend(user, 10)["title"].to_list())
    assert page.text_content("#answer-title") == f"For user {user}"
    own = model[0].items.ids(model[0].seen[7])
    until(page, lambda: page.locator("#history").is_visible())
    assert set(page.locator("#history-list .title").all_text_contents()) == {
        model[0].titles[IDS.index(item)] for item in own
    }
    ask = "user => import('/page/api.js').then((api) => api.request('recommend', { body: { user } }))"
    assert page.evaluate(ask, str(user))["user"] == str(user), "a large id is not rounded"


def test_an_unknown_user_is_shown_known_ids(desk, base):
    with opened(desk, base, link(user=str(BIG + 1000)), refused=True) as tab:
        assert f"user {BIG + 1000} is not known" in until(tab, lambda: tab.text_content("#user-error"))
        tab.locator("#user-error a").last.click()
        until(tab, lambda: len(listed(tab)) == 10)
        assert tab.text_content("#user-error") == ""
        assert tab.text_content("#answer-title") == f"For user {BIG + 44}"


def test_why_shows_the_parts_of_the_score_in_the_list(desk, base, model):
    with opened(desk, base, link(likes=[IDS[10], IDS[13]])) as tab:
        score = tab.locator("#list .number").nth(2).text_content()
        tab.locator("#list [data-act=why]").nth(2).click()
        until(tab, lambda: tab.locator("#panel-body h3").first.is_visible())
        assert tab.locator("#panel-body h3").first.text_content() == f"Score {score}"
        parts = [float(n.replace("−", "-")) for n in tab.locator(".parts .number").all_text_contents()]
        assert sum(parts) == pytest.approx(float(score), abs=0.02)
        own = set(tab.locator("#panel-body ol .title").all_text_contents())
        assert own == {model[0].titles[10], model[0].titles[13]}
        assert "Shared kind" in tab.text_content("#panel-body")
        tab.reload()
        until(tab, lambda: tab.locator("#panel-body h3").first.is_visible())


def test_bars_point_to_where_the_parts_of_a_score_do(desk, base):
    told = {
        "score": 2.5, "unit": "stars", "value": 4.25, "seen": True, "shared": [],
        "parts": {"offset": 0.0, "item_bias": -0.5, "collaborative": 3.0},
        "own": [], "rest": {"items": 2, "value": 0.25},
    }  # fmt: skip
    with opened(desk, base, link(likes=[IDS[10]])) as tab:
        tab.route("**/explain", lambda route: route.fulfill(json=told))
        tab.locator("#list [data-act=why]").nth(2).click()
        until(tab, lambda: tab.locator(".parts dt").all_text_contents() == ["item bias", "collaborative"])
        against, for_ = (tab.locator(f".bar .{name}").bounding_box() for name in ("against", "for"))
        assert for_["width"] == pytest.approx(6 * against["width"], rel=0.05)
        assert for_["x"] == pytest.approx(against["x"] + against["width"], abs=1)
        said = tab.text_content("#panel-body")
        assert "Score 2.50: 4.25 stars" in said and "2 others add 0.25" in said and "seen it already" in said


def test_a_wrong_filter_is_said_under_its_field(desk, base, model):
    with opened(desk, base, link(likes=[IDS[10]]), refused=True) as tab:
        before = listed(tab)
        tab.click("summary")
        tab.fill("#where", "nonsense > 3")
        tab.press("#where", "Enter")
        assert "nonsense" in until(tab, lambda: tab.text_content("#where-error"))
        assert tab.get_attribute("#where", "aria-invalid") == "true"
        assert listed(tab) == before
        assert "from before" in tab.text_content("#hint")
        tab.fill("#where", "year < 1955")
        tab.press("#where", "Enter")
        short = until(tab, lambda: "of 10" in tab.text_content("#short") and tab.text_content("#short"))
        assert len(listed(tab)) == 5 and short.startswith("5 of 10")
        assert tab.text_content("#where-error") == ""
        tab.fill("#k", "0")
        until(tab, lambda: tab.text_content("#k-error"))
        tab.fill("#k", "3")
        until(tab, lambda: len(listed(tab)) == 3)
        assert tab.text_content("#set") == "· 2 set"
        tab.goto(base + "#where=year >= 2005")  # as a person would write it
        until(tab, lambda: len(listed(tab)) == 5)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser, base, scheme):
    likes = [IDS[n] for n in (3, 5, 6)]
    phone = browser.new_context(
        viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, color_scheme=scheme
    )
    views = ("", "#hint"), (link(likes=likes, similar=IDS[6]), "#panel-body ol"), (link(user=str(BIG)), "#history")
    with opened(phone, base, link(likes=likes)) as tab:
        for view, shown in views:
            tab.goto(base + view)
            until(tab, lambda shown=shown: tab.locator(shown).is_visible())
            assert tab.evaluate("document.documentElement.scrollWidth") == 360
            heights = tab.evaluate(
                "[...document.querySelectorAll('button')].filter((b) => b.offsetParent).map((b) => b.offsetHeight)"
            )
            assert min(heights) >= 30  # a finger's width
            assert tab.locator("#panel").is_visible() == ("similar" in view) == tab.locator("#answer").is_hidden()
        ground = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
        assert (sum(ground) < 200) == (scheme == "dark")
    phone.close()


def test_the_keyboard_does_it_all(page, model):
    keys = page.keyboard
    page.focus("#search")
    keys.insert_text("ROUND thing")  # in one go: one request
    until(page, lambda: page.get_attribute("#search", "aria-expanded") == "true")
    options = page.locator("#found [role=option]")
    titles = options.locator(".title").all_text_contents()
    chosen = lambda: page.locator("#found [aria-selected=true] .title").all_text_contents()  # noqa: E731
    assert chosen() == titles[:1]
    keys.press("ArrowUp")
    assert chosen() == titles[-1:]
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    assert chosen() == titles[1:2]
    assert page.get_attribute("#search", "aria-activedescendant") == options.nth(1).get_attribute("id")
    keys.press("Escape")
    assert page.locator("#found").is_hidden() and page.input_value("#search") == "ROUND thing"
    keys.press("ArrowDown")
    until(page, lambda: chosen() == titles[:1])
    keys.press("Enter")
    until(page, lambda: page.locator("#picks a").all_text_contents() == titles[:1])
    assert page.evaluate("document.activeElement.id") == "search"
    settled(page, best(model, [IDS[model[0].titles.index(titles[0])]]))
    # From the field through the chip and the other fields to the first item of the list: like it, and see what is near.
    steps = []
    while not steps or steps[-1] != "title":
        keys.press("Tab")
        steps.append(page.evaluate("document.activeElement.dataset.act ?? document.activeElement.tagName"))
        assert len(steps) < 20
    for step in ("like", "dislike", "similar", "why"):
        keys.press("Tab")
        assert page.evaluate("document.activeElement.dataset.act") == step
        shown = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert shown == "solid"
    keys.press("Shift+Tab")
    keys.press("Enter")
    until(page, lambda: page.evaluate("document.activeElement.id") == "panel-title")


def test_an_answer_under_way_does_not_open_a_closed_search(desk, base):
    with opened(desk, base) as tab:
        held, answered = [], []
        tab.route("**/items?*", lambda route: held.append(route))
        tab.on("requestfailed", lambda request: answered.append(request.url))
        tab.focus("#search")
        tab.keyboard.insert_text("thing")
        until(tab, lambda: held)
        tab.keyboard.press("Escape")
        until(tab, lambda: answered)  # the page no longer waits for it
        assert tab.locator("#found").is_hidden()
        tab.unroute_all(behavior="ignoreErrors")
        tab.keyboard.press("ArrowDown")
        until(tab, lambda: tab.get_attribute("#search", "aria-expanded") == "true")


def test_titles_stay_text(desk, base, model):
    likes = [IDS[n] for n in HOSTILE]
    with opened(desk, base, link(likes=likes, similar=IDS[3], k="60")) as tab:
        assert tab.locator("#picks a").all_text_contents() == list(HOSTILE.values())
        assert until(tab, lambda: tab.text_content("#panel-title")) == HOSTILE[3]
        tab.fill("#search", "script")
        until(tab, lambda: tab.locator("#found .title").all_text_contents() == [HOSTILE[4]])
        assert tab.title() == "Recommendations"
        assert tab.evaluate("document.images.length + document.scripts.length") == 1


def test_a_late_answer_is_dropped(page, model):
    held = []
    page.route("**/recommend", lambda route: held.append(route) if not held else route.continue_())
    pick(page, model[0].titles[10])
    until(page, lambda: held)
    pick(page, model[0].titles[13])
    want = best(model, [IDS[10], IDS[13]])
    settled(page, want)
    held[0].abort() if held[0].request.failure else held[0].continue_()
    page.wait_for_timeout(100)
    assert listed(page) == want


def test_a_service_that_is_away_is_asked_again(desk, base, model):
    with opened(desk, base, refused=True) as tab:
        tab.route("**/recommend", lambda route: route.abort())
        pick(tab, model[0].titles[10])
        until(tab, lambda: "does not answer" in tab.text_content("#page-error"))
        assert "from before" in tab.text_content("#hint")
        tab.unroute("**/recommend")
        tab.locator("#list [data-act=similar]").first.click()
        settled(tab, best(model, [IDS[10]]))
        assert tab.locator("#page-error").is_hidden()


def test_the_map_may_take_a_while(page):
    answers = [(202, {"Retry-After": "0.02"}), (202, {"Retry-After": "0.02"}), (200, {})]
    page.route("**/map", lambda route: (lambda a: route.fulfill(status=a[0], headers=a[1]))(answers.pop(0)))
    page.click("#map")
    until(page, lambda: page.text_content("#map-state") == "is drawn: open it")
    assert not answers
    page.unroute("**/map")
    page.route("**/map", lambda route: route.fulfill(body="<title>drawn</title>", content_type="text/html"))
    page.click("#map")
    until(page, lambda: page.title() == "drawn")


def test_a_token_is_asked_for_and_kept(desk, model, tmp_path):
    with serving(model[1], tmp_path / "events.db", token=TOKEN) as (client, _):
        tab = desk.new_page()
        tab.goto(client.url)
        for token, text in (("another one", "refused"), (TOKEN, "")):
            until(tab, lambda: tab.locator("#login").is_visible())
            assert tab.evaluate("document.activeElement.id") == "token"
            tab.fill("#token", token)
            tab.press("#token", "Enter")
            until(
                tab, lambda text=text: text in tab.text_content("#login-error") and tab.input_value("#token") != TOKEN
            )
        until(tab, lambda: len(listed(tab)) == 10)
        tab.reload()
        until(tab, lambda: len(listed(tab)) == 10)
        assert tab.locator("#login").is_hidden()
        # A browser sends no token where it goes by itself: the map comes as a file.
        asked = []
        tab.route("**/map", lambda route: (asked.append(route.request.headers), route.fulfill(body="drawn")))
        with tab.expect_download() as saved:
            tab.click("#map")
        assert saved.value.suggested_filename == "map.html" and saved.value.path().read_text() == "drawn"
        assert asked[0]["authorization"] == f"Bearer {TOKEN}"
        tab.close()


def test_who_looks_at_the_page_counts_for_no_variant(model, desk, tmp_path):
    variants = [f"{name}={model[1]}" for name in "ab"]
    with serving(None, tmp_path / "events.db", variant=variants) as (client, _):
        with opened(desk, f"{client.url}/", link(user=str(BIG))) as tab:
            assert listed(tab)
        assert sum(found["lists"] for found in counts_of(client).values()) == 0
