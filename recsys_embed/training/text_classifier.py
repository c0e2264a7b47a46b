"""A text classifier on word embeddings: Embedding -> mean over the words -> Dense -> Dense, sigmoid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys_embed.arrays import Floats
from recsys_embed.errors import DataError, TrainingError
from recsys_embed.training.optim import Group, RowLazyAdam
from recsys_embed.words.tokens import words as words_of
from recsys_embed.words.vectors import WordVectors


class WordMeans(nn.Module):
    """Word rows [B, length], 0 where a text has ended -> log-odds [B, labels].

    Embedding [words, dim] -> mean over the words of a text -> Dense(hidden, ReLU) -> Dense(labels); a sigmoid makes
    chances of the log-odds. Row 0 is padding: it has no part in the mean and does not move.
    """

    def __init__(
        self, words: int = 10_000, dim: int = 128, length: int = 100, labels: int = 1, hidden: int = 64
    ) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(words, dim, sparse=True)
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
        self.dense, self.last = nn.Linear(dim, hidden), nn.Linear(hidden, labels)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the log-odds [B, labels] of texts [B, length]."""
        known = (rows > 0).unsqueeze(-1)
        mean = (self.embedding(rows) * known).sum(1) / known.sum(1).clamp(min=1)
        return self.last(F.relu(self.dense(mean)))

    def summary(self) -> pl.DataFrame:
        """Return one row a layer: its name, the shape of its output (None is the batch) and its parameters."""
        words, dim = self.embedding.weight.shape
        hidden, labels = self.dense.out_features, self.last.out_features
        return pl.DataFrame(
            {
                "layer": ["Embedding", "Mean over the words", "Dense, ReLU", "Dense, sigmoid"],
                "output": [f"(None, {self.length}, {dim})", f"(None, {dim})", f"(None, {hidden})", f"(None, {labels})"],
                "parameters": [words * dim, 0, (dim + 1) * hidden, (hidden + 1) * labels],
            }
        )


@dataclass
class TextClassifier:
    """Learns from texts which labels they have, several at once or one.

    words: the most frequent ones are known, so many at most, the row of padding included. length: words of a text
    that count. vectors: ready-made word vectors that the embedding begins with (their width is then the dimension).
    """

    words: int = 10_000
    dim: int = 128
    length: int = 100
    hidden: int = 64
    epochs: int = 20
    batch_size: int = 64
    lr: float = 1e-3
    seed: int = 0
    vectors: WordVectors | None = None
    labels: list[str] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)

    def fit(
        self,
        texts: Sequence[str] | pl.Series,
        labels: Sequence[Sequence[str]],
        valid_share: float = 0.1,
        progress: Callable[[float, int, str], None] | None = None,
    ) -> TextClassifier:
        """Train on texts and the labels that each has; a share is held out, and its best epoch is kept.

        Raises DataError where a label is had by all texts or by none.
        """
        self.labels = sorted({label for own in labels for label in own}) if not self.labels else self.labels
        wanted = self._wanted(labels)
        shares = wanted.mean(axis=0)
        if not len(self.labels) or not ((shares > 0) & (shares < 1)).all():
            raise DataError("every label must be had by some of the texts and not by all")
        lists = words_of(pl.Series("text", texts, pl.String))
        counts = lists.explode().drop_nulls().value_counts(name="n").sort(["n", "text"], descending=[True, False])
        self._rows = {word: row for row, word in enumerate(counts["text"].head(self.words - 1).to_list(), 1)}
        rows = self._encode(lists)
        state = torch.get_rng_state()
        torch.manual_seed(self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        dim = self.vectors.dim if self.vectors is not None else self.dim
        self.net = WordMeans(self.words, dim, self.length, len(self.labels), self.hidden)
        torch.set_rng_state(state)
        if self.vectors is not None:
            self._start(self.vectors)
        order = torch.randperm(len(rows), generator=generator)
        held, kept = order[: (n := round(len(rows) * valid_share))], order[n:]
        targets, best = torch.from_numpy(wanted), float("inf")
        kept_weights: dict[str, Tensor] | None = None
        optimizer = RowLazyAdam([Group(list(self.net.parameters()))], self.lr)
        self.history = []
        for epoch in range(self.epochs):
            total = 0.0
            for part in kept[torch.randperm(len(kept), generator=generator)].split(self.batch_size):
                loss = F.binary_cross_entropy_with_logits(self.net(rows[part]), targets[part])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += float(loss.detach()) * len(part)
            facts = {"loss": total / len(kept)}
            if n:
                with torch.no_grad():
                    odds = self.net(rows[held])
                    facts["valid_loss"] = float(F.binary_cross_entropy_with_logits(odds, targets[held]))
                    facts["valid_accuracy"] = float(((odds > 0) == (targets[held] > 0.5)).float().mean())
            self.history.append(facts)
            if (value := facts.get("valid_loss", -epoch)) < best:
                best, kept_weights = value, {k: v.clone() for k, v in self.net.state_dict().items()}
            if progress:
                progress(epoch + 1, self.epochs, "  ".join(f"{k} {v:.4f}" for k, v in facts.items()))
        if kept_weights is None:
            raise TrainingError("the loss of the classifier is not finite: lower its learning rate")
        self.net.load_state_dict(kept_weights)
        return self

    def predict(self, texts: Sequence[str] | pl.Series) -> Floats:
        """Return the chance of each label for each text, [n, labels]."""
        rows = self._encode(words_of(pl.Series("text", texts, pl.String)))
        with torch.no_grad():
            return torch.sigmoid(self.net(rows)).numpy()

    def word_vectors(self) -> WordVectors:
        """Return the words that it knows, the most frequent one first, and their vectors as training left them."""
        table = self.net.embedding.weight.detach()[1 : len(self._rows) + 1]
        return WordVectors.of(pl.Series("word", list(self._rows), pl.String), table.numpy().copy(), "classifier")

    def measure(self, texts: Sequence[str] | pl.Series, labels: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Compare with the labels of other texts: {"accuracy", "auc", "always", "texts", "labels": {label: auc}}.

        auc: area under the ROC curve, the mean over labels; .5 is chance. always: the accuracy of the more frequent
        answer. A label that all or none of the texts have is left out.
        """
        from sklearn.metrics import roc_auc_score

        chance, wanted = self.predict(texts), self._wanted(labels)
        share = wanted.mean(axis=0)
        areas = {
            label: float(roc_auc_score(wanted[:, at], chance[:, at]))
            for at, label in enumerate(self.labels)
            if 0 < share[at] < 1
        }
        return {
            "accuracy": float(((chance > 0.5) == (wanted > 0.5)).mean()),
            "auc": float(np.mean(list(areas.values()))) if areas else float("nan"),
            "always": float(np.maximum(share, 1 - share).mean()),
            "texts": len(wanted),
            "labels": areas,
        }

    def _wanted(self, labels: Sequence[Sequence[str]]) -> Floats:
        return np.array([[label in own for label in self.labels] for own in map(set, labels)], np.float32)

    def _encode(self, lists: pl.Series) -> Tensor:
        rows = torch.zeros(len(lists), self.length, dtype=torch.long)
        for at, tokens in enumerate(lists.to_list()):
            own = [self._rows[t] for t in tokens if t in self._rows][: self.length]
            rows[at, : len(own)] = torch.tensor(own, dtype=torch.long)
        return rows

    def _start(self, vectors: WordVectors) -> None:
        found = vectors.rows(list(self._rows))
        known = found >= 0
        places = np.fromiter(self._rows.values(), np.int64)[known]
        with torch.no_grad():
            self.net.embedding.weight[torch.from_numpy(places)] = torch.tensor(
                np.asarray(vectors.vectors[found[known]])
            )
