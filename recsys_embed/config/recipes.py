"""Default settings: recipes that were chosen on validation data (experiments/LOG.md)."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, NamedTuple

from recsys_embed.config.fields import check, flag
from recsys_embed.config.settings import FitMethodName, ModelConfig, TrainConfig
from recsys_embed.errors import SettingError

# Hidden activations of an MLP that a step may hold: 256 MB, and about four times that with the gradient.
STEP_NUMBERS = 64_000_000
# Data with more (user, item) pairs get the sampled softmax by default: it is as good and quicker (experiments/LOG.md).
FULL_SOFTMAX_PAIRS = 32_000_000

# Settings tuned for each loss on validation data (experiments/LOG.md). A setting that is given overrides its recipe.
# batch_size is the minimum; batch_share is the share of the ratings that a step takes where that is more, so that an
# epoch has about ten steps whatever the data's size: what matters is the number of steps, not of ratings.
_SOFTMAX = {
    "dim": 128, "epochs": 10, "batch_size": 1024, "batch_share": 0.1, "lr": 0.03, "init_scale": 0.1, "dropout": 0.0,
    "user_decay": 4.0, "item_decay": 2.0, "bias_decay": 0.0, "content_decay": 8.0, "content_lr_scale": 0.3,
    "balance": 0.5,
}  # fmt: skip
_PAIRS = {
    "dim": 64, "epochs": 40, "batch_size": 8192, "batch_share": 0.0, "lr": 0.01, "init_scale": 0.1, "dropout": 0.0,
    "user_decay": 1.0, "item_decay": 1.0, "bias_decay": 0.0, "content_decay": 1.0, "content_lr_scale": 0.3,
    "balance": 0.0,
}  # fmt: skip
_MLP = {
    "dim": 32, "epochs": 10, "batch_size": 512, "batch_share": 0.0, "lr": 0.01, "init_scale": 0.1, "dropout": 0.0,
    "user_decay": 1.0, "item_decay": 1.0, "bias_decay": 0.0, "content_decay": 1.0, "content_lr_scale": 0.3,
    "balance": 0.5,
}  # fmt: skip
RECIPES: dict[tuple[str, str], dict[str, Any]] = {
    ("softmax", "dot"): _SOFTMAX,
    ("sampled-softmax", "dot"): {**_SOFTMAX, "negatives": 1024},
    ("bpr", "dot"): {**_PAIRS, "epochs": 30, "lr": 0.02, "user_decay": 3.0, "negatives": 4},
    ("logistic", "dot"): {**_PAIRS, "negatives": 8},
    ("mse", "dot"): {
        **_PAIRS,
        "epochs": 15,
        "batch_size": 1024,
        "user_decay": 1.5,
        "item_decay": 1.5,
        "bias_decay": 0.1,
    },
    ("softmax", "mlp"): _MLP,
    ("sampled-softmax", "mlp"): {**_MLP, "negatives": 128},
    ("bpr", "mlp"): {**_MLP, "negatives": 8},
    ("logistic", "mlp"): {**_MLP, "negatives": 8},
    ("mse", "mlp"): {**_MLP, "balance": 0.0, "bias_decay": 0.1},
}


# Differences for users represented by the sum of the items they rated. With these and with the cosine, the metric
# improves most while the learning rate falls at the end: a plateau in the middle is no reason to stop.
_HISTORY = {
    "dim": 256, "epochs": 40, "batch_users": 256, "lr": 0.01, "user_decay": 6.0, "item_decay": 6.0, "balance": 0.5,
    "patience": 0,
}  # fmt: skip


# Differences for the cosine. Rare items' short vectors are then normalized to the length of all others, so the tables
# need neither width nor strong decay to tell items apart. A bias would favour popular items; weight decay shrinks it
# to the size that helps.
_COSINE = {
    "dim": 128, "epochs": 40, "batch_users": 128, "lr": 0.03, "init_scale": 1.0, "dropout": 0.1,
    "user_decay": 2.0, "item_decay": 2.0, "bias_decay": 0.5, "balance": 0.5, "negatives": 2048,
    "patience": 0,
}  # fmt: skip


# Differences for a graph, where users and items share one table: a hub cannot be close to all of its neighbours, which
# are far from each other, so its bias must express its degree.
_GRAPH = {"bias_decay": 0.0, "user_decay": 1.0}


# Families of models with item neighbours, which are fitted beside embeddings.
HYBRIDS = ("auto", "neighbours", "ease", "both")


# Gibbs sampling for squared error (training/gibbs.py), and the settings that it uses; all others apply to Adam only.
_GIBBS = {"dim": 24, "epochs": 100}
_GIBBS_SETTINGS = (
    "model_family",
    "embeddings",
    "dim",
    "scorer",
    "loss",
    "method",
    "epochs",
    "patience",
    "refit",
    "seed",
    "device",
    "threads",
)


class Size(NamedTuple):
    """The size of a data set: users, items and training ratings.

    is_graph: users and items are the same nodes. is_weighted: rows have weights.
    """

    users: int
    items: int
    ratings: int
    is_graph: bool = False
    is_weighted: bool = False


def resolve_settings(
    model: ModelConfig, train: TrainConfig, size: Size, has_content: bool = False, trains_content: bool | None = None
) -> tuple[ModelConfig, TrainConfig]:
    """Return both configs with every None filled in from the recipe for the loss and scorer.

    has_content: whether items have descriptions; trains_content: whether these take part in training (default: if there
    are any). With method gibbs, Adam's settings stay None. Raises SettingError for settings that contradict each other.
    """
    model = replace(model, model_family=model.model_family or "embeddings")
    if model.model_family not in ("embeddings", *HYBRIDS):  # another family fills in its own settings
        return model, train
    loss = train.loss or default_loss(model.scorer, size)
    _check_family(model, loss, size.is_graph)
    recipe = RECIPES.get((loss, model.scorer))
    if recipe is None:
        pairs = ", ".join(f"{a} with {b}" for a, b in RECIPES)
        raise SettingError(f"loss {loss} does not go with scorer {model.scorer}; these do: {pairs}")
    if size.is_graph:
        _check_graph(model, train, loss, has_content)
    train = replace(train, method=_fit_method(model, train, loss, has_content, size.is_weighted))
    if train.method == "gibbs":
        dim, epochs = model.dim or _GIBBS["dim"], train.epochs or _GIBBS["epochs"]
        return replace(model, dim=dim), replace(train, loss="mse", epochs=epochs)
    ranked = loss in ("softmax", "sampled-softmax") and model.scorer == "dot"
    tower = model.user_tower or "id"
    for used, what in ((train.negative_weight != 1, "--negative-weight"), (tower != "id", f"--user-tower {tower}")):
        if used and not ranked:
            raise SettingError(f"{what} goes with --scorer dot and a softmax, not with {model.scorer} and {loss}")
    cosine = _default_cosine(ranked, tower, has_content, trains_content) if model.cosine is None else model.cosine
    if ranked and (tower != "id" or cosine):
        recipe = {**recipe, **(_HISTORY if tower != "id" else _cosine(size))}
    batch = max(recipe["batch_size"], round(size.ratings * recipe["batch_share"]))
    n_compared = {"softmax": size.items, "sampled-softmax": train.negatives or recipe.get("negatives", 0)}.get(loss, 1)
    width = sum(model.layers) if model.scorer == "mlp" else 1
    if min(batch, size.users) * n_compared * width > STEP_NUMBERS:
        batch = max(1, STEP_NUMBERS // (n_compared * width))
    temperature = model.temperature or (0.15 if cosine else 1.0)
    filled: dict[str, Any] = {"patience": 8, **recipe, "loss": loss, "temperature": temperature}
    filled |= {"user_tower": tower, "cosine": cosine}
    if size.is_graph:  # there is one table
        filled["item_decay"] = None
    # A step takes a batch of users or of ratings: what was given decides, then the recipe.
    by_users = train.batch_users or ("batch_users" in recipe and not train.batch_size)
    filled |= {"batch_size": None} if by_users else {"batch_size": batch, "batch_users": None}

    def fill(config: Any) -> Any:
        missing = {
            f.name: filled[f.name] for f in fields(config) if getattr(config, f.name) is None and f.name in filled
        }
        return replace(config, **missing)

    model, train = fill(model), fill(train)
    for name in ("user_decay", "item_decay", "bias_decay", "content_decay"):
        lr_scale = train.content_lr_scale if name == "content_decay" and train.content_lr_scale is not None else 1.0
        product = (train.lr or 0) * (getattr(train, name) or 0) * lr_scale
        check(product < 1, f"lr x {name}", f"{product:g}", "below 1")
    return model, train


def _default_cosine(ranked: bool, tower: str, has_content: bool, trains_content: bool | None) -> bool:
    return ranked and tower == "id" and not (has_content if trains_content is None else trains_content)


def embeddings_only(loss: str | None, is_graph: bool) -> str:
    """Return the setting because of which item neighbours cannot score beside embeddings, or nothing."""
    return "--shared-ids" if is_graph else f"--loss {loss}" if loss in ("mse", "logistic") else ""


def _check_family(model: ModelConfig, loss: str, is_graph: bool) -> None:
    """Raise SettingError for a family with item neighbours where only embeddings can score."""
    other = embeddings_only(loss, is_graph)
    if model.model_family in HYBRIDS[1:] and other:
        raise SettingError(f"--model-family {model.model_family} ranks, and does not go with {other}: embeddings does")
    if model.model_family not in ("neighbours", "ease") and not model.embeddings:
        raise SettingError("--no-embeddings goes with --model-family neighbours or ease")


def _check_graph(model: ModelConfig, train: TrainConfig, loss: str, has_content: bool) -> None:
    """Raise SettingError for settings that one table of nodes and undirected edges rules out."""
    tower = model.user_tower or "id"
    for used, what in (
        (model.scorer != "dot", f"--scorer {model.scorer}"),
        (loss == "mse", "--loss mse"),
        (tower != "id", f"--user-tower {tower}"),
        (has_content, "what describes items (--text, --item-vectors, --images)"),
        (train.item_decay is not None, "--item-decay (--user-decay is that of nodes)"),
    ):
        if used:
            raise SettingError(f"{what} does not go with --shared-ids: nodes have one table, and edges no direction")


def _cosine(size: Size) -> dict[str, Any]:
    """Return the cosine's recipe: more ratings need fewer epochs, since each epoch has more steps."""
    epochs = max(8, round(_COSINE["epochs"] * max(1.0, size.ratings / 100_000) ** -0.3))
    batch = min(512, max(_COSINE["batch_users"], size.users // 24))
    return {**_COSINE, **(_GRAPH if size.is_graph else {}), "epochs": epochs, "batch_users": batch}


def _fit_method(
    model: ModelConfig, train: TrainConfig, loss: str, has_content: bool, is_weighted: bool
) -> FitMethodName:
    """Return the method that fits the vectors. Raises SettingError for gibbs with settings that only Adam takes."""
    conflicts = [] if loss == "mse" else [f"--loss {loss}"]
    conflicts += [f"--scorer {model.scorer}"] if model.scorer != "dot" else []
    conflicts += ["descriptions of items"] if has_content else []
    conflicts += ["--weight-col"] if is_weighted else []
    for config in (model, train):
        for field in fields(config):
            if field.name not in _GIBBS_SETTINGS and getattr(config, field.name) != field.default:
                conflicts.append(flag(field.name, getattr(config, field.name) is not False))
    if train.method == "gibbs" and conflicts:
        raise SettingError(f"--method gibbs goes with --loss mse and --scorer dot, not with {', '.join(conflicts)}")
    return train.method or ("adam" if conflicts else "gibbs")


def default_loss(scorer: str, size: Size) -> str:
    """Return the loss that is used when none is named."""
    if scorer == "mlp":
        return "logistic"
    return "softmax" if size.users * size.items <= FULL_SOFTMAX_PAIRS else "sampled-softmax"
