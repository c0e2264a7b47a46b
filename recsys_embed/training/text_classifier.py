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
from recsys_embed.words.tokens import split_words
from recsys_embed.words.vectors import WordVectors


class WordMeans(nn.Module):
    """Word rows [B, length], padded with 0 -> log-odds [B, labels].

    Embedding [words, dim] -> mean over the words of a text -> Dense(hidden, ReLU) -> Dense(labels); a sigmoid turns the
    log-odds into probabilities. Row 0 is padding: it does not count in the mean and is never updated.
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
        """Return one row per layer: its name, the shape of its output (None is the batch) and its parameters."""
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
    """Learns to predict the labels of texts; a text may have several.

    words: size of the vocabulary of the most frequent words, including the padding row. length: number of words of a
    text that are used. vectors: word vectors to initialize the embedding with; they also determine its dimension.
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
        """Train on texts and each one's labels; a share is held out, and the epoch that is best on it is kept.

        Raises DataError if all texts have a label, or none.
        """
        self.labels = sorted({label for names in labels for label in names}) if not self.labels else self.labels
        targets = self._targets(labels)
        shares = targets.mean(axis=0)
        if not len(self.labels) or not ((shares > 0) & (shares < 1)).all():
            raise DataError("every label must apply to some of the texts and not to all")
        lists = split_words(pl.Series("text", texts, pl.String))
        counts = lists.explode().drop_nulls().value_counts(name="n").sort(["n", "text"], descending=[True, False])
        self._rows = {word: row for row, word in enumerate(counts["text"].head(self.words - 1).to_list(), 1)}
        rows = self._encode(lists)
        generator = torch.Generator().manual_seed(self.seed)
        self.net = self._build_net()
        order = torch.randperm(len(rows), generator=generator)
        held_out, train = order[: (n := round(len(rows) * valid_share))], order[n:]
        wanted, best = torch.from_numpy(targets), float("inf")
        best_weights: dict[str, Tensor] | None = None
        optimizer = RowLazyAdam([Group(list(self.net.parameters()))], self.lr)
        self.history = []
        for epoch in range(self.epochs):
            total = 0.0
            for batch in train[torch.randperm(len(train), generator=generator)].split(self.batch_size):
                loss = F.binary_cross_entropy_with_logits(self.net(rows[batch]), wanted[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += float(loss.detach()) * len(batch)
            metrics = {"loss": total / len(train)}
            if n:
                metrics |= self._validate(rows[held_out], wanted[held_out])
            self.history.append(metrics)
            if (value := metrics.get("valid_loss", -epoch)) < best:
                best, best_weights = value, {k: v.clone() for k, v in self.net.state_dict().items()}
            if progress:
                progress(epoch + 1, self.epochs, "  ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
        if best_weights is None:
            raise TrainingError("the loss of the classifier is not finite: lower its learning rate")
        self.net.load_state_dict(best_weights)
        return self

    def predict(self, texts: Sequence[str] | pl.Series) -> Floats:
        """Return the probability of each label for each text, [n, labels]."""
        rows = self._encode(split_words(pl.Series("text", texts, pl.String)))
        with torch.no_grad():
            return torch.sigmoid(self.net(rows)).numpy()

    def word_vectors(self) -> WordVectors:
        """Return the words of the vocabulary, the most frequent first, and their trained vectors."""
        table = self.net.embedding.weight.detach()[1 : len(self._rows) + 1]
        return WordVectors.of(pl.Series("word", list(self._rows), pl.String), table.numpy().copy(), "classifier")

    def measure(self, texts: Sequence[str] | pl.Series, labels: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Evaluate on labelled texts: {"accuracy", "auc", "always", "texts", "labels": {label: auc}}.

        auc: area under the ROC curve, the mean over labels; .5 is chance. always: the accuracy of always giving the
        more frequent answer. A label that all texts have, or none, is left out.
        """
        from sklearn.metrics import roc_auc_score

        probability, targets = self.predict(texts), self._targets(labels)
        share = targets.mean(axis=0)
        areas = {
            label: float(roc_auc_score(targets[:, column], probability[:, column]))
            for column, label in enumerate(self.labels)
            if 0 < share[column] < 1
        }
        return {
            "accuracy": float(((probability > 0.5) == (targets > 0.5)).mean()),
            "auc": float(np.mean(list(areas.values()))) if areas else float("nan"),
            "always": float(np.maximum(share, 1 - share).mean()),
            "texts": len(targets),
            "labels": areas,
        }

    def _build_net(self) -> WordMeans:
        """Return an untrained net, without changing the state of the global random generator."""
        state = torch.get_rng_state()
        torch.manual_seed(self.seed)
        dim = self.vectors.dim if self.vectors is not None else self.dim
        net = WordMeans(self.words, dim, self.length, len(self.labels), self.hidden)
        torch.set_rng_state(state)
        if self.vectors is not None:
            self._init_embedding(net.embedding, self.vectors)
        return net

    @torch.no_grad()
    def _validate(self, rows: Tensor, targets: Tensor) -> dict[str, float]:
        """Return the loss and accuracy on held-out texts."""
        odds = self.net(rows)
        return {
            "valid_loss": float(F.binary_cross_entropy_with_logits(odds, targets)),
            "valid_accuracy": float(((odds > 0) == (targets > 0.5)).float().mean()),
        }

    def _targets(self, labels: Sequence[Sequence[str]]) -> Floats:
        """Return which labels each text has, 0 or 1, [n, labels]."""
        return np.array([[label in names for label in self.labels] for names in map(set, labels)], np.float32)

    def _encode(self, lists: pl.Series) -> Tensor:
        """Return the rows of each text's known words, padded with 0, [n, length]."""
        rows = torch.zeros(len(lists), self.length, dtype=torch.long)
        for n, tokens in enumerate(lists.to_list()):
            known = [self._rows[t] for t in tokens if t in self._rows][: self.length]
            rows[n, : len(known)] = torch.tensor(known, dtype=torch.long)
        return rows

    def _init_embedding(self, embedding: nn.Embedding, vectors: WordVectors) -> None:
        """Copy the vectors of known words into the embedding."""
        source = vectors.rows(list(self._rows))
        known = source >= 0
        rows = np.fromiter(self._rows.values(), np.int64)[known]
        with torch.no_grad():
            embedding.weight[torch.from_numpy(rows)] = torch.tensor(np.asarray(vectors.vectors[source[known]]))
