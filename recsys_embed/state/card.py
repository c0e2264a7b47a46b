"""The model card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recsys_embed.config.fields import short_name

if TYPE_CHECKING:
    from recsys_embed.state.fitted import FittedState


_MEANINGS = {
    "score": "higher is better, for one user at a time; it has no unit",
    "stars": "the predicted rating",
    "chance": "log-odds that the user takes the item",
}


def model_card(state: FittedState) -> str:
    """Return the model card, in Markdown."""
    chosen, metrics = state.metadata.get("settings", {}), state.metadata.get("metrics", {})
    lines = [
        f"# Recommendations from {short_name(state.metadata.get('dataset', 'ratings'))}",
        *_summary(metrics),
        "",
        f"{_sizes(state)}; "
        f"vectors of {state.model.dim} numbers; loss {chosen.get('loss')}, scorer {chosen.get('scorer')}, "
        f"{state.metadata.get('epochs')} epochs, seed {chosen.get('seed')}.",
        *_before(state.metadata),
        "",
        f"A score means: {_MEANINGS[state.model.output]}.",
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


def _sizes(state: FittedState) -> str:
    if state.shared:
        return f"{len(state.users):,} nodes, {len(state.seen) // 2:,} edges"
    return f"{len(state.users):,} users, {len(state.items):,} items, {len(state.seen):,} ratings"


def _before(facts: dict[str, Any]) -> list[str]:
    """Return what the training went on from, and what came after it without training."""
    lines = []
    if went := facts.get("continued"):
        of = f"the model {went['model']}" if "model" in went else "a model"
        more = f"{went['new_users']:,} users and {went['new_items']:,} items were new"
        lines += ["", f"The training went on from {of} of {str(went.get('created', 'unknown date'))[:10]}; {more}."]
    if later := facts.get("updated"):
        more = f"{later['ratings']:,} ratings, {later['new_users']:,} new users"
        lines += ["", f"After the training, without another one: {more}; the metrics are from before."]
    return lines


def _summary(metrics: dict[str, Any]) -> list[str]:
    """Return how good the model is in a sentence, beside its baselines; it comes first, and lists show no more."""
    test, baselines = metrics.get("test"), metrics.get("baselines", {})
    if not test or not test["users"]:
        return []
    against = [
        f"{test['ndcg_at_10'] / baselines[name]['ndcg_at_10']:{form}} x {said} ({baselines[name]['ndcg_at_10']:.4f})"
        for name, said, form in (("popularity", "popularity", ".1f"), ("ease", "EASE", ".2f"))
        if baselines.get(name, {}).get("ndcg_at_10")
    ]
    stars = f"RMSE {test['rmse']:.4f}; " if "rmse" in test else ""
    beside = f": {', '.join(against)}" if against else ""
    return ["", f"**{stars}NDCG@10 {test['ndcg_at_10']:.4f}{beside}**"]


def _quality(metrics: dict[str, Any]) -> list[str]:
    """Return how good the model is as a table, beside its baselines, and how sure the difference is."""
    test, baselines = metrics.get("test"), metrics.get("baselines", {})
    if not test or not test["users"]:
        return []
    lines = [
        "",
        f"On held-out test ratings of {test['users']:,} users (all items ranked, those fitted on left out):",
        "",
    ]
    names = [n for n in ("ndcg_at_10", "recall_at_10", "hit_at_10", "coverage_at_10", "rmse") if n in test]
    lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row, values in {"this model": test, **baselines}.items():
        cells = [f"{values[n]:.4f}" if n in values else "" for n in names]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    for name, values in baselines.items():
        if found := values.get("difference"):
            span = f"{found['mean']:+.4f}, 95 % interval {found['low']:+.4f} to {found['high']:+.4f}"
            lines += [*([""] if name == next(iter(baselines)) else []), f"- {found['metric']} against {name}: {span}"]
    if metrics.get("cold"):
        sides = {"this model": metrics["cold"], **metrics["cold"]["baselines"]}
        found = ", ".join(f"{row} {values['ndcg_at_10']:.4f}" for row, values in sides.items())
        lines += ["", f"Items without a training rating, ranked among themselves, NDCG@10: {found}."]
    return lines
