"""tune(): trials until the time is over, judged on validation data alone. The test part never gets here."""

from __future__ import annotations

import contextlib
import logging
import math
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from recsys_embed.config.fields import command, flag, names_of, settings, short_name
from recsys_embed.config.recipes import Size, resolve_settings
from recsys_embed.config.settings import ContentConfig, DataConfig, ModelConfig, RunConfig, TrainConfig, TuneConfig
from recsys_embed.data.dataset import Dataset
from recsys_embed.errors import DataError, SettingError, TrainingError
from recsys_embed.experiment import publish
from recsys_embed.experiment.prepare import Prepared, check_loss, prepare, preset_settings, size_of, start_torch
from recsys_embed.experiment.refit import validation
from recsys_embed.presets import OWN, SETTINGS, Preset, write_preset
from recsys_embed.recommender import Recommender
from recsys_embed.storage.json import jsonable
from recsys_embed.tracking.progress import BarTracker
from recsys_embed.tracking.tracker import MultiTracker, Stop, Tracker
from recsys_embed.tuning.space import Range, read_space
from recsys_embed.tuning.study import Study, choose_study

log = logging.getLogger("recsys_embed")

PICTURE = "search.png"
_DECAYS = ("user_decay", "item_decay", "bias_decay", "content_decay")
# Settings that no value of a trial depends on, or that are of the machine.
_OF_THE_MACHINE = ("threads", "device", "data_dir", "offline")
_PARTS = 10  # of the way through its epochs: after each, a trial is compared with the others there


def tune(
    data: DataConfig | None = None,
    model: ModelConfig | None = None,
    train: TrainConfig | None = None,
    config: TuneConfig | None = None,
    content: ContentConfig | None = None,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Search for better settings than those given, and write the best ones as a preset.

    The first trial are the settings as they are; every trial is a fit on train, measured on validation after each
    epoch. What is in ./studies of a search that began alike goes on. Ctrl-C ends it and keeps everything.
    catalog: the data, where it is at hand already.
    Returns what `recsys tune --json` prints. Raises DataError without validation data, and TrainingError where no
    trial came to an end.
    """
    data, model, train, config = (
        data or DataConfig(),
        model or ModelConfig(),
        train or TrainConfig(),
        config or TuneConfig(),
    )
    content = content or ContentConfig()
    begun = preset_settings(config.preset, model, train)
    # Of data that was handed over no command knows.
    said = "" if dataset else command(data, content, model, train, config, of="tune", preset=begun)
    ready = prepare(data, train.seed, content, dataset)
    if not len(ready.split.valid.positives(data.min_rating)):
        raise DataError(
            "there is no validation rating, and trials are measured on them: --valid-share, or --valid FILE"
        )
    begin = BaselineTrial(*_start(model, train, size_of(ready.split), content.any))
    check_loss(begin.train, ready.split)
    device = start_torch(begin.train)
    values = settings(*begin)
    space = read_space({**values, "described": content.any}, names_of(config.fix))
    bench = TuningObjective(ready, begin, content, config)
    facts = _facts(ready, bench, space)
    usual = f"{short_name(data.dataset).split('.')[0] or 'ratings'}-{begin.train.loss}"
    folder = choose_study(config.study, usual, facts, OWN)
    with Study(folder, facts, space, values, bench.sign) as study:
        known = study.own.user_attrs.get("run_id")
        about = {name: facts[name] for name in ("dataset", "digest", "settings")} | ({"command": said} if said else {})
        with publish.tracker_of(folder, config, about, device, known) as tracker:
            if tracker.run_id:
                study.own.set_user_attr("run_id", tracker.run_id)
            for run_id in study.cut_off:
                tracker.mark_killed(run_id)
            tracker.params({**facts["settings"], "moved": ", ".join(space)})
            search = Search(study, bench, tracker, said)
            search.run()
            return search.finish(data)


class BaselineTrial(NamedTuple):
    """The settings of the first trial, without a None that the recipe fills."""

    model: ModelConfig
    train: TrainConfig


C = TypeVar("C", ModelConfig, TrainConfig)


def _with(config: C, values: Mapping[str, Any]) -> C:
    """Return a config with those of the values that are its own."""
    return replace(config, **{f.name: values[f.name] for f in fields(config) if f.name in values})


def _start(model: ModelConfig, train: TrainConfig, size: Size, described: bool) -> tuple[ModelConfig, TrainConfig]:
    """Fill the settings from the recipe, whose decays give way to a learning rate that they do not go with."""
    try:
        return resolve_settings(model, train, size, described)
    except SettingError:
        if train.lr is None:
            raise
        usual, most = (
            resolve_settings(model, replace(train, lr=None), size, described)[1],
            float(f"{0.9 / train.lr:.3g}"),
        )
        least = [n for n in _DECAYS if getattr(train, n) is None and (getattr(usual, n) or 0) * train.lr >= 1]
        filled = resolve_settings(model, _with(train, dict.fromkeys(least, most)), size, described)
        log.warning("--lr %g is too high for the usual decay: the search begins with one of %g", train.lr, most)
        return filled


class TuningObjective:
    """Where a trial is made: the data without its test part, the settings that it begins with, and the judge."""

    def __init__(self, ready: Prepared, start: BaselineTrial, content: ContentConfig, config: TuneConfig) -> None:
        # From here on there is no test part to look at.
        self.split = ready.split._replace(test=ready.split.test.take(np.zeros(0, np.int64)))
        self.data, self.items, self.item_features = ready.data, ready.dataset.items, ready.item_features
        self.start, self.content, self.config = start, content, config
        self.validate, (self.metric, self.sign) = validation(self.split, self.data, start.train)

    def settings(self, moved: dict[str, Any]) -> BaselineTrial:
        """Return the settings of a trial. Raises SettingError where they contradict each other."""
        configs = _with(self.start.model, moved), _with(self.start.train, moved)
        return BaselineTrial(*resolve_settings(*configs, size_of(self.split), self.content.any))

    def fit(self, chosen: BaselineTrial, tracker: Tracker) -> tuple[float, int]:
        """Fit on train, as `recsys train` does first; return the metric of the best epoch, and its number."""
        made = Recommender(chosen.model, chosen.train, self.content).fit(
            self.split.train,
            self.items,
            min_rating=self.data.min_rating,
            validate=self.validate,
            monitor=(self.metric, self.sign),
            tracker=tracker,
            item_features=self.item_features,
        )
        if made.training.stopped == "interrupted":  # the second Ctrl-C: half a trial has no value
            raise KeyboardInterrupt
        return made.training.history[made.training.epochs - 1][self.metric], made.training.epochs


def _facts(ready: Prepared, bench: TuningObjective, space: dict[str, Range]) -> dict[str, Any]:
    """Return what makes a search the same one: its data without the test part, its start, and what is moved."""
    chosen = settings(ready.data, bench.content, *bench.start)
    return jsonable(
        {
            "dataset": ready.data.dataset,
            "digest": ready.split.train.digest(),
            "valid_digest": ready.split.valid.digest(),
            "metric": bench.metric,
            "moved": list(space),
            "settings": {n: v for n, v in chosen.items() if n not in _OF_THE_MACHINE},
        }
    )


class _Watch(Tracker):
    """Ends a trial from outside: by the clock, on Ctrl-C, or where it is worse than the median of the others.

    worth: (tenths of the way, best value so far) -> whether to go on. ended: what ends every trial now, or "".
    """

    def __init__(
        self,
        bench: TuningObjective,
        epochs: int,
        worth: Callable[[int, float], bool],
        ended: Callable[[], str],
        bar: BarTracker,
    ) -> None:
        self.bench, self.epochs, self.worth, self.ended, self.bar = bench, epochs, worth, ended, bar
        self.best, self.part, self.why = -math.inf, 0, ""

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Look at the clock."""
        self.bar.bar.update(self.bar.task, completed=done, total=total, note=note)
        if why := self.ended():
            raise Stop(why)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Compare the best epoch so far with the other trials at the same part of their way."""
        sign = self.bench.sign
        self.best = max(self.best, sign * values[self.bench.metric])
        part = _PARTS * (step or 0) // self.epochs
        if self.part < part < _PARTS:
            self.part = part
            if not self.worth(part, sign * self.best):
                self.why = f"ended early, after epoch {step} of {self.epochs}"
                raise Stop(self.why)


class Search:
    """The trials of one call. said: the command of the search."""

    def __init__(self, study: Study, bench: TuningObjective, tracker: Tracker, said: str) -> None:
        self.study, self.bench, self.tracker, self.said = study, bench, tracker, said
        self.begin, self.interrupted = time.monotonic(), False
        self.before, self.made = len(study.finished()), 0

    def run(self) -> None:
        """Make trials until the time, or their number, is reached, or somebody presses Ctrl-C."""
        if self.before:
            log.info("the study %s goes on after %d trials", self.study.folder, self.before)
        most = self.bench.config.trials or math.inf
        with BarTracker(quiet=log.level > logging.INFO) as bar, _on_ctrl_c(self._interrupt):
            while not self._ended() and self.made < most:
                self._trial(self.study.ask(), bar)
        self.study.mark_killed(killed=False)

    def _interrupt(self) -> None:
        self.interrupted = True
        log.warning("ending: the running trial is left for the next call (Ctrl-C once more ends at once)")

    def _ended(self) -> str:
        """Say what ends a running trial now; the first one of a study comes to its end whatever the time."""
        late = self.before + self.made > 0 and time.monotonic() - self.begin > self.bench.config.seconds
        return "interrupted" if self.interrupted else "the time is over" if late else ""

    def _trial(self, trial: Any, bar: BarTracker) -> None:
        """Make a trial and keep what it came to; of one that `_ended` ends nothing is kept."""
        begin, first = time.monotonic(), bool(trial.user_attrs.get("start"))
        moved = {name: range_.value(trial.params[name]) for name, range_ in self.study.space.items()}
        bar.bar.update(bar.task, description=f"trial {trial.number}", completed=0, note="")
        value: float | None = None
        facts: dict[str, Any] = {}
        try:
            chosen = self.bench.start if first else self.bench.settings(moved)
            trial.set_user_attr("settings", settings(*chosen))
            watch = _Watch(self.bench, chosen.train.epochs or 1, partial(_worth, trial, first), self._ended, bar)
            with self.tracker.child(f"trial {trial.number}", {"trial": str(trial.number)}) as child:
                trial.set_user_attr("run_id", child.run_id)
                child.params(settings(*chosen))
                value, facts["epochs"] = self.bench.fit(chosen, MultiTracker(child, watch))
                child.metrics({f"valid/{self.bench.metric}": value})
        except Stop as stop:
            if not watch.why:
                return
            facts["why"] = str(stop)
        except (TrainingError, SettingError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):  # torch's word for too little of it
                raise
            facts["why"] = (str(error) or "out of memory").splitlines()[0]
        facts["seconds"] = time.monotonic() - begin
        trial.set_user_attr("facts", facts)
        self.study.tell(trial, value)
        self.made += 1
        best = self.study.best()
        if best is not None and best.number == trial.number:
            self.tracker.metrics({f"best/{self.bench.metric}": best.value}, len(self.study.finished()))
            self._keep(best)
        self._say(trial.number, value, facts, best, bar)

    def _say(self, number: int, value: float | None, facts: dict[str, Any], best: Any, bar: BarTracker) -> None:
        came = facts.get("why", "") if value is None else f"{value:.4f} in epoch {facts['epochs']}"
        beside = f"best {best.value:.4f} (trial {best.number})" if best is not None else "no best yet"
        line = f"trial {number}: {came}, {facts['seconds']:.1f} s; {beside}"
        bar.console.print(line, soft_wrap=True, markup=False)

    def _keep(self, best: Any) -> Path:
        """Write the best trial as a preset."""
        usual = settings(ModelConfig(), TrainConfig())
        chosen = {n: v for n, v in best.user_attrs["settings"].items() if n in SETTINGS and v is not None}
        if not self.bench.content.any:
            chosen = {n: v for n, v in chosen.items() if not n.startswith("content_")}
        data, start = self.bench.data, self._start()
        return write_preset(
            Preset(
                self.study.folder.name,
                {n: v for n, v in chosen.items() if v != usual[n]},
                f"{short_name(data.dataset)}: the best of a search",
                self.said or "recsys_embed.tune",
                {
                    "dataset": short_name(data.dataset),
                    "metric": self.bench.metric,
                    "value": round(best.value, 6),
                    **({"start": round(start.value, 6)} if start else {}),
                    "trials": len(self.study.finished()),
                    "split_seed": data.split_seed,
                    "seed": self.bench.start.train.seed,
                },
            )
        )

    def _start(self) -> Any | None:
        """Return the trial of the settings that the search began with, if it came to a value."""
        return next((t for t in self.study.completed() if t.user_attrs.get("start")), None)

    def finish(self, given: DataConfig) -> dict[str, Any]:
        """Write the preset and the picture, tell the tracker, and return the report."""
        study, bench = self.study, self.bench
        best, start = study.best(), self._start()
        if best is None:
            raise TrainingError(f"no trial of {study.folder} came to a value; the same command goes on")
        preset = self._keep(best)
        chosen = self._command(given, preset.stem) if self.said else None
        finished, completed = study.finished(), study.completed()
        report = {
            "study": str(study.folder),
            "metric": bench.metric,
            "start": start and self._facts_of(start),
            "best": self._facts_of(best),
            "importance": study.importance(),
            "trials": len(finished),
            "ended_early": len(finished) - len(completed),
            "cut_off": len(study.failed()),
            "seconds": round(time.monotonic() - self.begin, 1),
            "interrupted": self.interrupted,
            "preset": str(preset),
            "command": chosen,
            "run_id": self.tracker.run_id,
        }
        picture = self._draw(start and start.value)
        report["picture"] = picture and str(picture)
        self.tracker.metrics({f"valid/{bench.metric}": best.value, "trials": len(finished)})
        self.tracker.describe(f"`{self.said}`\n\nBest: trial {best.number}, `{chosen}`")
        for file in filter(None, (preset, picture)):
            self.tracker.artifact(file)
        return jsonable(report)

    def _command(self, given: DataConfig, preset: str) -> str:
        """Return the training of the best settings, on this machine's data."""
        of_the_machine = TrainConfig(**{n: getattr(self.bench.start.train, n) for n in ("seed", "device", "threads")})
        words = [command(given, self.bench.content, of_the_machine, RunConfig(preset=preset))]
        words += [shlex.join([flag("data_dir"), given.data_dir])] if given.data_dir else []
        return " ".join(words + ([flag("offline")] if given.offline else []))

    def _facts_of(self, trial: Any) -> dict[str, Any]:
        """Return a trial for the report: the settings are those that the search moves."""
        kept = trial.user_attrs
        chosen = {name: kept["settings"][name] for name in self.study.space}
        return {"trial": trial.number, "value": trial.value, "epochs": kept["facts"]["epochs"], "settings": chosen}

    def _draw(self, first: float | None) -> Path | None:
        """Draw the search. The picture is an extra: what fails here fails alone."""
        try:
            from recsys_embed.plots.tuning import Made, draw_search

            done, made = 0.0, []
            whole = {t.number for t in self.study.completed()}
            for trial in self.study.finished():
                done += trial.user_attrs["facts"]["seconds"]
                if trial.value is not None:
                    made.append(Made(done / 60, trial.value, trial.number in whole))
            return draw_search(made, self.bench.metric, self.bench.sign, first, self.study.folder / PICTURE)
        except Exception as error:
            log.warning("the search is kept, but no picture of it could be drawn (%s)", error)
            return None


def _worth(trial: Any, first: bool, part: int, value: float) -> bool:
    """Tell Optuna how far a trial has come; return whether it goes on. The start always does: it is compared with."""
    trial.report(value, part)
    return first or not trial.should_prune()


@contextlib.contextmanager
def _on_ctrl_c(call: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C call something, and the next one end the program. Only the main thread hears of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def heard(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        call()

    signal.signal(signal.SIGINT, heard)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
