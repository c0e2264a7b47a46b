"""The state of a training by gradient steps: how far it is, and all that decides how it goes on, as arrays."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from numpy.typing import NDArray

from recsys_embed.features.ridge import FeatureMap
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.nets.two_tower import TwoTowerModel
from recsys_embed.training.autograd_step import AutogradStep
from recsys_embed.training.checkpoints import Arrays, Saved, Stage, below
from recsys_embed.training.interface import TrainingResult


@dataclass
class LoopState:
    """How far a training is.

    history: the metrics of the epochs that are done. best: the best of them. batch, losses: how many batches of the
    next epoch are done, and their losses. drawn: the generators as they were when that epoch began. seconds: the time
    of what is done.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best: TrainingResult | None = None
    batch: int = 0
    losses: torch.Tensor | None = None
    drawn: Arrays = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def epoch(self) -> int:
        """The number of epochs that are done."""
        return len(self.history)

    def start_clock(self) -> None:
        """Start the clock."""
        self._start = time.perf_counter() - self.seconds

    def end_epoch(
        self, metrics: dict[str, float], trained: EmbeddingModel | None, better: Callable[[Any, Any], bool]
    ) -> None:
        """Note the metrics of an epoch, and its model if that is better than the best."""
        self.history.append(metrics)
        self.batch, self.losses = 0, None
        if trained and (self.best is None or better(metrics, self.history[self.best.epochs - 1])):
            self.best = TrainingResult(trained, self.epoch)

    def result(self, to_arrays: Callable[[], EmbeddingModel], stopped: str) -> TrainingResult:
        """Return the best model; to_arrays: reads the present one, which is taken if none was measured."""
        best = self.best or TrainingResult(to_arrays(), self.epoch)
        return replace(best, history=self.history, seconds=time.perf_counter() - self._start, stopped=stopped)

    def save(self, stage: Stage, arrays: Arrays, facts: Mapping[str, Any] | None = None) -> None:
        """Save it, with arrays and facts that the next steps depend on."""
        assert self.losses is not None
        arrays = arrays | {f"drawn.{name}": value for name, value in self.drawn.items()}
        arrays["losses"] = self.losses.cpu().numpy()
        facts = {
            **(facts or {}),
            "history": self.history,
            "batch": self.batch,
            "seconds": time.perf_counter() - self._start,
        }
        if self.best is not None:
            best, facts["best"] = result_arrays(self.best)
            arrays |= best
        stage.save(arrays, facts)

    def restore(self, saved: Saved, device: torch.device) -> None:
        """Restore what `save` saved, but for its arrays and facts. device: where losses are noted."""
        self.history, self.batch, self.seconds = (saved.facts[name] for name in ("history", "batch", "seconds"))
        self.best = load_result(saved.arrays, saved.facts["best"]) if "best" in saved.facts else None
        self.losses = torch.from_numpy(saved.arrays["losses"].copy()).to(device)
        self.drawn = below(saved.arrays, "drawn.")


def generator_arrays(step: AutogradStep) -> Arrays:
    """Return the states of all random generators of a training."""
    return {f"generator.{n}": g.get_state().numpy() for n, g in enumerate(_generators(step))}


def load_generators(step: AutogradStep, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Restore what `generator_arrays` returned."""
    for n, generator in enumerate(_generators(step)):
        generator.set_state(torch.from_numpy(arrays[f"generator.{n}"].copy()))


def step_arrays(step: AutogradStep) -> Arrays:
    """Return the weights of the model, the state of the optimizer, and that of the generators."""
    weights = {f"model.{name}": value.detach().cpu().numpy() for name, value in step.model.state_dict().items()}
    moments = {f"optimizer.{name}": value for name, value in step.optimizer.state_arrays().items()}
    return weights | moments | generator_arrays(step)


def load_step(step: AutogradStep, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Restore what `step_arrays` returned, into a step of the same settings."""
    weights = {name: torch.from_numpy(value.copy()) for name, value in below(arrays, "model.").items()}
    step.model.load_state_dict(weights)
    step.optimizer.load_state_arrays(below(arrays, "optimizer."))
    load_generators(step, arrays)


def result_arrays(result: TrainingResult) -> tuple[Arrays, dict[str, Any]]:
    """Return a result with a model of embeddings as arrays, and facts for JSON."""
    model = result.model
    assert isinstance(model, EmbeddingModel)
    arrays, saved = model.save()
    arrays |= {f"content_weights.{name}": value for name, value in model.content_weights.items()}
    if model.feature_map is not None:
        arrays |= {f"feature_map.{name}": value for name, value in model.feature_map._asdict().items()}
    if model.content_vectors is not None:
        arrays["content_vectors"] = model.content_vectors
    facts = {name: value for name, value in vars(result).items() if name != "model"} | {"model": saved}
    return {f"best.{name}": value for name, value in arrays.items()}, facts


def load_result(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> TrainingResult:
    """Restore what `result_arrays` returned."""
    arrays = below(arrays, "best.")
    feature_map = below(arrays, "feature_map.")
    model = replace(
        EmbeddingModel.load(arrays, facts["model"]),
        feature_map=FeatureMap(**feature_map) if feature_map else None,
        content_weights=below(arrays, "content_weights."),
        content_vectors=arrays.get("content_vectors"),
    )
    return TrainingResult(**{**facts, "model": model})


def weights_digest(model: TwoTowerModel) -> str:
    """Return a digest of the weights of a model."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _generators(step: AutogradStep) -> Iterator[torch.Generator]:
    yield step.generator
    for module in step.model.modules():
        if isinstance(generator := getattr(module, "generator", None), torch.Generator):
            yield generator
