"""The text classifier: its shape, and that it learns words and not padding."""

import numpy as np
import polars as pl
import pytest
import torch

from recsys_embed.errors import DataError
from recsys_embed.training.text_classifier import TextClassifier, WordMeans
from recsys_embed.words.vectors import WordVectors

TEXTS = [f"{'good fine' if n % 2 else 'bad poor'} {'long tale' if n % 3 else 'short'} number {n}" for n in range(120)]
LABELS = [["good"] * (n % 2) + ["long"] * (n % 3 > 0) for n in range(120)]


def test_its_summary_is_that_of_the_textbook():
    rows = WordMeans(10_000, 128, 100).summary().rows()
    assert rows[0] == ("Embedding", "(None, 100, 128)", 1_280_000)
    assert [r[2] for r in rows[1:]] == [0, 128 * 64 + 64, 65] and rows[-1][1] == "(None, 1)"
    net = WordMeans(10_000, 128, 100)
    assert sum(p.numel() for p in net.parameters()) == sum(r[2] for r in rows)


def test_padding_has_no_part_in_the_mean():
    net = WordMeans(9, 4, 6, hidden=3)
    short, long = torch.tensor([[3, 5, 0, 0, 0, 0]]), torch.tensor([[3, 5, 3, 5, 0, 0]])
    torch.testing.assert_close(net(short), net(long))
    mean = net.embedding(torch.tensor([3, 5])).mean(0)
    torch.testing.assert_close(net(short)[0], net.last(torch.relu(net.dense(mean))))
    assert net(torch.zeros(1, 6, dtype=torch.long)).isfinite().all()


def test_it_learns_several_labels_at_once():
    classifier = TextClassifier(words=50, dim=8, length=10, epochs=30, lr=0.02, seed=1).fit(TEXTS[:90], LABELS[:90])
    assert classifier.labels == ["good", "long"]
    result = classifier.measure(TEXTS[90:], LABELS[90:])
    assert result["auc"] > 0.99 and result["accuracy"] > 0.95 and result["texts"] == 30
    chance = classifier.predict(["good tale", "bad short", ""])
    assert chance.shape == (3, 2) and (chance[0] > 0.5).all() and (chance[1] < 0.5).all()
    again = TextClassifier(words=50, dim=8, length=10, epochs=30, lr=0.02, seed=1).fit(TEXTS[:90], LABELS[:90])
    assert np.array_equal(again.predict(TEXTS), classifier.predict(TEXTS))


def test_words_that_say_the_same_are_neighbours_afterwards():
    classifier = TextClassifier(words=50, dim=8, length=10, epochs=30, lr=0.02, seed=1).fit(TEXTS, LABELS)
    learnt = classifier.word_vectors()
    assert learnt.dim == 8 and len(learnt) == len(classifier._rows) == 49
    assert learnt.similar("good", 1)[0][0] == "fine" and learnt.similar("bad", 1)[0][0] == "poor"


def test_it_begins_with_given_vectors():
    vectors = WordVectors.of(pl.Series(["good", "bad"]), np.array([[9.0, 1.0], [-9.0, 1.0]], np.float32))
    classifier = TextClassifier(words=50, length=10, epochs=1, lr=1e-9, vectors=vectors).fit(TEXTS, LABELS)
    row = classifier._rows["bad"]
    np.testing.assert_allclose(classifier.net.embedding.weight[row].detach(), [-9, 1], atol=1e-5)


def test_a_label_of_all_or_none_is_refused():
    for labels in ([["x"]] * 120, [[]] * 120):
        with pytest.raises(DataError, match="some of the texts and not to all"):
            TextClassifier().fit(TEXTS, labels)
