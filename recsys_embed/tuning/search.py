"""tune(): search for better settings, by trials that are judged on validation data only."""

from __future__ import annotations

import contextlib
import logging
import math
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from recsys_embed.config.fields import command, flag, parse_names, settings, short_name
from recsys_embed.config.renamed import current_names
from recsys_embed.config.settings import ContentConfig, DataConfig, ModelConfig, RunConfig, TrainConfig
from recsys_embed.config.tuning import TuneConfig
from recsys_embed.data.dataset import Dataset
from recsys_embed.errors import DataError, SettingError, TrainingError
from recsys_embed.experiment import publish
from recsys_embed.experiment.data_findings import log_findings
from recsys_embed.experiment.prepare import check_values, checked_preset, prepare, size_of, start_torch
from recsys_embed.presets import SETTINGS, USER_FOLDER, Preset, write_preset
from recsys_embed.storage.json import jsonable
from recsys_embed.storage.lease import lease
from recsys_embed.storage.model_folders import lease_file
from recsys_embed.tracking.progress import BarTracker, progress_bar
from recsys_embed.tracking.tracker import MultiTracker, Stop, Tracker
from recsys_embed.tuning.objective import TrialMonitor, TuningObjective, baseline_settings, study_facts
from recsys_embed.tuning.space import read_space
from recsys_embed.tuning.study import Study, choose_study

log = logging.getLogger("recsys_embed")

PICTURE = "search.png"


def tune(
    data: DataConfig | None = None,
    model: ModelConfig | None = None,
    train: TrainConfig | None = None,
    config: TuneConfig | None = None,
    content: ContentConfig | None = None,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Search for better settings than those given, and write the best ones as a preset.

    The first trial has the given settings; every trial is a fit on train, measured on validation after each epoch. A
    study in ./studies with the same data and starting point is continued. Ctrl-C stops the search and keeps all
    trials. dataset: the data, if it is loaded already.
    Returns what `recsys tune --json` prints. Raises DataError without validation data, and TrainingError if no trial
    was completed.
    """
    data, model, train = data or DataConfig(), model or ModelConfig(), train or TrainConfig()
    config, content = config or TuneConfig(), content or ContentConfig()
    if data.windows > 1:
        raise SettingError("recsys tune judges on one validation part: --windows goes with recsys train")
    if model.model_family not in (None, "embeddings"):
        raise SettingError(f"recsys tune tunes embeddings; recsys train chooses what {model.model_family} needs itself")
    preset = checked_preset(config.preset, model, train)
    # No command line reproduces a data set passed as an object.
    command_line = "" if dataset else command(data, content, model, train, config, name="tune", preset=preset)
    prepared = prepare(data, train.seed, content, dataset)
    if not len(prepared.split.valid.positives(data.min_rating)):
        raise DataError("there are no validation ratings to measure trials on: give --valid-share, or --valid FILE")
    baseline = baseline_settings(model, train, size_of(prepared.split), content.any, content.trains)
    check_values(baseline.model, baseline.train, data, prepared.split)
    log_findings(prepared.dataset, data, prepared.split, baseline.train.loss)
    device = start_torch(baseline.train)
    values = settings(*baseline)
    space = read_space({**values, "described": content.any}, parse_names(config.freeze))
    objective = TuningObjective(prepared, baseline, content, config)
    facts = study_facts(prepared, objective, space)
    default_name = f"{short_name(data.dataset).split('.')[0] or 'ratings'}-{baseline.train.loss}"
    folder = choose_study(config.study, default_name, facts, USER_FOLDER)
    with Study(folder, facts, space, values, objective.sign) as study, lease(lease_file(folder)) as held:
        run_facts = {name: facts[name] for name in ("dataset", "digest", "settings")}
        run_facts |= {"command": command_line} if command_line else {}
        file = lease_file(folder) if held else None
        with publish.tracker_of(folder, file, config, run_facts, device, study.run_id) as tracker:
            if tracker.run_id:
                study.run_id = tracker.run_id
            for run_id in study.killed_runs:
                tracker.mark_killed(run_id)
            tracker.params({**facts["settings"], "moved": ", ".join(space)})
            search = Search(study, objective, tracker, command_line)
            search.run()
            return search.finish(data)


class Search:
    """The trials of one call of `tune`. command_line: of the search, or "" if it has none."""

    def __init__(self, study: Study, objective: TuningObjective, tracker: Tracker, command_line: str) -> None:
        self.study, self.objective, self.tracker, self.command_line = study, objective, tracker, command_line
        self.start_time, self.interrupted = time.monotonic(), False
        self.n_before, self.n_trials = len(study.finished()), 0

    def run(self) -> None:
        """Run trials until the time or the number of trials is reached, or Ctrl-C is pressed."""
        if self.n_before:
            log.info("the study %s goes on after %d trials", self.study.folder, self.n_before)
        max_trials = self.objective.config.trials or math.inf
        with progress_bar() as bar, _on_ctrl_c(self._interrupt):
            while not self._stop_reason() and self.n_trials < max_trials:
                self._run_trial(self.study.next_trial(), bar)
        self.study.requeue_running(killed=False)

    def _interrupt(self) -> None:
        self.interrupted = True
        log.warning("stopping: the running trial is left for the next call (Ctrl-C again stops at once)")

    def _stop_reason(self) -> str:
        """Return why to stop now, or "". The first trial of a study is completed whatever the time."""
        is_late = time.monotonic() - self.start_time > self.objective.config.seconds
        if self.interrupted:
            return "interrupted"
        return "the time is over" if self.n_before + self.n_trials > 0 and is_late else ""

    def _run_trial(self, trial: Any, bar: BarTracker) -> None:
        """Run a trial and record its result; one that `_stop_reason` stops is not recorded."""
        start, is_baseline = time.monotonic(), bool(trial.user_attrs.get("start"))
        tuned = self.study.values(trial)
        bar.bar.update(bar.task, description=f"trial {trial.number}", completed=0, note="")
        value: float | None = None
        facts: dict[str, Any] = {}
        try:
            chosen = self.objective.baseline if is_baseline else self.objective.settings(tuned)
            trial.set_user_attr("settings", settings(*chosen))
            should_continue = partial(_should_continue, trial, is_baseline)
            monitor = TrialMonitor(self.objective, chosen.train.epochs or 1, should_continue, self._stop_reason, bar)
            with self.tracker.child(f"trial {trial.number}", {"trial": str(trial.number)}) as child:
                trial.set_user_attr("run_id", child.run_id)
                child.params(settings(*chosen))
                value, facts["epochs"] = self.objective.fit(chosen, MultiTracker(child, monitor))
                child.metrics({f"valid/{self.objective.metric}": value})
        except Stop as stop:
            if not monitor.pruned:
                return
            facts["why"] = str(stop)
        except (TrainingError, SettingError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):  # torch's way to say out of memory
                raise
            facts["why"] = (str(error) or "out of memory").splitlines()[0]
        facts["seconds"] = time.monotonic() - start
        trial.set_user_attr("facts", facts)
        self.study.finish_trial(trial, value)
        self.n_trials += 1
        best = self.study.best()
        if best is not None and best.number == trial.number:
            self.tracker.metrics({f"best/{self.objective.metric}": best.value}, len(self.study.finished()))
            self._write_preset(best)
        self._print_trial(trial.number, value, facts, best, bar)

    def _print_trial(self, number: int, value: float | None, facts: dict[str, Any], best: Any, bar: BarTracker) -> None:
        result = facts.get("why", "") if value is None else f"{value:.4f} in epoch {facts['epochs']}"
        best_text = f"best {best.value:.4f} (trial {best.number})" if best is not None else "no best yet"
        line = f"trial {number}: {result}, {facts['seconds']:.1f} s; {best_text}"
        bar.console.print(line, soft_wrap=True, markup=False)

    def _write_preset(self, best: Any) -> Path:
        """Write the settings of the best trial as a preset."""
        defaults = settings(ModelConfig(), TrainConfig())
        chosen = {n: v for n, v in _settings_of(best).items() if n in SETTINGS and v is not None}
        if not self.objective.content.any:
            chosen = {n: v for n, v in chosen.items() if not n.startswith("content_")}
        data, baseline = self.objective.data, self._baseline_trial()
        return write_preset(
            Preset(
                self.study.folder.name,
                {n: v for n, v in chosen.items() if v != defaults[n]},
                f"{short_name(data.dataset)}: the best of a search",
                self.command_line or "recsys_embed.tune",
                {
                    "dataset": short_name(data.dataset),
                    "metric": self.objective.metric,
                    "value": round(best.value, 6),
                    **({"start": round(baseline.value, 6)} if baseline else {}),
                    "trials": len(self.study.finished()),
                    "split_seed": data.split_seed,
                    "seed": self.objective.baseline.train.seed,
                },
            )
        )

    def _baseline_trial(self) -> Any | None:
        """Return the trial of the settings that the search started from, if it was completed."""
        return next((t for t in self.study.completed() if t.user_attrs.get("start")), None)

    def finish(self, given: DataConfig) -> dict[str, Any]:
        """Write the preset and the picture, log the result, and return the report. given: the data settings."""
        study, objective = self.study, self.objective
        best, baseline = study.best(), self._baseline_trial()
        if best is None:
            raise TrainingError(f"no trial of {study.folder} was completed; the same command continues")
        preset = self._write_preset(best)
        train_command = self._train_command(given, preset.stem) if self.command_line else None
        finished, completed = study.finished(), study.completed()
        report = {
            "study": str(study.folder),
            "metric": objective.metric,
            "start": baseline and self._trial_facts(baseline),
            "best": self._trial_facts(best),
            "importance": study.importance(),
            "trials": len(finished),
            "ended_early": len(finished) - len(completed),
            "cut_off": len(study.failed()),
            "seconds": round(time.monotonic() - self.start_time, 1),
            "interrupted": self.interrupted,
            "preset": str(preset),
            "command": train_command,
            "run_id": self.tracker.run_id,
        }
        picture = self._draw(baseline and baseline.value)
        report["picture"] = picture and str(picture)
        self.tracker.metrics({f"valid/{objective.metric}": best.value, "trials": len(finished)})
        self.tracker.describe(f"`{self.command_line}`\n\nBest: trial {best.number}, `{train_command}`")
        for file in filter(None, (preset, picture)):
            self.tracker.artifact(file)
        return jsonable(report)

    def _train_command(self, given: DataConfig, preset: str) -> str:
        """Return the command line that trains with the best settings on this machine."""
        train = self.objective.baseline.train
        machine_settings = TrainConfig(seed=train.seed, device=train.device, threads=train.threads)
        words = [command(given, self.objective.content, machine_settings, RunConfig(preset=preset))]
        words += [shlex.join([flag("data_dir"), given.data_dir])] if given.data_dir else []
        return " ".join(words + ([flag("offline")] if given.offline else []))

    def _trial_facts(self, trial: Any) -> dict[str, Any]:
        """Return a trial for the report, with the settings that are tuned."""
        tuned = {name: _settings_of(trial)[name] for name in self.study.space}
        epochs = trial.user_attrs["facts"]["epochs"]
        return {"trial": trial.number, "value": trial.value, "epochs": epochs, "settings": tuned}

    def _draw(self, baseline: float | None) -> Path | None:
        """Draw the search. The picture is an extra: an error here is only a warning."""
        try:
            from recsys_embed.plots.tuning import TrialPoint, draw_search

            seconds, points = 0.0, []
            completed = {trial.number for trial in self.study.completed()}
            for trial in self.study.finished():
                seconds += trial.user_attrs["facts"]["seconds"]
                if trial.value is not None:
                    points.append(TrialPoint(seconds / 60, trial.value, trial.number in completed))
            file = self.study.folder / PICTURE
            return draw_search(points, self.objective.metric, self.objective.sign, baseline, file)
        except Exception as error:
            log.warning("the search is saved, but no picture of it could be drawn (%s)", error)
            return None


def _settings_of(trial: Any) -> dict[str, Any]:
    return current_names(trial.user_attrs["settings"])


def _should_continue(trial: Any, is_baseline: bool, stage: int, value: float) -> bool:
    """Report a trial's value at a stage to Optuna; return whether it goes on. The baseline always does."""
    trial.report(value, stage)
    return is_baseline or not trial.should_prune()


@contextlib.contextmanager
def _on_ctrl_c(callback: Callable[[], None]) -> Iterator[None]:
    """Call a function on the first Ctrl-C; the next one ends the program. Only works in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGINT)

    def handle(*_: object) -> None:
        signal.signal(signal.SIGINT, previous)
        callback()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
