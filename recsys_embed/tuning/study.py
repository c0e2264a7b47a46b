"""A search on disk: what it began with, its trials, and which of them were cut off. Optuna's storage does the rest."""

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

from recsys_embed.errors import DataError, SettingError
from recsys_embed.storage.atomic import writing_whole
from recsys_embed.tuning.space import Range

HOME = Path("studies")
FACTS = "study.json"
# Trials drawn at random before the sampler learns from them; trials, and tenths of the way, before which none is ended.
_RANDOM, _UNPRUNED, _WARM = 10, 5, 3
# A trial that was cut off is tried again once: what kills the program twice (memory) would kill it for ever.
_ATTEMPTS = 2


def import_optuna() -> Any:
    """Import Optuna, quiet, and return it. Raises SettingError where it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError:
        raise SettingError("recsys tune needs Optuna: pip install 'recsys-embed[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def choose_study(name: str | None, usual: str, facts: Mapping[str, Any], presets: Path, home: Path = HOME) -> Path:
    """Return the folder of the search that began with these facts, or of a new one.

    name: as the user has it; None takes `usual`, or usual-2, usual-3, … where that is another search's.
    presets: the folder where its preset will be. Raises SettingError where a named study began with other facts.
    """
    for at in range(1, 10_000):
        folder = home / (name or (usual if at == 1 else f"{usual}-{at}"))
        known = read_facts(folder)
        if known == facts or (known is None and not (presets / f"{folder.name}.toml").exists()):
            return folder
        if name and known is None:
            raise SettingError(f"{presets / name}.toml is no preset of a study: name the study otherwise with --study")
        if name:
            raise SettingError(
                f"the study {folder} began otherwise ({_difference(known or {}, facts)}): "
                "name another with --study, or remove that folder"
            )
    raise SettingError(f"{home} is full of studies named {usual}: name another with --study")


def read_facts(folder: Path) -> dict[str, Any] | None:
    """Return what a study began with, or None where there is none. Raises DataError for a broken file."""
    try:
        return json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / FACTS} cannot be read ({error})") from None


def _difference(known: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Say in which facts two studies differ."""
    old, new = ({**f, **f.get("settings", {}), "settings": None} for f in (known, facts))
    found = [f"{n} {old.get(n)}, now {new.get(n)}" for n in {**old, **new} if old.get(n) != new.get(n)]
    return "; ".join(found[:4])


class Study:
    """The trials of a search. Only inside `with`, which one process at a time can enter.

    folder: where it is kept. facts: what it begins with, as `choose_study` was told. space: what is moved. start: the
    settings of the first trial. sign: +1 where more is better, -1 where less is. seed: of what is drawn.
    """

    def __init__(
        self, folder: Path, facts: Mapping[str, Any], space: Mapping[str, Range], start: Mapping[str, Any], sign: int
    ) -> None:
        self.optuna = import_optuna()
        self.folder, self.facts, self.space, self.sign = folder, facts, dict(space), sign
        self.start = {name: range_.inside(start[name]) for name, range_ in self.space.items()}
        self.seed = int(facts["settings"]["seed"])
        self.exit = contextlib.ExitStack()

    def __enter__(self) -> Study:
        optuna = self.optuna
        self.folder.mkdir(parents=True, exist_ok=True)
        self.exit.enter_context(_alone(self.folder))
        if not (self.folder / FACTS).exists():
            with writing_whole(self.folder / FACTS) as file:
                file.write(json.dumps(self.facts, indent=1, ensure_ascii=False).encode() + b"\n")
        # The median of the trials at the same part of their way, each on its own curve of the learning rate: trials
        # of different lengths cannot be compared by epochs, and Hyperband would cut the curves themselves short.
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED, n_warmup_steps=_WARM, n_min_trials=3)
        try:
            self.storage = optuna.storages.RDBStorage(f"sqlite:///{(self.folder / 'study.db').absolute().as_posix()}")
            self.exit.callback(self.storage.engine.dispose)
            self.own = optuna.create_study(
                study_name="study",
                storage=self.storage,
                direction="maximize" if self.sign > 0 else "minimize",
                pruner=pruner,
                load_if_exists=True,
            )
        except Exception as error:  # of Optuna, SQLAlchemy or SQLite: the file is no study, or cannot be written
            self.exit.close()
            raise DataError(f"{self.folder / 'study.db'} cannot be used ({str(error).splitlines()[0]})") from None
        self.cut_off = self.mark_killed()  # MLflow runs that a killed program left open
        if not self.own.get_trials(deepcopy=False):
            self.own.enqueue_trial(self.start, user_attrs={"start": True})
        return self

    def __exit__(self, *error: object) -> None:
        self.exit.close()

    def mark_killed(self, killed: bool = True) -> list[str]:
        """Mark the trials that were cut off as failed, queue their settings again, and return their MLflow runs.

        killed: whether something ended the program; then it counts as an attempt.
        """
        optuna, runs = self.optuna, []
        trials = self.own.get_trials(deepcopy=False)
        queued = {t.user_attrs.get("again") for t in trials}
        for trial in trials:
            if trial.state != optuna.trial.TrialState.RUNNING:
                continue
            attempt = trial.user_attrs.get("attempt", 1)
            if trial.number not in queued and attempt + killed <= _ATTEMPTS:
                kept = {"again": trial.number, "attempt": attempt + killed}
                kept |= {"start": True} if trial.user_attrs.get("start") else {}
                self.own.enqueue_trial(trial.params, user_attrs=kept)
            runs += [trial.user_attrs["run_id"]] if "run_id" in trial.user_attrs else []
            self.own.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return runs

    def ask(self) -> Any:
        """Return the next trial: one that is queued, or one that the sampler draws.

        What is drawn depends on the seed and on the finished trials alone, so that a search that was cut off goes on
        as it would have; and on how many were given up, since the sampler would draw the same again.
        """
        seed = np.random.SeedSequence([self.seed, len(self.finished()), self._given_up()]).generate_state(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is called experimental in this version or that
            self.own.sampler = self.optuna.samplers.TPESampler(
                n_startup_trials=_RANDOM, multivariate=True, seed=int(seed[0])
            )
            return self.own.ask({name: self._distribution(range_) for name, range_ in self.space.items()})

    def _given_up(self) -> int:
        """Return how many trials were cut off and are not tried again."""
        queued = {t.user_attrs.get("again") for t in self.own.get_trials(deepcopy=False)}
        return sum(t.number not in queued for t in self.failed())

    def _distribution(self, range_: Range) -> Any:
        kinds = self.optuna.distributions
        if range_.choices:
            return kinds.CategoricalDistribution(range_.choices)
        if range_.whole:
            return kinds.IntDistribution(int(range_.low), int(range_.high), log=range_.log)
        return kinds.FloatDistribution(range_.low, range_.high, log=range_.log)

    def tell(self, trial: Any, value: float | None) -> None:
        """Finish a trial with its value; with None, as one that was ended early."""
        state = self.optuna.trial.TrialState
        if value is not None and math.isfinite(value):
            self.own.tell(trial, value)
        else:
            self.own.tell(trial, state=state.PRUNED)

    def finished(self) -> list[Any]:
        """Return the trials that came to a value or were ended early, in order."""
        state = self.optuna.trial.TrialState
        return self.own.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED))

    def completed(self) -> list[Any]:
        """Return the trials that came to a value, in order."""
        return self.own.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.COMPLETE,))

    def failed(self) -> list[Any]:
        """Return the trials that were cut off."""
        return self.own.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.FAIL,))

    def best(self) -> Any | None:
        """Return the best trial, the first of equals; None before any came to a value."""
        return max(self.completed(), key=lambda t: (self.sign * t.value, -t.number), default=None)

    def importance(self) -> dict[str, float]:
        """Return how much each setting decides, shares of 1 (PED-ANOVA, Watanabe et al., IJCAI 2023).

        It asks what the best tenth of the trials have in common; of fewer than 20 trials that is nothing.
        """
        if len(self.completed()) < 20:
            return {}
        with warnings.catch_warnings(), contextlib.suppress(ValueError, RuntimeError):
            warnings.simplefilter("ignore")
            judge = self.optuna.importance.PedAnovaImportanceEvaluator()
            found = self.optuna.importance.get_param_importances(self.own, evaluator=judge)
            return {name: float(share) for name, share in found.items() if math.isfinite(share)}
        return {}


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a study for this process; the lock goes with the process, however that ends. Raises DataError."""
    with contextlib.ExitStack() as held:
        try:
            lock = sqlite3.connect(folder / "lock.db", timeout=0, isolation_level=None)
            held.callback(lock.close)
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            why = "is in use by another process" if "locked" in str(error) else f"cannot be used ({error})"
            raise DataError(f"the study {folder} {why}") from None
        yield
