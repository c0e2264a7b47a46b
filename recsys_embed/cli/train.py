"""recsys train and recsys evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recsys_embed.cli.options import JSON, with_settings
from recsys_embed.cli.output import SHOWN, say, say_json, say_table
from recsys_embed.config.settings import ContentConfig, DataConfig, ModelConfig, RunConfig, TrainConfig

if TYPE_CHECKING:
    pass


@with_settings(data=DataConfig, content=ContentConfig, model=ModelConfig, train=TrainConfig, run=RunConfig)
def train(
    data: DataConfig,
    content: ContentConfig,
    model: ModelConfig,
    train: TrainConfig,
    run: RunConfig,
    json: JSON = False,
) -> None:
    """Train a model on ratings, measure it beside baselines, save it under models/ and track it in MLflow.

    Example: recsys train --dataset movielens
    """
    from recsys_embed.experiment.run import run_experiment

    _, report = run_experiment(data, model, train, run, content)
    if json:
        return say_json(report)
    metrics, seconds = report["metrics"], report["seconds"]
    if metrics["test"]:
        say(f"test, {metrics['test']['users']:,} users (all items with ratings ranked, those fitted on left out)")
        _say_metrics({"this model": metrics["test"], **metrics["baselines"]})
        _say_against(metrics["baselines"])
        _say_liked(metrics)
        _say_cold(metrics)
    say(
        f"{report['epochs']} epochs; data {seconds['data']:.1f} s, fit {seconds['fit']:.1f} s, "
        f"evaluation {seconds['evaluate']:.1f} s",
        dim=True,
    )
    say(f"model  {report['model']}")
    if report["run_id"]:
        say(f"run    {report['run_id']}   (recsys ui shows it)")
    return None


def _say_metrics(rows: dict[str, dict[str, Any]]) -> None:
    names = [n for n in SHOWN if any(n in values for values in rows.values())]
    first = next(iter(rows.values()))
    low, high = first["intervals"].get("ndcg_at_10", (None, None))
    table = [[row, *(f"{v[n]:.4f}" if n in v else "" for n in names)] for row, v in rows.items()]
    say_table(["", *names], table, " ".join(names))
    if low is not None:
        say(f"95 % interval of this model's ndcg_at_10: {low:.4f} to {high:.4f}")


def _say_against(baselines: dict[str, Any]) -> None:
    """Print how far the model is above the strongest baseline that was measured, with the paired interval."""
    found = baselines.get("ease", baselines.get("popularity", {})).get("difference")
    if found:
        name = "EASE" if "ease" in baselines else "popularity"
        span = f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"
        sure = "clear" if found["clear"] else "not clear"
        say(f"against {name}, user by user: {span} in {found['metric']}, p {found['p']:.3f}: {sure}")


def _say_liked(metrics: dict[str, Any]) -> None:
    liked = metrics["liked"]
    if not liked:
        return
    others = ", ".join(
        f"{name} {values['liked_ndcg_at_10']:.4f}"
        for name, values in metrics["baselines"].items()
        if "liked_ndcg_at_10" in values
    )
    say(
        f"liked (rated {liked['threshold']:g} or more): ndcg_at_10 {liked['ndcg_at_10']:.4f}"
        + (f" ({others})" if others else "")
    )


def _say_cold(metrics: dict[str, Any]) -> None:
    cold = metrics.get("cold")
    if not cold:
        return
    names = ("ndcg_at_10", "recall_at_20", "auc")
    say(f"cold: {cold['items']:,} items without a training rating, {cold['users']:,} users, ranked among themselves")
    say("(behind them, all: known and cold items ranked together)")
    lines = [
        [row, *(f"{part[n]:.4f}" for part in (values, values["all"]) for n in names)]
        for row, values in {"this model": cold, **cold["baselines"]}.items()
    ]
    heads = ["", *names, *(f"all {n}" for n in names)]
    say_table(heads, lines, "ndcg_at_10 recall_at_20 auc")
