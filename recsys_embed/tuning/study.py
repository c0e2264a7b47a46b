"""A study: a search on disk, with its starting point and its trials, which Optuna stores."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recsys_embed.config.renamed import current_name, current_names, with_current_names
from recsys_embed.errors import DataError, SettingError
from recsys_embed.storage.atomic import atomic_write
from recsys_embed.storage.json import parse_json
from recsys_embed.tuning.space import Range

HOME = Path("studies")
FACTS = "study.json"
# Trials drawn at random before the sampler learns from them.
_RANDOM_TRIALS = 10
# No trial is pruned before this many trials, and before this many tenths of its epochs.
_UNPRUNED_TRIALS, _UNPRUNED_STAGES = 5, 3
# Settings that are stored under the name they had when the first studies were made, so that those continue.
_STORED_NAMES = {"content_lr_scale": "content_pace"}
# A trial that was killed is tried once more: what kills the program twice (memory) would kill it every time.
_MAX_ATTEMPTS = 2


def import_optuna() -> Any:
    """Import Optuna with its log silenced. Raises SettingError if it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError:
        raise SettingError("recsys tune needs Optuna: pip install 'recsys-embed[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def choose_study(
    name: str | None, default_name: str, facts: Mapping[str, Any], presets: Path, home: Path = HOME
) -> Path:
    """Return the folder of the study with these facts, or of a new one.

    name: as given by the user; None means `default_name`, or default_name-2, default_name-3, … if that is another
    study's. presets: the folder for its preset. Raises SettingError if a named study has other facts.
    """
    for number in range(1, 10_000):
        folder = home / (name or (default_name if number == 1 else f"{default_name}-{number}"))
        existing = read_facts(folder)
        if existing == facts or (existing is None and not (presets / f"{folder.name}.toml").exists()):
            return folder
        if name and existing is None:
            raise SettingError(f"{presets / name}.toml is no preset of a study: choose another name with --study")
        if name:
            raise SettingError(
                f"the study {folder} started differently ({_difference(existing or {}, facts)}): "
                "choose another name with --study, or remove that folder"
            )
    raise SettingError(f"{home} is full of studies named {default_name}: choose another name with --study")


# Settings that studies made before them lack, with the values that those had.
_LATER_SETTINGS = {
    "model_family": "embeddings", "embeddings": True,
    **dict.fromkeys(("neighbours", "l2", "l2_share", "popularity_power", "blend")),
}  # fmt: skip


def _tower(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether descriptions take part in training, for a study that does not say so: there they did."""
    return {"content_tower": True if stored.get("text") or stored.get("item_vectors") else None}


def read_facts(folder: Path) -> dict[str, Any] | None:
    """Return the facts that identify a study, or None if there is no study. Raises DataError for a broken file."""
    try:
        facts = with_current_names(parse_json((folder / FACTS).read_text(encoding="utf-8")))
        facts["settings"] = {**_LATER_SETTINGS, **_tower(facts["settings"]), **facts["settings"]}
        return {**facts, "moved": [current_name(name) for name in facts["moved"]]}
    except FileNotFoundError:
        return None
    except (KeyError, TypeError):
        raise DataError(f"{folder / FACTS} is no file of a study") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / FACTS} cannot be read ({error})") from None


def _difference(existing: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Return a text about the facts in which two studies differ."""
    old, new = ({**f, **f.get("settings", {}), "settings": None} for f in (existing, facts))
    texts = [f"{n} {old.get(n)}, now {new.get(n)}" for n in {**old, **new} if old.get(n) != new.get(n)]
    return "; ".join(texts[:4])


class Study:
    """The trials of a search. Usable only inside `with`, which one process at a time can enter.

    folder: of the study. facts: its identity, as in `choose_study`. space: the settings that are tuned. start: the
    settings of the first trial. sign: +1 if higher is better, -1 if lower is. seed: the sampler's.
    killed_runs: ids of MLflow runs that a killed program left open.
    """

    def __init__(
        self, folder: Path, facts: Mapping[str, Any], space: Mapping[str, Range], start: Mapping[str, Any], sign: int
    ) -> None:
        self.optuna = import_optuna()
        self.folder, self.facts, self.space, self.sign = folder, facts, dict(space), sign
        self.start = {name: range_.clip(start[name]) for name, range_ in self.space.items()}
        self.seed = int(facts["settings"]["seed"])
        self.exit_stack = contextlib.ExitStack()

    def __enter__(self) -> Study:
        optuna = self.optuna
        self.folder.mkdir(parents=True, exist_ok=True)
        self.exit_stack.enter_context(_lock(self.folder))
        if not (self.folder / FACTS).exists():
            with atomic_write(self.folder / FACTS) as file:
                file.write(json.dumps(self.facts, indent=1, ensure_ascii=False).encode() + b"\n")
        # Trials are compared with the median at the same share of their epochs, since each has a learning rate schedule
        # of its own length: epochs are not comparable, and Hyperband would cut the schedules themselves short.
        pruner = optuna.pruners.MedianPruner(
            n_startup_trials=_UNPRUNED_TRIALS, n_warmup_steps=_UNPRUNED_STAGES, n_min_trials=3
        )
        try:
            self.storage = optuna.storages.RDBStorage(f"sqlite:///{(self.folder / 'study.db').absolute().as_posix()}")
            self.exit_stack.callback(self.storage.engine.dispose)
            self.study = optuna.create_study(
                study_name="study",
                storage=self.storage,
                direction="maximize" if self.sign > 0 else "minimize",
                pruner=pruner,
                load_if_exists=True,
            )
        except Exception as error:  # by Optuna, SQLAlchemy or SQLite: the file is no study, or cannot be written
            self.exit_stack.close()
            raise DataError(f"{self.folder / 'study.db'} cannot be used ({str(error).splitlines()[0]})") from None
        self.killed_runs = self.requeue_running()
        if not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial(_stored(self.start), user_attrs={"start": True})
        return self

    def __exit__(self, *error: object) -> None:
        self.exit_stack.close()

    @property
    def run_id(self) -> str | None:
        """The id of the search's MLflow run, or None."""
        run_id: str | None = self.study.user_attrs.get("run_id")
        return run_id

    @run_id.setter
    def run_id(self, value: str) -> None:
        self.study.set_user_attr("run_id", value)

    def requeue_running(self, killed: bool = True) -> list[str]:
        """Mark trials that are still running as failed, queue their settings again, and return their MLflow runs.

        killed: whether the program was killed in them, which counts as an attempt.
        """
        optuna, runs = self.optuna, []
        trials = self.study.get_trials(deepcopy=False)
        requeued = {t.user_attrs.get("again") for t in trials}
        for trial in trials:
            if trial.state != optuna.trial.TrialState.RUNNING:
                continue
            attempt = trial.user_attrs.get("attempt", 1)
            if trial.number not in requeued and attempt + killed <= _MAX_ATTEMPTS:
                attributes = {"again": trial.number, "attempt": attempt + killed}
                attributes |= {"start": True} if trial.user_attrs.get("start") else {}
                self.study.enqueue_trial(trial.params, user_attrs=attributes)
            runs += [trial.user_attrs["run_id"]] if "run_id" in trial.user_attrs else []
            self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return runs

    def next_trial(self) -> Any:
        """Return the next trial: a queued one, or one that the sampler draws.

        A draw depends only on the seed and the finished trials, so that an interrupted search continues as it would
        have; and on the number of abandoned trials, since the sampler would draw the same settings again.
        """
        seed = np.random.SeedSequence([self.seed, len(self.finished()), self._n_abandoned()]).generate_state(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about experimental features of Optuna
            self.study.sampler = self.optuna.samplers.TPESampler(
                n_startup_trials=_RANDOM_TRIALS, multivariate=True, seed=int(seed[0])
            )
            return self.study.ask(_stored({name: self._distribution(range_) for name, range_ in self.space.items()}))

    def values(self, trial: Any) -> dict[str, Any]:
        """Return the tuned settings of a trial."""
        drawn = current_names(trial.params)
        return {name: range_.value(drawn[name]) for name, range_ in self.space.items()}

    def _n_abandoned(self) -> int:
        """Return the number of trials that were killed and are not tried again."""
        requeued = {t.user_attrs.get("again") for t in self.study.get_trials(deepcopy=False)}
        return sum(t.number not in requeued for t in self.failed())

    def _distribution(self, range_: Range) -> Any:
        distributions = self.optuna.distributions
        if range_.choices:
            return distributions.CategoricalDistribution(range_.choices)
        if range_.integer:
            return distributions.IntDistribution(int(range_.low), int(range_.high), log=range_.log)
        return distributions.FloatDistribution(range_.low, range_.high, log=range_.log)

    def finish_trial(self, trial: Any, value: float | None) -> None:
        """Finish a trial with its value, or with None if it was stopped early."""
        state = self.optuna.trial.TrialState
        if value is not None and math.isfinite(value):
            self.study.tell(trial, value)
        else:
            self.study.tell(trial, state=state.PRUNED)

    def finished(self) -> list[Any]:
        """Return the trials that were completed or stopped early, in order."""
        state = self.optuna.trial.TrialState
        return self.study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED))

    def completed(self) -> list[Any]:
        """Return the trials that have a value, in order."""
        return self.study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.COMPLETE,))

    def failed(self) -> list[Any]:
        """Return the trials that were killed or interrupted."""
        return self.study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.FAIL,))

    def best(self) -> Any | None:
        """Return the best completed trial, the first of equal ones, or None."""
        return max(self.completed(), key=lambda t: (self.sign * t.value, -t.number), default=None)

    def importance(self) -> dict[str, float]:
        """Return the importance of each setting as shares of 1 (PED-ANOVA, Watanabe et al., IJCAI 2023).

        It measures what the best tenth of the trials have in common, so fewer than 20 trials give {}.
        """
        if len(self.completed()) < 20:
            return {}
        with warnings.catch_warnings(), contextlib.suppress(ValueError, RuntimeError):
            warnings.simplefilter("ignore")
            evaluator = self.optuna.importance.PedAnovaImportanceEvaluator()
            shares = self.optuna.importance.get_param_importances(self.study, evaluator=evaluator)
            return {current_name(name): float(share) for name, share in shares.items() if math.isfinite(share)}
        return {}


def _stored(values: Mapping[str, Any]) -> dict[str, Any]:
    return {_STORED_NAMES.get(name, name): value for name, value in values.items()}


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lock a study for this process; the lock ends with the process, however it ends. Raises DataError."""
    with contextlib.ExitStack() as stack:
        try:
            lock = sqlite3.connect(folder / "lock.db", timeout=0, isolation_level=None)
            stack.callback(lock.close)
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            reason = "is in use by another process" if "locked" in str(error) else f"cannot be used ({error})"
            raise DataError(f"the study {folder} {reason}") from None
        yield
