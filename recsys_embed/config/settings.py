"""All settings, each declared once: options, JSON, MLflow parameters and checks are derived from these fields."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from recsys_embed.config.addresses import hide_passwords, several_locations
from recsys_embed.config.amounts import read_bytes, read_seconds
from recsys_embed.config.fields import check, check_choices, flag, parse_names

SplitName = Literal["random", "leave-last", "time", "cold-items"]
ScorerName = Literal["dot", "mlp"]
UserTowerName = Literal["id", "history", "both"]
LossName = Literal["softmax", "sampled-softmax", "bpr", "logistic", "mse"]
SamplerName = Literal["uniform", "popularity"]
DeviceName = Literal["auto", "cpu", "cuda"]
DuplicatesName = Literal["last", "first", "mean", "sum", "error"]
SampleWeightName = Literal["none", "rating"]
SecondMomentName = Literal["number", "row"]
EngineName = Literal["local", "torchrec"]
ShardingName = Literal["auto", "row-wise", "table-wise"]
FitMethodName = Literal["adam", "gibbs"]
# The weights of events, if they are to be chosen.
AUTO = "auto"


@dataclass(frozen=True)
class DataConfig:
    """Where ratings come from, what their columns are, and how they are split."""

    dataset: Annotated[
        str, "name of a data set, or your data: a file, a folder or pattern of files, - (standard input), an address"
    ] = "movielens"
    query: Annotated[str | None, "SQL query whose rows are the data, if --dataset is a database"] = None
    valid: Annotated[str | None, "file of validation ratings, instead of a split"] = None
    test: Annotated[str | None, "file of test ratings, instead of a split"] = None
    extra_ratings: Annotated[
        str | None, "files of more ratings, separated by ;, such as the events.db of recsys serve"
    ] = None
    items: Annotated[str | None, "file with one row per item: its id, title, …"] = None
    columns: Annotated[str | None, "column names of a file without a header: user,item,rating,timestamp"] = None
    item_columns: Annotated[str | None, "column names of an --items file without a header: id,title,…"] = None
    user_col: Annotated[str | None, "name of the user column, if unusual"] = None
    item_col: Annotated[str | None, "name of the item column, if unusual"] = None
    rating_col: Annotated[str | None, "name of the rating column, if unusual"] = None
    time_col: Annotated[str | None, "name of the time column, if unusual, or of a date and a time: date,time"] = None
    time_format: Annotated[
        str | None, "how dates are written, where their content leaves it open: %d/%m/%Y or another strptime format"
    ] = None
    weight_col: Annotated[
        str | None, "column of how much each row counts in training, above 0 (default: all alike)"
    ] = None
    event_col: Annotated[str | None, "an event log: the column of event types, such as view, cart, purchase"] = None
    event_weights: Annotated[
        str | None,
        "what an event counts in training: view=1,cart=3,purchase=10, or auto (chosen on validation data); types that "
        "are not named do not count (default: all alike)",
    ] = None
    target: Annotated[str | None, "types of events that lists are measured by: purchase, or cart,purchase"] = None
    hide: Annotated[
        str | None, "types of events after which an item is not recommended again (default: those of --target, or all)"
    ] = None
    max_age: Annotated[
        str | None, "leave out what is older than this before the newest row, such as 90d (default: nothing)"
    ] = None
    duplicates: Annotated[DuplicatesName, "how repeated rows of a user and item are merged"] = "last"
    shared_ids: Annotated[bool, "a graph: both id columns name nodes of one kind; a row is an undirected edge"] = False
    split: Annotated[SplitName, "how ratings are held out"] = "random"
    valid_share: Annotated[float, "share of the ratings held out for validation"] = 0.1
    test_share: Annotated[float, "share of the ratings held out for test"] = 0.1
    windows: Annotated[int, "--split time: measure in so many test windows, the newest ones, one after the other"] = 1
    window: Annotated[
        str | None, "--split time: length of a window, such as 12h, 7d or 4w (default: --test-share of the ratings)"
    ] = None
    cold_share: Annotated[float, "share of the items that --split cold-items leaves without a training rating"] = 0.2
    split_seed: Annotated[int | None, "seed of the random split (default: --seed)"] = None
    min_rating: Annotated[float | None, "lowest rating that is a positive (default: all ratings are positives)"] = None
    liked: Annotated[float | None, "lowest rating that counts as liked in metrics.liked (default: 4 of 5)"] = None
    memory_limit: Annotated[
        str | None,
        "memory that the training may take, such as 8GB: ratings in Parquet that are longer are read, split and "
        "trained on from disk (default: what is free)",
    ] = None
    data_dir: Annotated[str | None, "folder of downloads (default: $RECSYS_DATA, ./data, or the user's cache)"] = None
    offline: Annotated[bool, "never use the network"] = False

    def __post_init__(self) -> None:
        hide_passwords(self, ("dataset", "valid", "test", "extra_ratings", "items"))
        several_locations(self.extra_ratings or "")
        check_choices(self)
        check(0 < self.cold_share < 1, "cold_share", self.cold_share, "above 0 and below 1")
        files = self.split == "cold-items" and (self.valid or self.test)
        check(not files, "split", "cold-items with --valid or --test", "another one with files of held-out ratings")
        for name in ("valid_share", "test_share"):
            check(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")
        for name in ("min_rating", "liked"):
            value = getattr(self, name)
            check(value is None or math.isfinite(value), name, value, "a number")
        check(
            self.time_format in (None, "excel") or bool(re.search(r"%-?[dejDFcxs+]", self.time_format or "")),
            "time_format", self.time_format, "a strptime format with a day, such as %d/%m/%Y, or excel",
        )  # fmt: skip
        check(self.valid_share + self.test_share < 1, "valid_share + test_share", "1 or more", "below 1")
        self.weights_of_events, self.window_seconds, self.max_age_seconds, self.memory_bytes  # noqa: B018
        self._check_windows()
        options = {name: getattr(self, name) for name in ("event_col", "event_weights", "target", "hide")}
        apart = ("shared_ids", "valid", "test", "weight_col", "rating_col")
        for other in apart if self.is_event_log else ():
            given = next(option for option, value in options.items() if value is not None)
            check(not getattr(self, other), given, f"one with {flag(other)}", "without it: an event log goes without")

    def _check_windows(self) -> None:
        check(self.windows >= 1, "windows", self.windows, "at least 1")
        if self.windows == 1 and self.window is None:
            return
        option = "windows" if self.windows > 1 else "window"
        check(self.split == "time", option, f"one with --split {self.split}", "with --split time")
        held_out_files = bool(self.valid or self.test)
        check(not held_out_files, option, "one with --valid or --test", "without files of held-out ratings")
        check(self.test_share > 0, "test_share", f"0 with --{option}", "above 0")
        total = self.valid_share + self.windows * self.test_share
        check(bool(self.window) or total < 1, "valid_share + windows x test_share", f"{total:g}", "below 1")

    @property
    def is_event_log(self) -> bool:
        """Whether the data are events of several types."""
        return any(option is not None for option in (self.event_col, self.event_weights, self.target, self.hide))

    @property
    def window_seconds(self) -> int | None:
        """The length of a window in seconds, or None if windows are shares of the ratings."""
        return read_seconds("window", self.window)

    @property
    def memory_bytes(self) -> int | None:
        """The memory that the training may take, or None: what is free."""
        return read_bytes("memory_limit", self.memory_limit)

    @property
    def max_age_seconds(self) -> int | None:
        """The age of rows in seconds from which they are left out, or None."""
        return read_seconds("max_age", self.max_age)

    @property
    def weights_of_events(self) -> dict[str, float] | None:
        """The weights of event types, by name; None if they are not given one by one."""
        if self.event_weights in (None, AUTO):
            return None
        weights: dict[str, float] = {}
        seen: set[str] = set()
        for pair in (self.event_weights or "").split(","):
            name, equals, value = pair.rpartition("=")
            try:
                weights[name.strip()] = float(value)
            except ValueError:
                equals = ""
            valid = equals and name.strip() and 0 <= weights[name.strip()] < math.inf and name.strip() not in seen
            seen.add(name.strip())
            check(bool(valid), "event_weights", self.event_weights, "auto, or weights from 0 up: view=1,purchase=10")
        return weights

    @staticmethod
    def names_of(text: str | None) -> list[str]:
        """Return the names in a list with commas."""
        return [name.strip() for name in (text or "").split(",") if name.strip()]


@dataclass(frozen=True)
class ModelConfig:
    """The model's structure. None means: the recipe's value (`recipes.resolve_settings`)."""

    model_family: Annotated[
        str | None,
        "what scores: embeddings, neighbours (of items), both, ease, or auto: the best on validation data",
    ] = None
    dim: Annotated[int | None, "width of every embedding"] = None
    scorer: Annotated[ScorerName, "how two vectors become a score"] = "dot"
    user_tower: Annotated[
        UserTowerName | None,
        "what a user's vector is: one of their own (default), the sum of the items they rated, or both",
    ] = None
    cosine: Annotated[bool | None, "score by cosine, not dot product (default: with a softmax and ids alone)"] = None
    temperature: Annotated[float | None, "divisor of the scores (default: 1, with --cosine 0.15)"] = None
    mlp_layers: Annotated[str, "layer sizes of the mlp scorer"] = "64,32"
    biases: Annotated[bool, "give every user and item a bias"] = True
    init_scale: Annotated[float | None, "standard deviation of the initial vectors' length"] = None
    embeddings: Annotated[bool, "train embeddings beside item neighbours or ease too: similar and maps use them"] = True
    neighbours: Annotated[int | None, "most neighbours of an item (default: 200; 100 of over 50,000 items)"] = None
    l2: Annotated[float | None, "ridge penalty of item neighbours and ease (default: chosen on validation)"] = None
    l2_share: Annotated[
        float | None, "more penalty for a neighbour with more ratings: this share of their number (default: chosen)"
    ] = None
    popularity_power: Annotated[
        float | None, "neighbours: power of an item's ratings that divides what 50 items add to it (default: chosen)"
    ] = None
    blend: Annotated[
        float | None, "share of the neighbours in the score, from 0 to 1, the rest is the embeddings' (default: chosen)"
    ] = None

    half_life: Annotated[
        float | None,
        "days after which a rating counts half in an item's trend; 0: no trend (default: chosen where the validation "
        "part is later than the training part)",
    ] = None
    trend: Annotated[
        float | None, "how much an item's trend counts, in standard deviations of the scores (default: chosen, or 1.4)"
    ] = None

    def __post_init__(self) -> None:
        check_choices(self)
        check(self.neighbours is None or 1 <= self.neighbours <= 2_000, "neighbours", self.neighbours, "from 1 to 2000")
        for name in ("l2", "l2_share", "popularity_power", "half_life", "trend"):
            value = getattr(self, name)
            check(value is None or 0 <= value < math.inf, name, value, "0 or more")
        check(self.blend is None or 0 <= self.blend <= 1, "blend", self.blend, "from 0 to 1")
        check(self.dim is None or 1 <= self.dim <= 65_536, "dim", self.dim, "from 1 to 65536")
        check(not (self.cosine and self.scorer == "mlp"), "scorer", "mlp with --cosine", "dot with --cosine")
        check(self.temperature is None or self.temperature > 0, "temperature", self.temperature, "above 0")
        sizes = self.mlp_layers.split(",")
        valid = all(size.strip().isdecimal() and int(size) > 0 for size in sizes)
        check(valid, "mlp_layers", self.mlp_layers, "sizes such as 64,32")

    @property
    def layers(self) -> tuple[int, ...]:
        """The layer sizes of the mlp scorer."""
        return tuple(int(size) for size in self.mlp_layers.split(","))


@dataclass(frozen=True)
class ContentConfig:
    """Item content besides ratings, and how it is turned into vectors."""

    text: Annotated[str | None, "columns of the item table that describe items, e.g. title,genres,plot"] = None
    tags: Annotated[str | None, "columns of --text to read as lists of tags, if not recognized as such"] = None
    words: Annotated[str | None, "columns of --text to read as words, if not recognized as such"] = None
    vectors: Annotated[str | None, "word vectors: glove-6b-50d, or a GloVe, word2vec or fastText file"] = None
    train_words: Annotated[bool, "train the word vectors too"] = False
    item_vectors: Annotated[str | None, "file of precomputed item vectors: .parquet, or .npy with ids beside it"] = None
    images: Annotated[str | None, "folder of item pictures, named by item id"] = None
    image_size: Annotated[int, "width and height in pixels that pictures are scaled to"] = 32
    tower_hidden: Annotated[int, "size of the hidden layer between descriptions and vectors; 0: none"] = 0
    id_dropout: Annotated[float, "share of the items whose id a step leaves out, so that descriptions learn"] = 0.3
    content_tower: Annotated[
        bool | None,
        "descriptions take part in training; otherwise vectors are regressed on them afterwards, and no list of rated "
        "items changes (default: they do if pictures, words or hidden layers are trained)",
    ] = None

    def __post_init__(self) -> None:
        check(8 <= self.image_size <= 256, "image_size", self.image_size, "from 8 to 256")
        check(0 <= self.tower_hidden <= 65_536, "tower_hidden", self.tower_hidden, "from 0 to 65536")
        check(0 <= self.id_dropout < 1, "id_dropout", self.id_dropout, "from 0 to below 1")
        named = set(self.columns)
        for option in ("tags", "words"):
            extra = set(parse_names(getattr(self, option))) - named
            check(not extra, option, ", ".join(sorted(extra)), "columns that --text names")
        needs_tower = next((name for name in ("images", "train_words", "tower_hidden") if getattr(self, name)), None)
        check(not needs_tower or self.content_tower is not False, "content-tower", "off", f"on with {needs_tower}")
        if self.vectors or self.train_words:
            check(bool(named), "text", "nothing", "columns with --vectors or --train-words")
        check(bool(self.vectors) or not self.train_words, "vectors", "nothing", "a name or file with --train-words")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the item table that describe items."""
        return parse_names(self.text)

    @property
    def any(self) -> bool:
        """Whether items have any content."""
        return bool(self.columns or self.item_vectors or self.images)

    @property
    def trains(self) -> bool:
        """Whether items have content that takes part in training."""
        needed = bool(self.images or self.train_words or self.tower_hidden)
        return self.any and (needed if self.content_tower is None else self.content_tower)


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained. None means: the recipe's value (`recipes.resolve_settings`)."""

    loss: Annotated[
        LossName | None, "loss to minimize (default: softmax, sampled for many items; logistic for mlp)"
    ] = None
    method: Annotated[
        FitMethodName | None,
        "adam: gradient steps; gibbs: means of samples (default for mse if no setting of adam's own is given)",
    ] = None
    epochs: Annotated[int | None, "most epochs; early stopping may end sooner (gibbs: samples)"] = None
    batch_size: Annotated[int | None, "ratings per step (default unless a step takes users)"] = None
    batch_users: Annotated[
        int | None, "instead: users per step, with all their ratings (default with a cosine or histories)"
    ] = None
    history_dropout: Annotated[float, "share of a user's ratings left out of their vector in a step (history)"] = 0.5
    lr: Annotated[float | None, "learning rate of Adam"] = None
    user_decay: Annotated[float | None, "decoupled weight decay of user vectors: lr x this in each step"] = None
    item_decay: Annotated[float | None, "weight decay of item vectors"] = None
    bias_decay: Annotated[float | None, "weight decay of biases and of the scorer's weights"] = None
    content_decay: Annotated[float | None, "weight decay of the layers that turn content into vectors"] = None
    content_lr_scale: Annotated[float | None, "learning rate of the content layers, as a share of --lr"] = None
    balance: Annotated[float | None, "a rating weighs (number of its user's ratings) to the power of minus this"] = None
    dropout: Annotated[float | None, "share of the vectors' elements left out in a step"] = None
    negatives: Annotated[int | None, "negative items that each positive is compared with (sampled losses)"] = None
    sampler: Annotated[SamplerName, "how negatives are drawn"] = "uniform"
    negative_weight: Annotated[
        float, "weight of negatives relative to positives (softmax with a dot product; 1.2 may help sparse data)"
    ] = 1.0
    sample_weight: Annotated[SampleWeightName, "weight of a rating in the loss"] = "none"
    second_moment: Annotated[
        SecondMomentName, "Adam's squared gradients: one per number, or one per table row (saves a third of the memory)"
    ] = "number"
    max_grad_norm: Annotated[float | None, "largest norm of a step's gradient (default: no limit)"] = None
    patience: Annotated[
        int | None, "epochs without a better validation metric before stopping; 0: never (default: 0 or 8, by recipe)"
    ] = None
    refit: Annotated[bool, "then fit on train and validation together, from the first fit where that is as good"] = True
    seed: Annotated[int, "random seed"] = 0
    device: Annotated[DeviceName, "device that holds the tables"] = "auto"
    threads: Annotated[int | None, "CPU threads (default: all cores)"] = None
    engine: Annotated[
        EngineName, "what trains the tables: this process, or torchrec, which spreads them over --nproc or torchrun's"
    ] = "local"
    sharding: Annotated[
        ShardingName, "torchrec: each table spread over all processes, whole tables, or what its planner chooses"
    ] = "auto"

    def __post_init__(self) -> None:
        check_choices(self)
        minimums = dict.fromkeys(("epochs", "batch_size", "batch_users", "negatives", "threads"), 1)
        for name, minimum in {**minimums, "patience": 0, "seed": 0}.items():
            value = getattr(self, name)
            check(value is None or value >= minimum, name, value, f"at least {minimum}")
        for name in ("lr", "max_grad_norm"):
            value = getattr(self, name)
            check(value is None or 0 < value < math.inf, name, value, "above 0")
        for name in ("user_decay", "item_decay", "bias_decay", "content_decay", "content_lr_scale", "balance"):
            value = getattr(self, name)
            check(value is None or 0 <= value < math.inf, name, value, "0 or more")
        check(0 < self.negative_weight < math.inf, "negative_weight", self.negative_weight, "above 0")
        check(self.dropout is None or 0 <= self.dropout < 1, "dropout", self.dropout, "from 0 to below 1")
        check(0 <= self.history_dropout < 1, "history_dropout", self.history_dropout, "from 0 to below 1")


@dataclass(frozen=True)
class RunConfig:
    """What a training starts from, and what it measures, saves and reports."""

    preset: Annotated[str | None, "start from named settings (recsys presets) or a .toml file; options win"] = None
    warm_start: Annotated[
        str | None, "start from a model folder, or models:/NAME@ALIAS: its vectors, biases and settings; options win"
    ] = None
    ks: Annotated[str, "list lengths at which metrics are measured"] = "5,10,20,50"
    resamples: Annotated[int, "bootstrap resamples of the users for the 95 % intervals"] = 1000
    baselines: Annotated[bool, "measure popularity and EASE on the same split"] = True
    evaluate_all: Annotated[bool, "measure all test users (default: 200,000 at random, if there are more)"] = False
    out: Annotated[str | None, "folder of the model, replacing one there (default: models/DATASET-LOSS-TIME)"] = None
    checkpoint_every: Annotated[float | None, "minutes between checkpoints, for --resume (default: none)"] = None
    resume: Annotated[bool, "go on from the checkpoints that the same command has left, and write more"] = False
    nproc: Annotated[int | None, "--engine torchrec: processes on this machine (default: 1, or torchrun's)"] = None
    track: Annotated[bool, "record the run in MLflow"] = True
    map: Annotated[bool | None, "log a map and projector files to MLflow (default: up to 2,000 items)"] = None
    tracking_uri: Annotated[str | None, "MLflow store (default: $MLFLOW_TRACKING_URI or sqlite:///mlflow.db)"] = None
    experiment: Annotated[str | None, "MLflow experiment (default: the data set's name)"] = None
    for_production: Annotated[
        bool, "once the model is measured, fit it again on everything, the test part included: that is the one saved"
    ] = False
    register: Annotated[
        str | None,
        "register the model in MLflow: NAME, or NAME@ALIAS to give it an alias too; not if it is clearly worse than "
        "popularity, or than the model that has the alias",
    ] = None
    allow_worse: Annotated[bool, "register the model even if it is clearly worse"] = False

    def __post_init__(self) -> None:
        match = self.register is None or re.fullmatch(r"[^/:@]+(@[\w-]+)?", self.register)
        check(bool(match), "register", self.register, "NAME or NAME@ALIAS")
        alias = (self.register or "").partition("@")[2].lower()
        reserved = alias == "latest" or re.fullmatch(r"v\d+", alias)
        check(not reserved, "register", self.register, "another alias: MLflow keeps latest and v1, v2, … for itself")
        check(self.track or not self.register, "track", "off", "on with --register")
        valid = all(k.strip().isdecimal() and int(k) > 0 for k in self.ks.split(","))
        check(valid, "ks", self.ks, "list lengths such as 5,10,20")
        minutes = self.checkpoint_every
        check(minutes is None or 0 <= minutes < math.inf, "checkpoint_every", minutes, "0 minutes or more")
        check(self.nproc is None or self.nproc >= 1, "nproc", self.nproc, "at least 1")
        check(self.resamples >= 0, "resamples", self.resamples, "0 or more")
        both = bool(self.preset and self.warm_start)
        check(not both, "preset", "one with --warm-start", "given alone: each brings settings")

    @property
    def lengths(self) -> tuple[int, ...]:
        """The list lengths; 10 is always included, since early stopping monitors it."""
        return tuple(sorted({10, *(int(k) for k in self.ks.split(","))}))
