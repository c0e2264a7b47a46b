"""What the settings are where nobody says: recipes that validation data chose (experiments/LOG.md)."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, NamedTuple

from recsys_embed.config.fields import check, flag
from recsys_embed.config.settings import FitName, ModelConfig, TrainConfig
from recsys_embed.errors import SettingError

# Hidden numbers of an MLP that a step may hold: 256 MB, and about four times that with the gradient. A world of more
# pairs of users and items than this gets the sampled softmax by default: comparing with all items takes its time.
STEP_NUMBERS = 64_000_000

# What a loss was tuned to, on validation data (experiments/LOG.md). A setting that is given wins over its recipe.
# batch_size is the least one; batch_share is the share of the ratings that a step takes when that is more, so that
# an epoch has about ten steps whatever the size: what counts is the number of steps and not of ratings.
_SOFTMAX = {
    "dim": 128, "epochs": 10, "batch_size": 1024, "batch_share": 0.1, "lr": 0.03, "init_scale": 0.1, "dropout": 0.0,
    "user_decay": 4.0, "item_decay": 2.0, "bias_decay": 0.0, "content_decay": 8.0, "content_pace": 0.3, "balance": 0.5,
}  # fmt: skip
_PAIRS = {
    "dim": 64, "epochs": 40, "batch_size": 8192, "batch_share": 0.0, "lr": 0.01, "init_scale": 0.1, "dropout": 0.0,
    "user_decay": 1.0, "item_decay": 1.0, "bias_decay": 0.0, "content_decay": 1.0, "content_pace": 0.3, "balance": 0.0,
}  # fmt: skip
_MLP = {
    "dim": 32, "epochs": 10, "batch_size": 512, "batch_share": 0.0, "lr": 0.01, "init_scale": 0.1, "dropout": 0.0,
    "user_decay": 1.0, "item_decay": 1.0, "bias_decay": 0.0, "content_decay": 1.0, "content_pace": 0.3, "balance": 0.5,
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


# What changes where a user is the sum of what they rated. Both of these get better most of all while the learning rate
# falls at the end: a pause in the middle is no reason to stop.
_HISTORY = {
    "dim": 256, "epochs": 40, "batch_users": 256, "lr": 0.01, "user_decay": 6.0, "item_decay": 6.0, "balance": 0.5,
    "patience": 0,
}  # fmt: skip


# What changes with the cosine. Short vectors of rare items are as long as all others then, and the tables need neither
# size nor strong decay to tell them apart. A bias would make the popular ones win; it fades, to what pays.
_COSINE = {
    "dim": 128, "epochs": 40, "batch_users": 128, "lr": 0.03, "init_scale": 1.0, "dropout": 0.1,
    "user_decay": 2.0, "item_decay": 2.0, "bias_decay": 0.5, "balance": 0.5, "negatives": 2048,
    "patience": 0,
}  # fmt: skip


# What changes where users and items are one table: a hub cannot be near to all of its neighbours, who are far from each
# other, so that its bias has to say how many it has.
_GRAPH = {"bias_decay": 0.0, "user_decay": 1.0}


# Gibbs samples of squared error (train/gibbs.py), and the settings that they know; all others are Adam's alone.
_GIBBS = {"dim": 24, "epochs": 100}
_GIBBS_KNOWS = ("dim", "scorer", "loss", "method", "epochs", "patience", "refit", "seed", "device", "threads")


class Size(NamedTuple):
    """How large a data set is: its users, items and training ratings. shared: users and items are the same nodes."""

    users: int
    items: int
    ratings: int
    shared: bool = False


def resolve_settings(
    model: ModelConfig, train: TrainConfig, size: Size, described: bool = False
) -> tuple[ModelConfig, TrainConfig]:
    """Return both settings with every None filled from the recipe of the loss and scorer.

    described: whether items have descriptions. With the method gibbs, settings of Adam stay None.
    """
    loss = train.loss or default_loss(model.scorer, size)
    known = RECIPES.get((loss, model.scorer))
    if known is None:
        pairs = ", ".join(f"{a} with {b}" for a, b in RECIPES)
        raise SettingError(f"loss {loss} does not go with scorer {model.scorer}; these do: {pairs}")
    if size.shared:
        _check_graph(model, train, loss, described)
    train = replace(train, method=_method(model, train, loss, described))
    if train.method == "gibbs":
        dim, epochs = model.dim or _GIBBS["dim"], train.epochs or _GIBBS["epochs"]
        return replace(model, dim=dim), replace(train, loss="mse", epochs=epochs)
    ranked = loss in ("softmax", "sampled-softmax") and model.scorer == "dot"
    tower = model.user_tower or "id"
    for used, what in ((train.negative_weight != 1, "--negative-weight"), (tower != "id", f"--user-tower {tower}")):
        if used and not ranked:
            raise SettingError(f"{what} goes with --scorer dot and a softmax, not with {model.scorer} and {loss}")
    cosine = (ranked and tower == "id" and not described) if model.cosine is None else model.cosine
    if ranked and (tower != "id" or cosine):
        known = {**known, **(_HISTORY if tower != "id" else _cosine(size))}
    batch = max(known["batch_size"], round(size.ratings * known["batch_share"]))
    compared = {"softmax": size.items, "sampled-softmax": train.negatives or known.get("negatives", 0)}.get(loss, 1)
    width = sum(model.layers) if model.scorer == "mlp" else 1
    if min(batch, size.users) * compared * width > STEP_NUMBERS:
        batch = max(1, STEP_NUMBERS // (compared * width))
    temperature = model.temperature or (0.15 if cosine else 1.0)
    filled: dict[str, Any] = {"patience": 8, **known, "loss": loss, "temperature": temperature}
    filled |= {"user_tower": tower, "cosine": cosine}
    if size.shared:  # there is one table
        filled["item_decay"] = None
    # Steps are of users or of ratings: what is given decides, and then the recipe.
    of_users = train.batch_users or ("batch_users" in known and not train.batch_size)
    filled |= {"batch_size": None} if of_users else {"batch_size": batch, "batch_users": None}

    def fill(config: Any) -> Any:
        missing = {
            f.name: filled[f.name] for f in fields(config) if getattr(config, f.name) is None and f.name in filled
        }
        return replace(config, **missing)

    model, train = fill(model), fill(train)
    for name in ("user_decay", "item_decay", "bias_decay", "content_decay"):
        pace = train.content_pace if name == "content_decay" and train.content_pace is not None else 1.0
        product = (train.lr or 0) * (getattr(train, name) or 0) * pace
        check(product < 1, f"lr x {name}", f"{product:g}", "below 1")
    return model, train


def _check_graph(model: ModelConfig, train: TrainConfig, loss: str, described: bool) -> None:
    """Raise SettingError for what does not go with one table of nodes and edges without direction."""
    tower = model.user_tower or "id"
    for used, what in (
        (model.scorer != "dot", f"--scorer {model.scorer}"),
        (loss == "mse", "--loss mse"),
        (tower != "id", f"--user-tower {tower}"),
        (described, "what describes items (--text, --item-vectors, --images)"),
        (train.item_decay is not None, "--item-decay (--user-decay is that of nodes)"),
    ):
        if used:
            raise SettingError(f"{what} does not go with --shared-ids: nodes have one table, and edges no direction")


def _cosine(size: Size) -> dict[str, Any]:
    """Return the recipe of the cosine: more ratings ask for fewer epochs, since each of those has more steps."""
    epochs = max(8, round(_COSINE["epochs"] * max(1.0, size.ratings / 100_000) ** -0.3))
    batch = min(512, max(_COSINE["batch_users"], size.users // 24))
    return {**_COSINE, **(_GRAPH if size.shared else {}), "epochs": epochs, "batch_users": batch}


def _method(model: ModelConfig, train: TrainConfig, loss: str, described: bool) -> FitName:
    """Return what finds the vectors; raise SettingError for a method gibbs that other settings do not go with."""
    against = [] if loss == "mse" else [f"--loss {loss}"]
    against += [f"--scorer {model.scorer}"] if model.scorer != "dot" else []
    against += ["descriptions of items"] if described else []
    for config in (model, train):
        for field in fields(config):
            if field.name not in _GIBBS_KNOWS and getattr(config, field.name) != field.default:
                against.append(flag(field.name, getattr(config, field.name) is not False))
    if train.method == "gibbs" and against:
        raise SettingError(f"--method gibbs goes with --loss mse and --scorer dot, not with {', '.join(against)}")
    return train.method or ("adam" if against else "gibbs")


def default_loss(scorer: str, size: Size) -> str:
    """Return the loss that is taken when none is named."""
    if scorer == "mlp":
        return "logistic"
    return "softmax" if size.users * size.items <= STEP_NUMBERS else "sampled-softmax"
