"""Graphs: both id columns name nodes of one kind (`--is_graph-ids`)."""

import copy
import logging

import numpy as np
import polars as pl
import pytest
import torch
from worlds import recsys_here, small

from recsys_embed import ContentConfig, DataConfig, MapConfig, ModelConfig, RunConfig, TrainConfig, run_experiment
from recsys_embed.config.recipes import Size, resolve_settings
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import split_cold_items, split_leave_last, split_random, split_time
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import BundleError, DataError, SettingError, UnknownId
from recsys_embed.evaluation import baselines
from recsys_embed.evaluation.evaluate import evaluate
from recsys_embed.evaluation.probes import probe_links
from recsys_embed.experiment import fit_and_refit as refit
from recsys_embed.exports.write import export
from recsys_embed.maps.draw import draw_map
from recsys_embed.nets.negative_sampling import KnownPositives
from recsys_embed.nets.two_tower import build_two_tower
from recsys_embed.recommender import Recommender
from recsys_embed.sources.load import load_dataset
from recsys_embed.storage.bundle import Bundle
from recsys_embed.training import trainer
from recsys_embed.training.autograd_step import AutogradStep, Batch

CLIQUES, SIZE = 4, 7


def graph(pairs, **columns):
    user, item = np.array(pairs).T
    return Ratings.from_frame(pl.DataFrame({"source": user, "target": item, **columns}), shared_ids=True)


def edges(ratings):
    """The edges in outside ids, both directions."""
    return set(ratings.frame().select("user_id", "item_id").rows())


def cliques():
    """Everybody knows everybody of their own clique, but for the pairs that are returned too: the right answers."""
    pairs = [(a, b) for a in range(CLIQUES * SIZE) for b in range(a) if a % CLIQUES == b % CLIQUES]
    held = [(a, b) for a, b in pairs if a // CLIQUES == b // CLIQUES + 1 and (b // CLIQUES) % 2 == 0]
    return graph([p for p in pairs if p not in held]), held


def fitted(loss="softmax", **given):
    model, train = small(loss, items=CLIQUES * SIZE, **given)
    train = TrainConfig(**{**vars(train), "item_decay": None})
    return Recommender(model, train).fit(cliques()[0])


def random_graph(nodes=60, rows=500, seed=0):
    """Text ids, both directions, repeated edges and loops, as files have them; times too."""
    random = np.random.default_rng(seed)
    ends = random.integers(0, nodes, (rows, 2))
    frame = pl.DataFrame(
        {
            "user": [f"n{a}" for a in ends[:, 0]],
            "item": [f"n{b}" for b in ends[:, 1]],
            "timestamp": random.integers(0, 200, rows),
        }
    )
    return Ratings.from_frame(frame, shared_ids=True)


def test_an_edge_stands_there_in_both_directions_and_once(caplog):
    ratings = graph([(1, 2), (2, 1), (5, 2), (1, 2), (3, 3), (7, 7), (9, 1)], rating=[1.0, 2, 3, 4, 5, 6, 7])
    assert edges(ratings) == {(1, 2), (2, 1), (2, 5), (5, 2), (1, 9), (9, 1)}
    assert len(ratings) == 6 and ratings.n_duplicates == 2 and ratings.is_graph
    assert ratings.users is ratings.items and ratings.users.series.to_list() == [1, 2, 5, 9]
    of = {(u, i): v for u, i, v in ratings.frame().select("user_id", "item_id", "rating").rows()}
    assert of[1, 2] == of[2, 1] == 4  # the last one, whatever its direction
    assert "2 edges of a node with itself" in caplog.text


def test_direction_says_nothing():
    pairs = [(1, 2), (5, 2), (9, 1)]
    assert edges(graph(pairs)) == edges(graph([(b, a) for a, b in pairs]))


def test_ids_of_two_types_are_one_vocabulary_of_text():
    frame = pl.DataFrame({"user": ["1", "7", "3"], "item": ["a", "1", "007"]})
    ratings = Ratings.from_frame(frame, shared_ids=True, from_text=True)
    assert edges(ratings) == {("1", "a"), ("a", "1"), ("1", "7"), ("7", "1"), ("3", "007"), ("007", "3")}


def test_what_is_no_graph_is_refused():
    with pytest.raises(DataError, match="no edges between two nodes"):
        graph([(1, 1), (2, 2)])
    with pytest.raises(DataError, match="or an edge"):
        Ratings.from_frame(pl.DataFrame({"user": [1, 2], "item": [2, 1]}), shared_ids=True, duplicates="error")
    with pytest.raises(DataError, match="at least two"):
        Recommender().fit(graph([(1, 2)]))


def test_equal_ids_alone_make_no_graph():
    frame = pl.DataFrame({"user": [1, 2, 3, 1], "item": [2, 3, 1, 1]})
    ratings = Ratings.from_frame(frame)
    assert not ratings.is_graph and len(ratings) == 4 and ratings.excluded().count.tolist() == [2, 1, 1]


def test_more_nodes_stay_one_vocabulary():
    ratings = graph([(1, 2), (5, 2)]).with_items(pl.Series([0, 3, 5]))
    assert ratings.is_graph and ratings.users.series.to_list() == [0, 1, 2, 3, 5]
    assert edges(ratings) == {(1, 2), (2, 1), (5, 2), (2, 5)}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("how", [lambda r, s: split_random(r, 0.15, 0.2, s), lambda r, _: split_time(r, 0.15, 0.2)])
def test_no_edge_leaks_by_its_other_direction(seed, how):
    ratings = random_graph(seed=seed)
    splits = how(ratings, seed)
    found = [edges(part) for part in splits]
    for part, own in zip(splits, found, strict=True):
        assert own == {(b, a) for a, b in own} and len(part) and part.is_graph
    assert set.union(*found) == edges(ratings) and sum(map(len, found)) == len(ratings)


@pytest.mark.parametrize("seed", range(3))
def test_a_random_split_has_its_shares_and_leaves_every_node_an_edge(seed):
    ratings = random_graph(seed=seed)
    split = split_random(ratings, 0.15, 0.2, seed)
    assert split.train.item_counts.min() >= 1
    assert len(split.test) == 2 * round(len(ratings) / 2 * 0.2) and len(split.valid) == 2 * round(
        len(ratings) / 2 * 0.15
    )
    star = graph([(0, n) for n in range(1, 9)])
    assert len(split_random(star, 0.3, 0.3).train) == len(star)
    other = split_random(ratings, 0.15, 0.2, seed + 10)
    assert edges(other.test) != edges(split.test)


def test_splits_about_users_are_refused():
    for split in (split_leave_last, split_cold_items):
        with pytest.raises(SettingError, match="random or time"):
            split(random_graph())


def of_batch(ratings):
    arrays = ratings.user, ratings.item, ratings.value, np.ones(len(ratings), np.float32)
    return Batch(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))


@pytest.mark.parametrize("loss", ["softmax", "sampled-softmax", "bpr", "logistic"])
@pytest.mark.parametrize("cosine", [False, True])
def test_one_table_gets_the_gradients_of_both_sides(loss, cosine):
    ratings, _ = cliques()
    config, train = small(loss, items=len(ratings.items), cosine=cosine)
    model = build_two_tower(config, len(ratings.users), len(ratings.items), shared=True)
    assert model.users is model.items
    assert len(list(model.parameters())) == 2  # vectors and biases
    model.users.init_bias(torch.linspace(-1, 1, len(ratings.users)))
    apart = copy.deepcopy(model)
    apart.items = copy.deepcopy(apart.users)
    found = []
    for made in (model, apart):
        known = KnownPositives(ratings.excluded(), len(ratings.items), torch.device("cpu"))
        counts = torch.from_numpy(ratings.item_counts)
        step = AutogradStep(made, train, known, counts, torch.Generator().manual_seed(0))
        step.loss(of_batch(ratings)).backward()
        found.append([{n: p.grad.to_dense() for n, p in side.named_parameters() if p.grad is not None}
                      for side in (made.users, made.items)])  # fmt: skip
    (both, _), (users, items) = found
    for name, gradient in both.items():
        torch.testing.assert_close(gradient, users.get(name, 0) + items[name])
    assert both["table.weight"].any()


@pytest.mark.parametrize(
    ("loss", "cosine"),
    [
        ("softmax", False),
        ("softmax", True),
        ("sampled-softmax", False),
        ("sampled-softmax", True),
        ("bpr", False),
        ("logistic", False),
    ],
)
def test_it_learns_who_belongs_together_and_a_score_has_no_direction(loss, cosine):
    recommender = fitted(loss, cosine=cosine, temperature=0.2 if cosine else None)
    _, held = cliques()
    nodes = np.arange(CLIQUES * SIZE)
    scores = recommender.model.score_pairs(*(g.ravel() for g in np.meshgrid(nodes, nodes, indexing="ij"))).reshape(
        28, 28
    )
    np.testing.assert_allclose(scores, scores.T, rtol=1e-4, atol=1e-5)
    plain = recommender.model
    np.testing.assert_allclose(plain.users * (0.2 if cosine else 1), plain.items, rtol=1e-5)
    np.testing.assert_array_equal(plain.user_bias, plain.item_bias)
    report = evaluate(recommender, graph(held), ks=(1,), resamples=0)
    assert report.metrics["hit_at_1"] == 1 and report.users == len({n for pair in held for n in pair})
    assert probe_links(recommender, graph(held), resamples=10)["uniform"]["model"] == 1


def test_nobody_is_recommended_to_themselves():
    recommender, nodes = fitted(cosine=True, temperature=0.2), CLIQUES * SIZE
    for options in ({}, {"include_seen": True}, {"hide_test": True}, {"include_seen": True, "hide_test": True}):
        lists = recommender.recommend(k=nodes, **options)
        assert not (lists["user_id"] == lists["item_id"]).any()
    assert recommender.recommend(k=nodes, include_seen=True).height == nodes * (nodes - 1)
    seen = edges(cliques()[0])
    excluded = recommender.recommend(k=nodes)
    assert not seen & set(excluded.select("user_id", "item_id").rows())
    assert excluded.height == nodes * (nodes - 1) - len(seen)


def test_nobody_is_their_own_negative(monkeypatch):
    given = []

    class Recording(KnownPositives):
        def __init__(self, seen, *rest):
            given.append(seen)
            super().__init__(seen, *rest)

    monkeypatch.setattr(trainer, "KnownPositives", Recording)
    fitted(epochs=1)
    assert all(node in given[0][node] for node in range(CLIQUES * SIZE))


def test_the_folder_keeps_that_it_is_a_graph(tmp_path):
    recommender = fitted(cosine=True)
    loaded = Recommender.load(recommender.save(tmp_path / "model"))
    assert loaded.is_graph and loaded.users is loaded.items and "28 nodes" in repr(loaded)
    assert loaded.recommend(k=5, include_seen=True).equals(recommender.recommend(k=5, include_seen=True))
    assert loaded.metadata == recommender.metadata and "28 nodes" in loaded.card()
    bundle = Bundle.read(tmp_path / "model")
    bundle.frames["users.parquet"] = bundle.frames["users.parquet"].with_columns(pl.col("user_id") + 1)
    bundle.write(tmp_path / "other")
    with pytest.raises(BundleError, match="ids differ"):
        Recommender.load(tmp_path / "other")


@pytest.mark.parametrize(
    ("model", "train", "named"),
    [
        ({"scorer": "mlp"}, {}, "mlp"),
        ({"user_tower": "both"}, {}, "--user-tower both"),
        ({"user_tower": "history"}, {}, "--user-tower history"),
        ({}, {"loss": "mse"}, "--loss mse"),
        ({}, {"item_decay": 1.0}, "--item-decay"),
    ],
)
def test_what_does_not_go_together_says_so(model, train, named):
    with pytest.raises(SettingError, match=f"{named}.* does not go with --shared-ids"):
        Recommender(ModelConfig(**model), TrainConfig(**train)).fit(cliques()[0])


def test_descriptions_do_not_go_with_it():
    with pytest.raises(SettingError, match="--text.* does not go with --shared-ids"):
        Recommender(content=ContentConfig(text="title")).fit(cliques()[0])


def test_a_recipe_that_is_filled_stays_as_it_is():
    size = Size(100, 100, 3000, is_graph=True)
    model, train = resolve_settings(ModelConfig(), TrainConfig(), size)
    assert train.item_decay is None and train.user_decay and resolve_settings(model, train, size) == (model, train)


def test_a_whole_training_hides_the_node_itself_everywhere(tmp_path):
    """Every list below would begin with its own node if that were left in: cosines of tied vectors."""
    ratings, _ = cliques()
    data = DataConfig(dataset="cliques", shared_ids=True)
    run = RunConfig(track=False, out=str(tmp_path / "model"), resamples=0)
    recommender, report = run_experiment(
        data, ModelConfig(dim=16), TrainConfig(epochs=30, batch_users=4), run, dataset=Dataset(ratings, None)
    )
    metrics = report["metrics"]
    assert metrics["test"]["hit_at_10"] == 1 and metrics["test"]["ndcg_at_10"] > 0.75
    assert metrics["valid"]["ndcg_at_10"] > 0.65 and recommender.is_graph
    assert metrics["baselines"]["ease"]["ndcg_at_10"] > 0.75


@pytest.fixture
def files(tmp_path):
    """The cliques as an edge list with SNAP's comments, and two more files of held-out edges."""
    ratings, held = cliques()
    pairs = [(a, b) for a, b in sorted(edges(ratings)) if a < b]
    header = "# Undirected graph\n# Nodes: 28\n# FromNodeId\tToNodeId\n"
    (tmp_path / "edges.txt").write_text(header + "".join(f"{a}\t{b}\n" for a, b in pairs))
    (tmp_path / "held.csv").write_text("source,target\n" + "".join(f"{a},{b}\n" for a, b in held))
    (tmp_path / "leak.csv").write_text(f"source,target\n{held[0][0]},{held[0][1]}\n{pairs[0][1]},{pairs[0][0]}\n")
    return tmp_path


def test_files_of_held_out_edges_share_the_nodes(files, caplog):
    caplog.set_level(logging.INFO)
    path = str(files / "edges.txt")
    dataset = load_dataset(path, DataConfig(path, valid=str(files / "held.csv"), shared_ids=True))
    assert dataset.ratings.users is dataset.ratings.items is dataset.valid.users is dataset.valid.items
    assert edges(dataset.valid) == {p for a, b in cliques()[1] for p in ((a, b), (b, a))}
    data = DataConfig(path, test=str(files / "leak.csv"), shared_ids=True)
    with pytest.raises(DataError, match="are in test too"):
        run_experiment(data, run=RunConfig(track=False, out=str(files / "model")))


@pytest.mark.slow
def test_a_graph_on_the_command_line(files):
    recsys_here(
        "train", "--dataset", "edges.txt", "--shared-ids", "--no-track", "--out", "m", "--epochs", "9", cwd=files
    )
    listed = recsys_here("recommend", "--model", "m", "--user", "5", "--k", "27", "--include-seen", cwd=files).stdout
    assert "Top 27 for node 5" in listed and "neighbours, shown too" in listed
    similar = recsys_here("similar", "--model", "m", "--item", "5", "--k", "4", cwd=files).stdout
    assert "edges)" in similar and "ratings" not in similar


def test_nodes_are_exported_once(tmp_path):
    recommender = fitted(epochs=2)
    export(recommender, "npz", tmp_path / "out")
    with np.load(tmp_path / "out" / "items.npz") as arrays:
        assert [len(arrays[name]) for name in arrays.files if arrays[name].ndim == 2] == [28]
    with pytest.raises(SettingError, match="same nodes"):
        export(recommender, "npz", tmp_path / "other", users=True)
    with pytest.raises(SettingError, match="same nodes"):
        draw_map(recommender, tmp_path / "map", MapConfig(users=True))


def test_a_node_that_is_not_known_is_called_one():
    with pytest.raises(UnknownId, match="node 99 is not known; 28 nodes are"):
        fitted(epochs=1).recommend(99)


@pytest.mark.parametrize("module", [refit, baselines])
def test_what_settings_are_chosen_by_hides_the_node_itself(module, monkeypatch):
    given, real = [], module.rank_metrics

    def recording(ranker, test, seen, *rest):
        given.append(seen)
        return real(ranker, test, seen, *rest)

    monkeypatch.setattr(module, "rank_metrics", recording)
    split = split_random(cliques()[0], 0.1, 0.1)
    if module is refit:
        refit.validation(split, DataConfig(), TrainConfig())[0](fitted(epochs=1).model)
    else:
        baselines.choose_ease(baselines.Ease(split.train), split.train, split.valid)
    assert all(node in seen[node] for seen in given for node in range(CLIQUES * SIZE)) and given


def test_a_second_fit_forgets_what_the_first_one_hid():
    recommender = fitted(epochs=1)
    assert len(recommender.excluded) == len(recommender.seen) + CLIQUES * SIZE
    recommender.fit(random_graph())
    assert len(recommender.excluded) == len(recommender.seen) + len(recommender.users)


@pytest.mark.parametrize("seed", range(4))
def test_a_node_joins_its_own_neighbours_in_order(seed):
    seen = random_graph(nodes=20, rows=40, seed=seed).seen()
    with_self_loops = seen.with_self_loops()
    for node in range(len(seen.indptr) - 1):
        assert with_self_loops[node].tolist() == sorted([*seen[node].tolist(), node])
    assert UserItems.empty(3).with_self_loops().indices.tolist() == [0, 1, 2]
