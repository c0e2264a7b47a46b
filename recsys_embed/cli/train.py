"""recsys train: train, measure and save a model."""

from __future__ import annotations

from typing import Any

from recsys_embed.cli.evaluate_tables import print_cold
from recsys_embed.cli.options import JSON, with_settings
from recsys_embed.cli.output import TEST_METRICS, echo, p_text, print_json, print_table
from recsys_embed.config.settings import ContentConfig, DataConfig, ModelConfig, RunConfig, TrainConfig
from recsys_embed.distributed.launch import ranks_of
from recsys_embed.errors import NotRegistered
from recsys_embed.state.verdict import counted, verdict

# The options that --help shows; --help-all shows all.
_FIRST = (
    "items", "min_rating", "split", "event_weights", "target", "loss", "dim", "text",
    "out", "json",
)  # fmt: skip


@with_settings(
    _FIRST,
    positional="dataset",
    data=DataConfig,
    content=ContentConfig,
    model=ModelConfig,
    train=TrainConfig,
    run=RunConfig,
)
def train(
    data: DataConfig,
    content: ContentConfig,
    model: ModelConfig,
    train: TrainConfig,
    run: RunConfig,
    json: JSON = False,
) -> None:
    """Train a model on ratings, compare it with baselines, save it in models/ and track it in MLflow.

    Example: recsys train ratings.csv, or recsys train movielens
    """
    with ranks_of(train.engine, run.nproc) as leads:
        if leads:
            _train(data, content, model, train, run, json)


def _train(
    data: DataConfig, content: ContentConfig, model: ModelConfig, train: TrainConfig, run: RunConfig, json: bool
) -> None:
    from recsys_embed.experiment.run import run_experiment
    from recsys_embed.models.hybrid import describe_share

    recommender, report = run_experiment(data, model, train, run, content)
    if json:
        print_json(report)
        return _check_registered(report)
    metrics, seconds, settings = report["metrics"], report["seconds"], report["settings"]
    if metrics["test"]:
        test = metrics["test"]
        drawn = f" drawn from {test['drawn_from']:,} (--evaluate-all takes all)" if "drawn_from" in test else ""
        newest = " in the newest window" if metrics.get("windows") else ""
        users = f"test, {counted(test['users'], 'user')}{drawn}{newest}"
        hiding = recommender.state.event_types.hiding
        hidden = "" if hiding is None else f" of {', '.join(map(repr, hiding)) or 'no'} events"
        echo(f"{users} (all rated items are ranked, except the user's training items{hidden})")
        _print_metrics({"this model": metrics["test"], **metrics["baselines"]})
        _print_verdict(metrics, report["settings"]["model_family"])
        _print_liked(metrics)
        _print_by_history(metrics)
        if metrics.get("cold"):
            print_cold(metrics["cold"])
    _print_windows(metrics)
    if settings["model_family"] in ("neighbours", "ease", "both"):
        echo(f"scores come from {describe_share(settings['model_family'], settings['blend'])}")
    echo(
        f"{counted(report['epochs'], 'epoch')}; data {seconds['data']:.1f} s, fit {seconds['fit']:.1f} s, "
        f"evaluation {seconds['evaluate']:.1f} s",
        dim=True,
    )
    echo(f"model  {report['model']}")
    if report["run_id"]:
        echo(f"run    {report['run_id']}   (recsys ui shows it)")
    return _check_registered(report)


def _check_registered(report: dict[str, Any]) -> None:
    """Raise NotRegistered where a model was to be registered and is not."""
    registration = report["registration"]
    if registration and not registration["registered"]:
        raise NotRegistered(f"the model was not registered as {registration['target']}: {registration['reason']}")


def _print_metrics(rows: dict[str, dict[str, Any]]) -> None:
    names = [n for n in TEST_METRICS if any(n in values for values in rows.values())]
    first = next(iter(rows.values()))
    low, high = first["intervals"].get("ndcg_at_10", (None, None))
    lines = [[row, *(f"{v[n]:.4f}" if n in v else "" for n in names)] for row, v in rows.items()]
    print_table(["", *names], lines, " ".join(names))
    if low is not None:
        echo(f"95 % interval of this model's ndcg_at_10: {low:.4f} to {high:.4f}")


# What to try where a baseline is better than the model.
_ADVICE = {
    "ease": "try --model-family ease, or recsys tune",
    "popularity": "there may be too few ratings per user for more; recsys tune may find better settings",
    "recent_popularity": "tastes change here: judge with --split time, and train on recent ratings",
}


def _print_verdict(metrics: dict[str, Any], family: str) -> None:
    """Print whether the model is better than the best baseline, by the paired difference, and what to try if not."""
    found = verdict(metrics)
    if found is None:
        return
    span = f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    echo(f"against {found.label}, user by user: {span} in {found.metric}, {p_text(found.p)}")
    advice = "" if found.baseline == family else _ADVICE.get(found.baseline, "")
    if found.baseline == "ease" and family == "embeddings":
        advice = "try --model-family auto"
    advice = f"; {advice or 'recsys tune may find better settings'}" if found.is_worse else ""
    echo(f"verdict: {found.sentence}{advice}")


def _print_by_history(metrics: dict[str, Any]) -> None:
    """Print how test users with and without a rating in training fare, and those of each type of events, and how many
    test ratings nobody can predict."""
    for name, what in (("known_users", "with"), ("new_users", "without")):
        if group := metrics.get(name):
            _print_group(f"{what} a rating in training", group)
    for name, group in metrics.get("events", {}).items():
        _print_group(f"with {name!r} events in the test", group)
    if metrics["test"]["left_out"]:
        left_out = counted(metrics["test"]["left_out"], "test rating")
        echo(f"left out: {left_out} of items without a rating in training", dim=True)


def _print_group(what: str, group: dict[str, Any]) -> None:
    own, *others = group["ndcg_at_10"].items()
    text = ", ".join(f"{other} {value:.4f}" for other, value in others)
    echo(f"{counted(group['users'], 'user')} {what}: ndcg_at_10 {own[1]:.4f}" + f" ({text})" * bool(text))


def _print_windows(metrics: dict[str, Any]) -> None:
    windows = metrics.get("windows")
    if not windows:
        return
    names = list(windows["mean"])
    lines = [[row["span"], f"{row['users']:,}", *(f"{row[n]:.4f}" for n in names)] for row in windows["each"]]
    lines.append(["mean", "", *(f"{windows['mean'][n]:.4f}" for n in names)])
    echo(f"ndcg_at_10 in {len(windows['each'])} windows")
    print_table(["test window", "users", *names], lines, " ".join(("users", *names)))
    for name, found in windows["differences"].items():
        span = f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}], {p_text(found['p'])}"
        echo(f"in all windows against {name}, user by user: {span}")


def _print_liked(metrics: dict[str, Any]) -> None:
    liked = metrics["liked"]
    if not liked:
        return
    others = ", ".join(
        f"{name} {values['liked_ndcg_at_10']:.4f}"
        for name, values in metrics["baselines"].items()
        if "liked_ndcg_at_10" in values
    )
    echo(
        f"liked (rated {liked['threshold']:g} or more): ndcg_at_10 {liked['ndcg_at_10']:.4f}"
        + (f" ({others})" if others else "")
    )
