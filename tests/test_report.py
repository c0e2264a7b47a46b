"""The report: what it says is so, whatever the model; and it is a page that anybody can be given."""

import base64
import hashlib
import html
import io
import os
import re
import shutil

import numpy as np
import polars as pl
import pytest
from worlds import RATINGS, TABLE, recsys_here, small

from recsys_embed import DataConfig, ModelConfig, Recommender, RunConfig, TrainConfig, run_experiment
from recsys_embed.reports import facts
from recsys_embed.reports.examples import examples
from recsys_embed.reports.markup import Markup, element, join
from recsys_embed.reports.pictures import Pictures
from recsys_embed.reports.words import between, of_100
from recsys_embed.reports.write import report_html, write_report
from recsys_embed.sources.load import load_dataset
from recsys_embed.state.verdict import verdict

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
WORLD = "synthetic:users=80,items=50,ratings=1500"
HOSTILE = "</title><script>document.title='taken'</script><img src=x onerror=alert(1)> \u202e\ud800 & \"é\""


def trained(folder, data=None, model=None, train=None, dataset=None, **run):
    """Train quickly, untracked, with a test."""
    run = RunConfig(**{"out": str(folder), "track": False, "resamples": 50, **run})
    model = model or ModelConfig(model_family="embeddings", dim=8)
    train = train or TrainConfig(epochs=2, patience=0)
    return run_experiment(data or DataConfig(dataset=WORLD), model, train, run, dataset=dataset)[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("model") / "one")


@pytest.fixture(scope="module")
def page(model):
    return report_html(model)


def text_of(page):
    """The text of a page, without its style, with single blanks."""
    without_style = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", without_style)).split())


def test_what_the_verdict_section_says_is_in_the_metrics(model, page):
    metrics, text = model.metadata["metrics"], text_of(page)
    test, popular = metrics["test"], metrics["baselines"]["popularity"]
    assert f"Verdict: {verdict(metrics).sentence}" in text
    hits = test["hit_at_10"] * test["users"]
    assert hits == pytest.approx(round(hits))
    assert f"{round(hits)} of {test['users']} lists were hits ({of_100(test['hit_at_10'])} of 100)" in text
    assert f"instead of {of_100(popular['hit_at_10'])} of 100 with bestsellers" in text
    found = popular["hit_difference"]
    assert found["mean"] == pytest.approx(test["hit_at_10"] - popular["hit_at_10"])
    assert between(found["low"], found["high"]) in text
    assert f"{of_100(1 - test['hit_at_10'])} of 100 lists have nothing that was kept back" in text


def test_it_measures_the_groups_as_the_training_did(model):
    data, missing = facts.load_data(model, False)
    assert not missing
    groups, metrics = facts.groups_of(model, data.test), model.metadata["metrics"]
    for rows, whole in ((groups.by_activity, metrics["test"]), (groups.popularity, metrics["baselines"]["popularity"])):
        users = sum(row["users"] for row in rows)
        assert users == metrics["test"]["users"]
        assert sum(row["hit"] * row["users"] for row in rows) / users == pytest.approx(whole["hit_at_10"])
    assert [row["name"] for row in groups.by_popularity] == ["head", "mid", "tail"]
    assert facts.groups_of(model, None).by_activity == groups.by_activity  # what the folder has is the same
    lists = facts.lists_of(model.state)
    assert lists.users == 80 and 0 < lists.coverage <= 1 and lists.half < 50 and lists.top[0] == 5
    assert sum(n for _, n in facts.count_bins(model.seen.count)) == (model.seen.count > 0).sum()
    times = data.dataset.ratings.time
    assert sum(facts.timeline_of(times).counts) == len(times) and len(facts.timeline_of(times).counts) <= 42


def test_the_examples_are_lists_of_the_model(model):
    data, _ = facts.load_data(model, False)
    found = examples(model.state, data)
    assert {e.kind for e in found} >= {"few", "many", "best", "new"} and found[-1].kind == "new"
    assert len({e.user for e in found}) == len(found)
    sizes = {e.kind: e.n_history for e in found}
    assert sizes["few"] < sizes["many"]
    test = {(u, i) for u, i in zip(data.test.user.tolist(), data.test.item.tolist(), strict=True)}
    for example in found[:-1]:
        (user,) = model.users.ids(np.array([example.user]))
        expected = model.recommend(user, k=10)["item_id"].to_list()
        assert model.items.ids(np.array([e.row for e in example.entries])).to_list() == expected
        own = set(model.seen[example.user].tolist())
        assert {o.row for o in example.history} <= own and len(example.history) == min(6, len(own))
        assert all(row in own for e in example.entries for row in e.reasons)
        assert [e.hit for e in example.entries] == [(example.user, e.row) in test for e in example.entries]
    best = next(e for e in found if e.kind == "best")
    assert model.per_user["ndcg_at_10"].max() > 0 and any(e.hit for e in best.entries)
    for example in found:
        if example.kind == "nothing":
            assert example.n_test and not any(e.hit for e in example.entries)


def test_it_loads_nothing_and_its_policy_allows_nothing(page):
    assert len(page.encode()) < 500_000 and "<script" not in page
    (style,) = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src 'none'" in html.unescape(policy) and f"style-src 'sha256-{digest}'" in html.unescape(policy)
    addresses = re.findall('(?:src|href)="([^"]*)"', page)
    assert addresses and all(address.startswith("#") for address in addresses)
    assert "url(" not in style and "@import" not in style and " style=" not in page


def test_titles_are_text(tmp_path):
    table = TABLE.with_columns(title=pl.Series([HOSTILE.encode("utf-8", "replace").decode()] * TABLE.height))
    recommender = Recommender(*small("softmax", epochs=2)).fit(RATINGS, table)
    recommender.metadata["dataset"] = "<b>x</b>"
    page = report_html(recommender, name="<i>name</i>")
    assert "<script" not in page and "<img" not in page and "<b>" not in page and "<i>" not in page
    assert "&lt;script&gt;" in page and "\u202e" not in page
    assert element("p", "<", Markup("<br>"), title='"') == '<p title="&quot;">&lt;<br></p>'
    assert join("a\ud800\x00b") == "a? b"


FAMILIES = {
    "neighbours": (ModelConfig(model_family="neighbours"), None, "which items the same users have"),
    "ease": (ModelConfig(model_family="ease"), None, "in one formula"),
    "both": (ModelConfig(model_family="both", dim=8), None, "adds up both"),
    "stars": (
        ModelConfig(model_family="embeddings", dim=8),
        TrainConfig(loss="mse", epochs=2, patience=0),
        "it is off by",
    ),
    "mlp": (ModelConfig(model_family="embeddings", dim=8, scorer="mlp"), None, "Verdict"),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_has_a_report(kind, tmp_path):
    model, train, words = FAMILIES[kind]
    recommender = trained(tmp_path / "one", model=model, train=train)
    text = text_of(report_html(recommender))
    assert words in text and f"Verdict: {verdict(recommender.metadata['metrics']).sentence}" in text
    assert "nan" not in text and "None" not in text and "inf" not in text.split()


def test_a_graph_has_nodes_and_links(tmp_path):
    random = np.random.default_rng(0)
    pairs = random.integers(0, 40, (400, 2))
    pl.DataFrame({"user": pairs[:, 0], "item": pairs[:, 1]}).write_csv(tmp_path / "graph.csv")
    data = DataConfig(dataset=str(tmp_path / "graph.csv"), shared_ids=True)
    text = text_of(report_html(trained(tmp_path / "one", data)))
    assert "nodes and" in text and "links between them" in text and "Verdict" in text
    assert "user" not in text.split("How this was measured")[0].replace("the user has", "")


def test_an_event_log_says_what_counts_and_a_trend_what_rises(tmp_path):
    frame = load_dataset(WORLD, DataConfig(dataset=WORLD)).ratings.frame()
    kinds = np.random.default_rng(1).choice(["view", "purchase"], len(frame), p=[0.6, 0.4])
    frame.with_columns(event=pl.Series(kinds)).drop("rating").write_csv(tmp_path / "events.csv")
    data = DataConfig(
        dataset=str(tmp_path / "events.csv"), event_col="event", target="purchase", split="time",
        event_weights="view=1,purchase=5",
    )  # fmt: skip
    model = ModelConfig(model_family="embeddings", dim=8, half_life=3, trend=0.7)
    recommender = trained(tmp_path / "one", data, model)
    text = text_of(report_html(recommender))
    for name, weight, target in (("view", 1, "no"), ("purchase", 5, "yes")):
        assert f"{name} {(kinds == name).sum():,} {weight} {target}" in text
    best = facts.rising(recommender.state)[0]
    assert f"{recommender.state.titles[best.row]} {best.times:.1f} times" in text
    assert "after 3 days a rating counts half" in text and "The newest ratings were kept back" in text
    assert "without what they had already by events that hide it (purchase). The baselines" in text


def test_the_lists_of_a_model_for_production_are_not_said_to_be_those_of_the_test(tmp_path):
    recommender = trained(tmp_path / "one", for_production=True)
    text = text_of(report_html(recommender))
    # All of the test was learnt, so nothing is kept back any more, but much was: the numbers are of that.
    assert "were kept back: the model did not see them" in text
    assert "Nothing was kept back" not in text and "✓" not in text and "turned out best" not in text
    assert "These lists are of the model that has learnt from the test as well" in text
    assert "Whose list was the best of the test: user" in text.replace(" :", ":")
    assert "Afterwards the model was fitted once more, on all ratings, those of the test included" in text


def test_without_a_test_it_says_that_nobody_knows():
    text = text_of(report_html(Recommender(*small("softmax", epochs=2)).fit(RATINGS, TABLE)))
    assert "Nobody knows how good the lists are" in text and "Verdict" not in text and "✓ marks" in text
    assert "could not be read (this model does not say which data it was trained on)" in text
    assert "Nothing was kept back" in text


def test_it_does_without_the_data_and_notices_other_data(tmp_path):
    frame = load_dataset(WORLD, DataConfig(dataset=WORLD)).ratings.frame()
    frame.write_csv(tmp_path / "ratings.csv")
    recommender = trained(tmp_path / "one", DataConfig(dataset=str(tmp_path / "ratings.csv")))
    whole = text_of(report_html(recommender))
    frame[:-200].write_csv(tmp_path / "ratings.csv")
    changed = text_of(report_html(recommender))
    (tmp_path / "ratings.csv").unlink()
    gone = text_of(report_html(recommender))
    hits = next(line for line in whole.split(". ") if "lists were hits" in line)
    assert "Ratings in each" in whole and "could not be read" not in whole
    assert "not those of the training any more" in changed and "there is no file" in gone
    for text in (changed, gone):
        assert hits in text and "Ratings in each" not in text and "Fewest hits" in text


def test_after_an_update_the_test_is_no_test_any_more(tmp_path):
    recommender = trained(tmp_path / "one")
    data, _ = facts.load_data(recommender, False)
    recommender.update(data.test)
    after, missing = facts.load_data(recommender, False)
    assert after.test is None and not missing
    assert "came after the training" in text_of(report_html(recommender))


def picture(colour, mode="PNG"):
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (30, 20), colour).save(out, mode)
    return out.getvalue()


def test_pictures_are_embedded_and_never_loaded_from_elsewhere(tmp_path, monkeypatch):
    work, outside = tmp_path / "work", tmp_path / "outside.png"
    work.mkdir()
    monkeypatch.chdir(work)
    outside.write_bytes(picture("red"))
    (work / "1.png").write_bytes(picture("blue"))
    (work / "text.png").write_text("no picture")
    address = "data:image/png;base64," + base64.b64encode(picture("green")).decode()
    named = [
        "1.png",
        str(outside),
        "../outside.png",
        "https://example.org/1.png",
        address,
        "text.png",
        None,
        "data:image/",
    ]
    table = TABLE.with_columns(image=pl.Series(named + [""] * (TABLE.height - len(named))))
    recommender = Recommender(*small("softmax", epochs=2)).fit(RATINGS, table)
    found = Pictures(recommender.state)
    assert [found.of(n) is not None for n in range(9)] == [True, False, False, False, True, False, False, False, False]
    assert found.of(4).startswith("data:image/jpeg;base64,") and found.of(0) != found.of(4)
    (work / "pictures").mkdir()
    for n in range(TABLE.height):
        (work / "pictures" / f"{n}.jpg").write_bytes(picture((n, 9, 9), "JPEG"))
    page = report_html(recommender, images=work / "pictures")
    assert page.count("<img") == sum(len(e.entries) for e in examples(recommender.state, None))
    assert "example.org" not in page and len(page) < 2_000_000


def test_the_command_writes_a_file_whole_or_not_at_all(model, tmp_path):
    model.save(tmp_path / "models" / "one")
    done = recsys_here("report", "--out", "page.html", cwd=tmp_path)
    assert "page.html" in done.stdout and verdict(model.metadata["metrics"]).sentence in done.stdout
    assert (tmp_path / "page.html").read_text("utf-8") == report_html(model, "one")
    for wrong, words in (
        (("--out", "no/page.html"), "no folder"),
        (("--images", "none"), "no folder none of pictures"),
    ):
        assert words in recsys_here("report", *wrong, cwd=tmp_path, code=3).stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models", "page.html"]


def test_numbers_in_words():
    assert [of_100(x) for x in (0, 0.001, 0.4, 0.9999, 1)] == ["0", "0.1", "40", "100.0", "100"]
    assert between(0.01, 0.02) == "between 1.0 and 2.0 more of 100"
    assert between(-0.02, -0.01) == "between 1.0 and 2.0 fewer of 100"
    assert between(-0.02, 0.01) == "between 2.0 fewer and 1.0 more of 100"


@pytest.mark.slow
@pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="no Chromium here: install one, or name it in $CHROMIUM"
)
def test_it_is_a_page_for_desk_phone_night_and_paper(model, tmp_path):
    from playwright.sync_api import sync_playwright

    table = model.table.with_columns(title=pl.col("title") + " " + "W" * 60)
    file = write_report(Recommender.of(model.state.replace(table=table)), tmp_path / "report.html")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        colours, said = {}, []
        for width, scheme in ((1280, "light"), (390, "light"), (390, "dark"), (320, "dark")):
            context = browser.new_context(
                viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True, java_script_enabled=True
            )
            tab = context.new_page()
            tab.on("console", lambda message: said.append(message.text))
            tab.on("pageerror", lambda error: said.append(str(error)))
            tab.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else said.append(r.url))
            tab.goto(file.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            colours[scheme] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
            bar = "document.querySelector('.bars .model').getBoundingClientRect().width"
            assert tab.evaluate(bar) > 10
            assert tab.evaluate("[...document.querySelectorAll('th[scope=row]')].every(t => t.innerText.trim())")
        tab.emulate_media(media="print")
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == colours["light"] != colours["dark"]
        assert tab.pdf(format="A4").startswith(b"%PDF")
        browser.close()
    assert said == []
