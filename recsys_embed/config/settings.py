"""Every setting, written once: command-line options, JSON, MLflow parameters and checks follow from these fields."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from recsys_embed.config.fields import _check_choices, check, names_of
from recsys_embed.errors import SettingError

SplitName = Literal["random", "leave-last", "time", "cold-items"]


ScorerName = Literal["dot", "mlp"]


UserTowerName = Literal["id", "history", "both"]


LossName = Literal["softmax", "sampled-softmax", "bpr", "logistic", "mse"]


SamplerName = Literal["uniform", "popularity"]


MethodName = Literal["auto", "pca", "tsne", "umap"]


DeviceName = Literal["auto", "cpu", "cuda"]


DuplicatesName = Literal["last", "first", "mean", "sum", "error"]


WeightName = Literal["none", "rating"]


MomentsName = Literal["number", "row"]


FitName = Literal["adam", "gibbs"]


IndexName = Literal["exact", "approximate"]


UnknownName = Literal["error", "skip"]


@dataclass(frozen=True)
class DataConfig:
    """Where the ratings come from, what their columns are, and how they are split."""

    dataset: Annotated[str, "name of a data set, or path of a ratings file (CSV, TSV, ::, Parquet, .gz)"] = "movielens"
    valid: Annotated[str | None, "file of validation ratings, instead of a split"] = None
    test: Annotated[str | None, "file of test ratings, instead of a split"] = None
    add: Annotated[str | None, "file of further ratings, such as the events.db of recsys serve"] = None
    items: Annotated[str | None, "file with one row an item: its id, title, …"] = None
    columns: Annotated[str | None, "names of the columns of a file without a header: user,item,rating,timestamp"] = None
    item_columns: Annotated[str | None, "names of the columns of --items without a header: id,title,…"] = None
    user_col: Annotated[str | None, "name of the user column, where it is unusual"] = None
    item_col: Annotated[str | None, "name of the item column, where it is unusual"] = None
    rating_col: Annotated[str | None, "name of the rating column, where it is unusual"] = None
    time_col: Annotated[str | None, "name of the time column, where it is unusual"] = None
    duplicates: Annotated[DuplicatesName, "what several rows of one user and item become"] = "last"
    shared_ids: Annotated[bool, "both id columns name nodes of one kind; a row is an edge without direction"] = False
    split: Annotated[SplitName, "how ratings are held out"] = "random"
    valid_share: Annotated[float, "share of the ratings held out for validation"] = 0.1
    test_share: Annotated[float, "share of the ratings held out for test"] = 0.1
    cold_share: Annotated[float, "share of the items that --split cold-items leaves without a training rating"] = 0.2
    split_seed: Annotated[int | None, "seed of the random split (default: --seed)"] = None
    min_rating: Annotated[float | None, "ratings from here on are positives (default: every rating is one)"] = None
    liked: Annotated[float | None, "ratings from here on count as liked in metrics.liked (default: 4 of 5)"] = None
    data_dir: Annotated[str | None, "folder of downloads (default: $RECSYS_DATA, ./data, or the user's cache)"] = None
    offline: Annotated[bool, "never use the network"] = False

    def __post_init__(self) -> None:
        _check_choices(self)
        check(0 < self.cold_share < 1, "cold_share", self.cold_share, "above 0 and below 1")
        files = self.split == "cold-items" and (self.valid or self.test)
        check(not files, "split", "cold-items with --valid or --test", "another one where files are held out")
        for name in ("valid_share", "test_share"):
            check(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")
        for name in ("min_rating", "liked"):
            value = getattr(self, name)
            check(value is None or math.isfinite(value), name, value, "a number")
        check(self.valid_share + self.test_share < 1, "valid_share + test_share", "1 or more", "below 1")


@dataclass(frozen=True)
class ModelConfig:
    """What the model is. None means: as its recipe has it (`recipes.resolve_settings`)."""

    dim: Annotated[int | None, "width of every embedding"] = None
    scorer: Annotated[ScorerName, "how two vectors become a score"] = "dot"
    user_tower: Annotated[
        UserTowerName | None,
        "what a user's vector is: one of their own (default), the sum of what they rated, or both",
    ] = None
    cosine: Annotated[
        bool | None, "score by the cosine instead of the dot product (default: with a softmax, where ids are all)"
    ] = None
    temperature: Annotated[float | None, "the score is divided by this (default: 1, with --cosine 0.15)"] = None
    hidden: Annotated[str, "layer sizes of the mlp scorer"] = "64,32"
    biases: Annotated[bool, "give every user and item a bias"] = True
    init_scale: Annotated[float | None, "standard deviation of the first vectors' length"] = None

    def __post_init__(self) -> None:
        _check_choices(self)
        check(self.dim is None or 1 <= self.dim <= 65_536, "dim", self.dim, "from 1 to 65536")
        check(not (self.cosine and self.scorer == "mlp"), "scorer", "mlp with --cosine", "dot where --cosine is")
        check(self.temperature is None or self.temperature > 0, "temperature", self.temperature, "above 0")
        parts = self.hidden.split(",")
        check(all(p.strip().isdecimal() and int(p) > 0 for p in parts), "hidden", self.hidden, "sizes such as 64,32")

    @property
    def layers(self) -> tuple[int, ...]:
        """The layer sizes of the mlp scorer."""
        return tuple(int(size) for size in self.hidden.split(","))


@dataclass(frozen=True)
class ContentConfig:
    """What is known of the items besides their ratings, and how it becomes vectors."""

    text: Annotated[str | None, "columns of the item table that describe items, e.g. title,genres,plot"] = None
    tags: Annotated[str | None, "those of --text that hold lists of names, where that is not found out"] = None
    words: Annotated[str | None, "those of --text that hold words, where that is not found out"] = None
    vectors: Annotated[str | None, "word vectors: glove-6b-50d, or a GloVe, word2vec or fastText file"] = None
    train_words: Annotated[bool, "train the word vectors too"] = False
    item_vectors: Annotated[str | None, "file of ready-made item vectors: .parquet, or .npy with ids beside it"] = None
    images: Annotated[str | None, "folder of item pictures, named by item id"] = None
    image_size: Annotated[int, "pixels of a side that pictures are brought to"] = 32
    tower_hidden: Annotated[int, "size of the hidden layer between descriptions and vectors; 0: none"] = 0
    id_dropout: Annotated[float, "share of the items whose id is left out of a step, so that descriptions learn"] = 0.3

    def __post_init__(self) -> None:
        check(8 <= self.image_size <= 256, "image_size", self.image_size, "from 8 to 256")
        check(0 <= self.tower_hidden <= 65_536, "tower_hidden", self.tower_hidden, "from 0 to 65536")
        check(0 <= self.id_dropout < 1, "id_dropout", self.id_dropout, "from 0 to below 1")
        named = set(self.columns)
        for option in ("tags", "words"):
            extra = set(names_of(getattr(self, option))) - named
            check(not extra, option, ", ".join(sorted(extra)), "columns that --text names")
        if self.vectors or self.train_words:
            check(bool(named), "text", "nothing", "columns, where --vectors or --train-words is")
        check(bool(self.vectors) or not self.train_words, "vectors", "nothing", "a name or file with --train-words")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the item table that describe items."""
        return names_of(self.text)

    @property
    def any(self) -> bool:
        """Whether items are described at all."""
        return bool(self.columns or self.item_vectors or self.images)


@dataclass(frozen=True)
class WordsConfig:
    """Which word vectors a `recsys words` command looks at."""

    vectors: Annotated[str, "name of word vectors, or a GloVe, word2vec or fastText file"] = "glove-6b-50d"
    data_dir: Annotated[str | None, "folder of downloads (default: $RECSYS_DATA, ./data, or the user's cache)"] = None
    offline: Annotated[bool, "never use the network"] = False


@dataclass(frozen=True)
class MapConfig:
    """What a map shows of a model."""

    method: Annotated[MethodName, "how vectors become two dimensions (auto: t-SNE)"] = "auto"
    colour: Annotated[str | None, "column that colours the points (default: genres or other tags, or ratings)"] = None
    users: Annotated[bool, "show users too, amid the items that point their way"] = False
    min_ratings: Annotated[int, "items with fewer training ratings are left out (0: described ones stay)"] = 0
    seed: Annotated[int, "seed of the layout"] = 0

    def __post_init__(self) -> None:
        _check_choices(self)
        check(self.min_ratings >= 0, "min_ratings", self.min_ratings, "0 or more")
        check(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass(frozen=True)
class Rules:
    """What may stand in a list, and what comes first in it, besides the scores."""

    where: Annotated[str | None, "only items of which this holds, e.g. \"year >= 1990 and 'Comedy' in genres\""] = None
    boost: Annotated[str | None, "adds to the scores of items: EXPRESSION: AMOUNT; EXPRESSION: AMOUNT"] = None
    per_group: Annotated[str | None, "at most so many items of a group: COLUMN: NUMBER, e.g. genres: 2"] = None
    diversity: Annotated[float, "how much it counts to be unlike what stands above, from 0 to 1"] = 0.0
    min_ratings: Annotated[int, "only items with so many training ratings"] = 0
    max_ratings: Annotated[int | None, "only items with so many training ratings at most"] = None

    def __post_init__(self) -> None:
        for name in ("where", "boost", "per_group"):
            value = getattr(self, name)
            check(value is None or isinstance(value, str), name, value, "text")
        check(0 <= self.diversity <= 1, "diversity", self.diversity, "from 0 to 1")
        check(self.min_ratings >= 0, "min_ratings", self.min_ratings, "0 or more")
        most = self.max_ratings
        check(most is None or most >= self.min_ratings, "max_ratings", most, "no less than min-ratings")


@dataclass(frozen=True)
class ServeConfig:
    """Where a model answers, and what it lets through."""

    model: Annotated[
        str | None, "model folder, or models:/NAME@ALIAS of MLflow; watched for a new one (default: newest in models/)"
    ] = None
    host: Annotated[str, "address to listen at; any but this machine's own needs a token"] = "127.0.0.1"
    port: Annotated[int, "port to listen at; 0: a free one"] = 8000
    workers: Annotated[int, "processes that answer; they share the vectors"] = 1
    events: Annotated[str | None, "file of what was rated since (default: events.db here)"] = None
    token: Annotated[str | None, "what requests must bring as Authorization: Bearer … (default: $RECSYS_TOKEN)"] = None
    index: Annotated[IndexName, "how items are found: exact, or approximate (for millions of items)"] = "exact"
    max_k: Annotated[int, "longest list that is given"] = 1000
    max_batch: Annotated[int, "most questions or events in one request"] = 1000
    max_body: Annotated[int, "most bytes of a request's body"] = 1_000_000
    timeout: Annotated[float, "seconds that a request may take"] = 10.0
    watch: Annotated[float, "seconds between two looks for a new model; 0: never"] = 2.0
    log_requests: Annotated[bool, "write a line of JSON to stderr for every request"] = False
    tracking_uri: Annotated[str | None, "MLflow store (default: $MLFLOW_TRACKING_URI or sqlite:///mlflow.db)"] = None

    def __post_init__(self) -> None:
        _check_choices(self)
        check(0 <= self.port <= 65_535, "port", self.port, "from 0 to 65535")
        for name in ("workers", "max_k", "max_batch", "max_body"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        check(0 < self.timeout < math.inf, "timeout", self.timeout, "above 0")
        check(0 <= self.watch < math.inf, "watch", self.watch, "0 or more")
        check(self.secret is None or len(self.secret) >= 8, "token", "a shorter one", "at least 8 characters")
        if self.secret is None and not self.local:
            raise SettingError(
                f"host {self.host} can be reached from other machines: give a --token (or set RECSYS_TOKEN), "
                "or listen at 127.0.0.1"
            )

    @property
    def secret(self) -> str | None:
        """The token that requests must bring, or None."""
        return self.token or os.environ.get("RECSYS_TOKEN") or None

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class TrainConfig:
    """How it is trained. None means: as its recipe has it (`recipes.resolve_settings`)."""

    loss: Annotated[
        LossName | None, "what is minimised (default: softmax, sampled for many items; logistic for mlp)"
    ] = None
    method: Annotated[
        FitName | None,
        "steps of adam, or means of gibbs samples (default for mse where no given setting is adam's alone)",
    ] = None
    epochs: Annotated[int | None, "epochs at most; early stopping may end sooner (gibbs: samples)"] = None
    batch_size: Annotated[int | None, "ratings a step (default where a step does not take users)"] = None
    batch_users: Annotated[
        int | None, "instead: users a step, with all of their ratings (default for a cosine, and for histories)"
    ] = None
    history_dropout: Annotated[float, "share of a user's ratings left out of their vector in a step (history)"] = 0.5
    lr: Annotated[float | None, "learning rate of Adam"] = None
    user_decay: Annotated[
        float | None, "decoupled weight decay of the users' vectors: a step shrinks them by lr x this"
    ] = None
    item_decay: Annotated[float | None, "the same of the items' vectors"] = None
    bias_decay: Annotated[float | None, "the same of biases, and of the scorer's weights"] = None
    content_decay: Annotated[float | None, "the same of what turns descriptions into vectors"] = None
    content_pace: Annotated[float | None, "learning rate of what turns descriptions into vectors, as a share"] = None
    balance: Annotated[float | None, "a rating weighs (ratings of its user) to the power of minus this"] = None
    dropout: Annotated[float | None, "share of the vectors' numbers left out in a step"] = None
    negatives: Annotated[int | None, "items a positive is compared with (sampled losses)"] = None
    sampler: Annotated[SamplerName, "how negatives are drawn"] = "uniform"
    negative_weight: Annotated[
        float, "how much more negatives weigh than positives (softmax with a dot product; 1.2 may help sparse data)"
    ] = 1.0
    weight: Annotated[WeightName, "what weighs a rating in the loss"] = "none"
    moments: Annotated[
        MomentsName, "squares that Adam keeps: of each number, or one for each row of a table (saves a third of memory)"
    ] = "number"
    clip: Annotated[float | None, "largest norm of a step's gradient (default: no limit)"] = None
    patience: Annotated[
        int | None, "epochs without a better validation metric before the end; 0: never (default, or 8, by recipe)"
    ] = None
    refit: Annotated[bool, "fit again on train and validation for the best number of epochs"] = True
    seed: Annotated[int, "seed of everything random"] = 0
    device: Annotated[DeviceName, "where the tables live"] = "auto"
    threads: Annotated[int | None, "CPU threads (default: all cores)"] = None

    def __post_init__(self) -> None:
        _check_choices(self)
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("batch_users", 1),
            ("negatives", 1),
            ("patience", 0),
            ("seed", 0),
            ("threads", 1),
        ):
            value = getattr(self, name)
            check(value is None or value >= least, name, value, f"at least {least}")
        for name in ("lr", "clip"):
            value = getattr(self, name)
            check(value is None or 0 < value < math.inf, name, value, "above 0")
        for name in ("user_decay", "item_decay", "bias_decay", "content_decay", "content_pace", "balance"):
            value = getattr(self, name)
            check(value is None or 0 <= value < math.inf, name, value, "0 or more")
        check(0 < self.negative_weight < math.inf, "negative_weight", self.negative_weight, "above 0")
        check(self.dropout is None or 0 <= self.dropout < 1, "dropout", self.dropout, "from 0 to below 1")
        check(0 <= self.history_dropout < 1, "history_dropout", self.history_dropout, "from 0 to below 1")


@dataclass(frozen=True)
class TuneConfig:
    """How long settings are searched, which of them stay as they are, and what is kept."""

    minutes: Annotated[float | None, "end after so long (default: 10, or as long as --trials take)"] = None
    trials: Annotated[int | None, "end after so many trials of this call"] = None
    fix: Annotated[str | None, "settings that stay as they are, e.g. dim,epochs"] = None
    study: Annotated[str | None, "name of the search in studies/, and of its preset (default: DATASET-LOSS)"] = None
    preset: Annotated[str | None, "begin from named settings (recsys presets) or a .toml file; options win"] = None
    track: Annotated[bool, "record the search and its trials in MLflow"] = True
    tracking_uri: Annotated[str | None, "MLflow store (default: $MLFLOW_TRACKING_URI or sqlite:///mlflow.db)"] = None
    experiment: Annotated[str | None, "MLflow experiment (default: the data set's name)"] = None

    def __post_init__(self) -> None:
        check(self.minutes is None or 0 < self.minutes < math.inf, "minutes", self.minutes, "above 0")
        check(self.trials is None or self.trials >= 1, "trials", self.trials, "at least 1")
        good = self.study is None or re.fullmatch(r"\w[\w.-]*", self.study)
        check(bool(good), "study", self.study, "a name of letters, digits, dots and dashes")

    @property
    def seconds(self) -> float:
        """The time that a search may take."""
        return 60 * self.minutes if self.minutes else math.inf if self.trials else 600.0


@dataclass(frozen=True)
class RunConfig:
    """What is measured, kept and reported of a training."""

    preset: Annotated[str | None, "begin from named settings (recsys presets) or a .toml file; options win"] = None
    start: Annotated[str | None, "go on from a model folder: its vectors, biases and settings; options win"] = None
    ks: Annotated[str, "list lengths that the metrics are taken at"] = "5,10,20,50"
    resamples: Annotated[int, "bootstrap resamples of the users behind the 95 % intervals"] = 1000
    baselines: Annotated[bool, "measure popularity and EASE on the same split"] = True
    out: Annotated[str | None, "folder of the model, replacing one there (default: models/DATASET-LOSS-TIME)"] = None
    track: Annotated[bool, "record the run in MLflow"] = True
    map: Annotated[bool | None, "MLflow gets a map and projector files (default: up to 2,000 items)"] = None
    tracking_uri: Annotated[str | None, "MLflow store (default: $MLFLOW_TRACKING_URI or sqlite:///mlflow.db)"] = None
    experiment: Annotated[str | None, "MLflow experiment (default: the data set's name)"] = None
    register: Annotated[str | None, "register the model in MLflow: NAME, or NAME@ALIAS to give it an alias too"] = None

    def __post_init__(self) -> None:
        form = self.register is None or re.fullmatch(r"[^/:@]+(@[\w-]+)?", self.register)
        check(bool(form), "register", self.register, "NAME or NAME@ALIAS")
        check(self.track or not self.register, "track", "off", "on where --register is given")
        good = all(p.strip().isdecimal() and int(p) > 0 for p in self.ks.split(","))
        check(good, "ks", self.ks, "list lengths such as 5,10,20")
        check(self.resamples >= 0, "resamples", self.resamples, "0 or more")
        check(not (self.preset and self.start), "preset", "one with --continue", "given alone: each brings settings")

    @property
    def lengths(self) -> tuple[int, ...]:
        """The list lengths; 10 is always among them, since early stopping looks at it."""
        return tuple(sorted({10, *(int(k) for k in self.ks.split(","))}))


NO_RULES = Rules()
