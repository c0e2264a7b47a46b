"""The model card: a Markdown page about a model, the README.md of its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recsys_embed.config.fields import short_name
from recsys_embed.models.hybrid import HybridModel, describe_share
from recsys_embed.state.verdict import counted, verdict

if TYPE_CHECKING:
    from recsys_embed.state.fitted import FittedState

_MEANINGS = {
    "score": "higher is better, for one user at a time; it has no unit",
    "stars": "the predicted rating",
    "chance": "log-odds that the user takes the item",
}


def model_card(state: FittedState) -> str:
    """Return the model card, in Markdown."""
    settings, metrics = state.metadata.get("settings", {}), state.metadata.get("metrics", {})
    lines = [
        f"# Recommendations from {short_name(state.metadata.get('dataset', 'ratings'))}",
        *_summary(metrics),
        "",
        f"{_sizes(state)}; "
        + (
            f"vectors of {state.model.dim} numbers; loss {settings.get('loss')}, scorer {settings.get('scorer')}, "
            f"{counted(state.metadata.get('epochs') or 0, 'epoch')}, seed {settings.get('seed')}."
            if state.model.dim
            else "no embeddings."
        ),
        *_provenance(state.metadata),
        "",
        f"A score means: {_MEANINGS[state.model.output]}.{_share(state)}{_trend(state)}",
    ]
    lines += _quality(metrics)
    if state.metadata.get("command"):
        lines += ["", "The same training again:", "", "```sh", state.metadata["command"], "```"]
    lines += [
        "",
        "Read it with `recsys_embed.Recommender.load(folder)` or `recsys recommend --model FOLDER`. The vectors",
        "stand in `vectors.safetensors`, the ids in `users.parquet` and `items.parquet`; reading executes nothing.",
    ]
    if state.metadata.get("terms"):
        lines += ["", f"Data: {state.metadata['terms']}"]
    return "\n".join(lines) + "\n"


def _share(state: FittedState) -> str:
    if not isinstance(state.model, HybridModel):
        return ""
    return f" It comes from {describe_share(state.model.family, state.model.share)}."


def _trend(state: FittedState) -> str:
    if state.trend is None:
        return ""
    return f" What is rated more lately than before scores higher (half-life {state.trend.half_life:g} days)."


def _sizes(state: FittedState) -> str:
    if state.is_graph:
        return f"{counted(len(state.users), 'node')}, {counted(len(state.seen) // 2, 'edge')}"
    sizes = (state.users, "user"), (state.items, "item"), (state.seen, "rating")
    return ", ".join(counted(len(of), what) for of, what in sizes)


def _provenance(metadata: dict[str, Any]) -> list[str]:
    """Return which model a warm start began from, and which updates came after training."""
    lines = []
    if production := metadata.get("production"):
        rows, measured = production["ratings"], production["measured_on"]
        lines += ["", f"Measured when fitted on {measured:,} ratings, then fitted on all {rows:,} for production."]
    if origin := metadata.get("continued"):
        model = f"the model {origin['model']}" if "model" in origin else "a model"
        new = f"{counted(origin['new_users'], 'user')} and {counted(origin['new_items'], 'item')} were new"
        lines += ["", f"The training went on from {model} of {str(origin.get('created', 'unknown date'))[:10]}; {new}."]
    if updates := metadata.get("updated"):
        new = f"{counted(updates['ratings'], 'rating')}, {counted(updates['new_users'], 'new user')}"
        lines += ["", f"After the training, without another one: {new}; the metrics are from before."]
    return lines


def _summary(metrics: dict[str, Any]) -> list[str]:
    """Return one sentence on the quality of the model and its baselines. It comes first: model lists show only it."""
    test, baselines = metrics.get("test"), metrics.get("baselines", {})
    if not test or not test["users"]:
        return []
    ratios = [
        f"{test['ndcg_at_10'] / baselines[name]['ndcg_at_10']:{form}} x {label} ({baselines[name]['ndcg_at_10']:.4f})"
        for name, label, form in (("popularity", "popularity", ".1f"), ("ease", "EASE", ".2f"))
        if baselines.get(name, {}).get("ndcg_at_10")
    ]
    rmse = f"RMSE {test['rmse']:.4f}; " if "rmse" in test else ""
    comparison = f": {', '.join(ratios)}" if ratios else ""
    lines = ["", f"**{rmse}NDCG@10 {test['ndcg_at_10']:.4f}{comparison}**"]
    found = verdict(metrics)
    return lines if found is None else [*lines, "", f"Verdict: {found.sentence}, user by user."]


def _quality(metrics: dict[str, Any]) -> list[str]:
    """Return a table of the quality of the model and its baselines, with intervals of the differences."""
    test, baselines = metrics.get("test"), metrics.get("baselines", {})
    if not test or not test["users"]:
        return []
    drawn = f" of {test['drawn_from']:,}, drawn at random" if "drawn_from" in test else ""
    users = f"{counted(test['users'], 'user')}{drawn}"
    lines = [
        "",
        f"On held-out test ratings of {users} (all items ranked, those fitted on left out):",
        "",
    ]
    names = [n for n in ("ndcg_at_10", "recall_at_10", "hit_at_10", "coverage_at_10", "rmse") if n in test]
    lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row, values in {"this model": test, **baselines}.items():
        cells = [f"{values[n]:.4f}" if n in values else "" for n in names]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    for name, values in baselines.items():
        if difference := values.get("difference"):
            text = f"{difference['mean']:+.4f}, 95 % interval {difference['low']:+.4f} to {difference['high']:+.4f}"
            first = name == next(iter(baselines))
            lines += [*([""] if first else []), f"- {difference['metric']} against {name}: {text}"]
    if metrics.get("cold"):
        models = {"this model": metrics["cold"], **metrics["cold"]["baselines"]}
        text = ", ".join(f"{row} {values['ndcg_at_10']:.4f}" for row, values in models.items())
        lines += ["", f"Items without a training rating, ranked among themselves, NDCG@10: {text}."]
    return lines
