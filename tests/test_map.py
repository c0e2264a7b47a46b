"""Maps: places, colours, what moved, and what stands in the page."""

import base64
import json
import re
from dataclasses import replace
from datetime import date, datetime, time

import numpy as np
import polars as pl
import pytest
from worlds import recsys_here, small, tastes

from recsys_embed import Recommender
from recsys_embed.arrays import normalize
from recsys_embed.config.answers import MapConfig
from recsys_embed.config.settings import ContentConfig
from recsys_embed.data.item_table import align_items
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError, SettingError
from recsys_embed.maps.alignment import common_neighbours, procrustes
from recsys_embed.maps.columns import PALETTE, colour_column, item_columns
from recsys_embed.maps.draw import draw_map, map_items
from recsys_embed.maps.page import script_json, vectors_data
from recsys_embed.models.fold_in.softmax import SoftmaxFoldIn
from recsys_embed.projection import PROJECTIONS, project, projection_quality

RATINGS, TABLE, COLOUR = tastes()
HOSTILE = "</script><script>alert(1)</script>\u2028<img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def model():
    table = TABLE.with_columns(
        title=pl.when(pl.col("item_id") == 3).then(pl.lit(HOSTILE)).otherwise("title"), year=1980 + pl.col("item_id")
    )
    return Recommender(*small("softmax", dim=8)).fit(RATINGS, table)


@pytest.fixture(scope="module")
def drawn(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    return draw_map(model, folder, MapConfig(users=True)), folder


def clusters(n=90, dim=7, seed=0):
    random = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    return (5 * np.eye(3, dim)[kind] + random.normal(size=(n, dim)) * 0.3).astype(np.float32), kind


# UMAP compiles for ten seconds.
METHODS = [pytest.param(name, marks=[pytest.mark.slow] if name == "umap" else []) for name in PROJECTIONS]


@pytest.mark.parametrize("method", METHODS)
class TestProjections:
    def test_what_points_one_way_lies_together(self, method):
        vectors, kind = clusters()
        got = project(vectors, method)
        centres = np.stack([got.points[kind == k].mean(axis=0) for k in range(3)])
        nearest = np.linalg.norm(got.points[:, None] - centres, axis=2).argmin(axis=1)
        assert (nearest == kind).mean() > 0.95
        assert 0.5 < got.trustworthiness <= 1
        assert got.sample_size == 90

    def test_a_seed_gives_the_same_points_within_the_square(self, method):
        vectors, _ = clusters(40)
        one, other = project(vectors, method, seed=3), project(vectors, method, seed=3)
        np.testing.assert_array_equal(one.points, other.points)
        assert one.points.dtype == np.float32
        assert np.abs(one.points).max() == pytest.approx(1)
        np.testing.assert_allclose(one.points.max(axis=0), -one.points.min(axis=0), atol=1e-6)

    @pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
    def test_few_points_and_zero_vectors_have_places(self, method, n):
        vectors = clusters(n)[0]
        vectors[0] = 0
        assert np.isfinite(project(vectors, method).points).all()

    def test_few_points_are_laid_out_without_a_word(self, method, capfd):
        project(clusters(4)[0], method)
        assert not capfd.readouterr().err

    def test_length_plays_no_part(self, method):
        vectors, _ = clusters(40)
        scaled = vectors * np.random.default_rng(0).choice([0.5, 2, 4], (40, 1)).astype(np.float32)
        np.testing.assert_allclose(project(vectors, method).points, project(scaled, method).points, atol=0.02)


def test_pca_keeps_the_plane_that_the_vectors_lie_in():
    angle = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    plane = np.linalg.qr(np.random.default_rng(0).normal(size=(9, 2)))[0]
    got = project((np.column_stack((np.cos(angle), np.sin(angle))) @ plane.T).astype(np.float32), "pca")
    np.testing.assert_allclose(np.linalg.norm(got.points, axis=1), 1, atol=0.02)
    assert "100 %" in got.name


def test_trust_is_what_its_sources_say():
    vectors, _ = clusters(60)
    directions, points = normalize(vectors), np.random.default_rng(1).normal(size=(60, 2)).astype(np.float32)
    k = 10

    def ranks(x):
        distance = np.linalg.norm(x[:, None] - x, axis=2)
        np.fill_diagonal(distance, -1)
        return distance.argsort(axis=1).argsort(axis=1)  # 0 is the point itself

    real, drawn = ranks(directions), ranks(points)
    false = (drawn >= 1) & (drawn <= k) & (real > k)
    want = 1 - 2 / (60 * k * (2 * 60 - 3 * k - 1)) * (real - k)[false].sum()
    trust, kept, n = projection_quality(directions, points)
    assert trust == pytest.approx(want)
    assert kept == pytest.approx(1 - false.sum() / (60 * k))
    assert n == 60
    assert projection_quality(directions, directions)[:2] == (1, 1)


def test_one_dimension_is_drawn_on_a_line():
    assert project(np.linspace(-1, 1, 9, dtype=np.float32)[:, None], "pca").points.shape == (9, 2)


def test_an_unknown_method_lists_the_known():
    with pytest.raises(SettingError, match="pca, tsne, umap"):
        project(np.eye(4, dtype=np.float32), "isomap")


def test_tsne_begins_where_it_is_told():
    vectors, _ = clusters(60)
    first = project(vectors, "tsne")
    mirrored = first.points * np.float32([-1, 1])
    again = project(vectors, "tsne", start=mirrored)
    assert np.corrcoef(again.points[:, 0], mirrored[:, 0])[0, 1] > 0.9


class TestMoves:
    def test_procrustes_undoes_turning_mirroring_scaling_and_shifting(self):
        random = np.random.default_rng(1)
        points = random.normal(size=(20, 2)).astype(np.float32)
        turn = np.linalg.qr(random.normal(size=(2, 2)))[0] * np.array([1, -1])
        align_to_model = (3 * points @ turn + [5, -2]).astype(np.float32)
        np.testing.assert_allclose(procrustes(points, align_to_model), align_to_model, atol=1e-4)

    def test_procrustes_does_not_shear(self):
        points = np.random.default_rng(1).normal(size=(20, 2)).astype(np.float32)
        laid = procrustes(points, points * np.float32([1, 3]))
        ratio = np.linalg.norm(laid - laid[0], axis=1)[1:] / np.linalg.norm(points - points[0], axis=1)[1:]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)

    def test_overlap_against_a_naive_count(self):
        random = np.random.default_rng(2)
        one, other = random.normal(size=(30, 5)).astype(np.float32), random.normal(size=(30, 4)).astype(np.float32)

        def near(vectors, row):
            cosine = normalize(vectors) @ normalize(vectors)[row]
            cosine[row] = -9
            return set(np.argsort(-cosine)[:6])

        want = [len(near(one, r) & near(other, r)) for r in range(30)]
        assert common_neighbours(one, other, 6).tolist() == want

    def test_a_turned_copy_of_a_model_has_lost_no_neighbour(self, model, tmp_path):
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0].astype(np.float32)
        turned = replace(model.model, items=model.model.items @ turn)
        copy = Recommender.of(model.state.replace(model=turned))
        moved = draw_map(copy, tmp_path, compare=model).changes
        assert moved.churn == 0
        assert moved.n_shared == len(model.items)

    def test_new_items_came_from_nowhere(self, model, tmp_path):
        kept = RATINGS.frame().filter(pl.col("item_id") < 40)
        fewer = Recommender(*small("softmax", dim=5)).fit(Ratings.from_frame(kept), TABLE)
        got = draw_map(model, tmp_path, compare=fewer)
        new = np.array(model.items.ids(got.rows).to_list()) >= 40
        assert (got.changes.neighbours_kept[new] == -1).all()
        assert np.isnan(got.changes.old_points[new]).all()
        assert np.isfinite(got.changes.old_points[~new]).all()
        assert 0 < got.changes.churn <= 1
        now, before = got.projection.points[~new], got.changes.old_points[~new]
        assert got.changes.mean_distance == pytest.approx(np.linalg.norm(now - before, axis=1).mean(), rel=1e-5)
        kept = got.changes.neighbours_kept[~new]
        most = got.changes.data()["most"]
        assert (
            got.changes.neighbours_kept[most[0]] == kept.min() and got.changes.neighbours_kept[most[-1]] == kept.max()
        )

    def test_models_without_common_items_are_refused(self, model, tmp_path):
        other = RATINGS.frame().with_columns(item_id=pl.col("item_id") + 1000)
        with pytest.raises(DataError, match="share 0 items"):
            draw_map(model, tmp_path, compare=Recommender(*small("softmax")).fit(Ratings.from_frame(other)))


class TestColumns:
    def table(self):
        return pl.DataFrame(
            {
                "item_id": [1, 2, 3, 4],
                "title": list("abcd"),
                "genres": ["Drama|Sci-Fi", "Drama", "Sci-Fi|Drama", None],
                "year": [1990.0, None, 2000.0, 1e9],
                "plot": ["It was a dark and stormy night " * 9, "Two friends go to sea", None, "A whale"],
                "blob": [b"1", b"2", b"3", b"4"],
                "nested": [{"a": 1}] * 4,
            }
        )

    def test_kinds(self):
        found = {c.name: c for c in item_columns(self.table(), np.array([5, 6, 7, 0]))}
        assert {n: c.kind for n, c in found.items()} == {
            "ratings": "number", "genres": "tags", "year": "number", "plot": "text",
        }  # fmt: skip
        assert found["genres"].names == ["Drama", "Sci-Fi"]
        assert found["genres"].members == [[0, 1], [0], [0, 1], []]
        assert len(found["plot"].texts[0]) <= 140

    def test_odd_columns_are_read_as_people_would(self):
        day = date(1990, 5, 1)
        table = pl.DataFrame(
            {
                "item_id": [1, 2], "title": ["a", "b"], "known_words": [1.0, 0.5], "ratings": [9.0, 9.0],
                "released": [day, None], "at": [datetime(2001, 1, 1), None], "clock": [time(1), None],
                "nothing": [float("nan")] * 2, "lists": [[1, 2], [2]], "flags": [[True], [False, True]],
            }
        )  # fmt: skip
        found = {
            c.name: c for c in item_columns(align_items(table, Vocab.of(table["item_id"], "item")), np.array([1, 2]))
        }
        assert set(found) == {"ratings", "released", "at", "clock", "lists", "flags"}
        assert found["ratings"].values.tolist() == [1, 2]
        assert found["released"].values[0] == 1990
        assert found["at"].values[0] == 2001
        assert found["lists"].names == ["2", "1"]

    def test_ratings_of_a_table_without_titles_are_not_ours(self):
        table = pl.DataFrame({"item_id": [1, 2], "ratings": [9.0, 9.0]})
        assert [c.name for c in item_columns(align_items(table, Vocab.of(table["item_id"], "item")), np.ones(2))] == [
            "ratings"
        ]

    def test_of_several_tags_the_rarest_colours(self):
        tags = item_columns(self.table(), np.zeros(4, int))[1]
        assert tags.colours()[:3] == [PALETTE[1], PALETTE[0], PALETTE[1]]
        assert tags.colours()[3] not in PALETTE

    def test_an_outlier_does_not_take_the_scale(self):
        year = next(c for c in item_columns(self.table(), np.zeros(4, int)) if c.name == "year")
        np.testing.assert_allclose(year.ranks(), [0, np.nan, 0.5, 1])

    def test_the_choice_of_a_colour(self):
        columns = item_columns(self.table(), np.zeros(4, int))
        assert colour_column(columns, None).name == "genres"
        assert colour_column(columns, "popularity").name == "ratings"
        own = item_columns(self.table().with_columns(popularity=pl.col("year")), np.zeros(4, int))
        assert colour_column(own, "popularity").name == "popularity"
        assert colour_column(columns[:1], None).name == "ratings"
        with pytest.raises(SettingError, match="ratings, genres, year"):
            colour_column(columns, "plot")


def page_of(folder):
    text = (folder / "map.html").read_text("utf-8")
    return text, json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


class TestPage:
    def test_titles_are_data(self, drawn):
        text, data = page_of(drawn[1])
        assert HOSTILE in data["titles"]
        assert text.count("<script") == 2
        assert "<img" not in text

    def test_it_asks_nobody(self, drawn):
        text, _ = page_of(drawn[1])
        assert not re.search(r"https?:|//cdn|@import|src=|url\(", text.split('id="data">')[0])
        assert "default-src 'none'" in text
        assert "unsafe" not in text

    def test_what_stands_in_it_is_the_model(self, drawn, model):
        _, data = page_of(drawn[1])
        d = data["vectors"]["dim"]
        packed = np.frombuffer(base64.b64decode(data["vectors"]["bytes"]), np.int8).reshape(-1, d)
        scale = np.frombuffer(base64.b64decode(data["vectors"]["scale"]), "<f4")
        np.testing.assert_allclose(packed * scale[:, None], model.model.items[drawn[0].rows], atol=scale.max() * 0.51)
        points = np.frombuffer(base64.b64decode(data["points"]), "<u2").reshape(-1, 2) / 32767.5 - 1
        np.testing.assert_allclose(points[: len(drawn[0].rows)], drawn[0].projection.points, atol=1e-4)
        assert data["columns"][0]["values"] == model.item_counts[drawn[0].rows].tolist()

    def test_what_folds_in_a_visitor_stands_in_it(self, drawn, model):
        packed, fold = page_of(drawn[1])[1]["vectors"]["fold"], SoftmaxFoldIn.of(model.model, model.item_counts)
        bias = model.model.item_bias[drawn[0].rows]
        for name, want in (("mean", fold.mean), ("spread", fold.covariance), ("bias", bias)):
            values = np.frombuffer(base64.b64decode(packed[name]), "<f4").reshape(want.shape)
            np.testing.assert_allclose(values, want, atol=1e-6)
        assert (packed["noise"], packed["prior"]) == (fold.noise, fold.prior)

    def test_a_user_stands_amid_items_of_their_own_taste(self, drawn, model):
        near = np.array(page_of(drawn[1])[1]["users"]["near"])
        users = np.array(model.users.series.to_list())
        assert (COLOUR[drawn[0].rows][near] == users[:, None] % 3).mean() > 0.95

    def test_embedded_json_cannot_end_its_element(self):
        text = script_json({"t": "</script>&<!--\u2028\u2029\ud800"})
        assert not set("<>&\u2028\u2029") & set(text)
        assert json.loads(text)["t"].startswith("</script>&<!--\u2028\u2029")

    def test_items_without_a_vector_keep_zeros(self):
        packed = vectors_data(np.zeros((2, 3), np.float32), np.zeros(2, np.float32), None)
        assert set(base64.b64decode(packed["bytes"])) == {0}
        assert packed["fold"] is None

    def test_unrated_items_are_left_out(self, model, tmp_path):
        more = Recommender(*small("softmax")).fit(RATINGS.with_items(pl.Series([901, 902])), TABLE)
        assert 901 not in set(more.items.ids(draw_map(more, tmp_path).rows))
        with pytest.raises(DataError, match="5000 training ratings"):
            draw_map(more, tmp_path, MapConfig(min_support=5000))
        least = int(more.item_counts[more.item_counts > 0].min())
        rows = map_items(more, least + 1)
        assert (more.item_counts[rows] > least).all()
        assert len(map_items(more, least)) == (more.item_counts > 0).sum() > len(rows)

    def test_described_items_are_on_it_new_ones_too(self, tmp_path):
        parts = ContentConfig(text="title,kind")
        described = Recommender(*small("softmax", dim=8), parts).fit(RATINGS.with_items(pl.Series([901])), TABLE)
        described.add_items(pl.DataFrame({"item_id": [950], "title": ["round thing"], "kind": ["red|round"]}))
        rows = draw_map(described, tmp_path, MapConfig(method="pca")).rows
        assert 950 in set(described.items.ids(rows))
        assert 950 not in set(described.items.ids(map_items(described, 1)))

    def test_what_is_unknown_of_all_shown_items_is_left_out(self, model, tmp_path):
        rare = int(np.argmin(model.item_counts))
        table = model.table.with_columns(only=pl.when(pl.int_range(pl.len()) == rare).then(7.5))
        copy = Recommender.of(model.state.replace(table=table))
        draw_map(copy, tmp_path, MapConfig(method="pca", min_support=int(model.item_counts[rare]) + 1))
        assert "only" not in {c["name"] for c in page_of(tmp_path)[1]["columns"]}

    def test_no_folder_of_this_machine_and_no_half_letter_stands_in_it(self, model, tmp_path):
        copy = Recommender.of(
            model.state.replace(metadata={"dataset": "/home/nobody-else/films \ud800.csv", "settings": None})
        )
        draw_map(copy, tmp_path, MapConfig(method="pca"))
        text, data = page_of(tmp_path)
        assert "nobody-else" not in text
        assert data["title"] == "films ?.csv"

    def test_an_mlp_has_a_map_without_picks_or_users(self, tmp_path):
        mlp = Recommender(*small("logistic", "mlp", epochs=2)).fit(RATINGS, TABLE)
        draw_map(mlp, tmp_path, MapConfig(method="pca"))
        assert page_of(tmp_path)[1]["vectors"]["fold"] is None
        with pytest.raises(SettingError, match="MLP"):
            draw_map(mlp, tmp_path, MapConfig(users=True))


@pytest.mark.slow
def test_the_command_line(tmp_path, model):
    model.save(tmp_path / "models" / "one")
    done = recsys_here("map", "--method", "pca", "--json", cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert facts["items"] == len(model.items)
    assert (tmp_path / "map" / "map.html").stat().st_size > 10_000
    assert (tmp_path / "map" / "map.png").read_bytes()[:4] == b"\x89PNG"
    done = recsys_here("map", "--method", "pca", "--compare", "models/one", "--out", "two", cwd=tmp_path)
    assert "0% of their 10 nearest are others now" in done.stdout
    (tmp_path / "file").touch()
    assert "file cannot be one" in recsys_here("map", "--out", "file", cwd=tmp_path, code=3).stderr
    assert recsys_here("map", "--colour", "plot", cwd=tmp_path, code=2).stderr.startswith("error: --colour 'plot'")
    assert "min-support must be 0 or more" in recsys_here("map", "--min-support", "-1", cwd=tmp_path, code=2).stderr
