"""ShardedEngine: a training whose tables and ratings are spread over ranks."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor

from recsys_embed.config.settings import ModelConfig, TrainConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.distributed.member import Leading, Member, Whole
from recsys_embed.distributed.ranks import Ranks, current, lost
from recsys_embed.distributed.shards import CheckpointException
from recsys_embed.errors import SettingError
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.nets.losses import LOSSES
from recsys_embed.nets.towers import IdTower
from recsys_embed.nets.two_tower import TwoTowerModel
from recsys_embed.sources.memory import free_memory
from recsys_embed.storage.bundle import files_of
from recsys_embed.tracking.tracker import Tracker
from recsys_embed.training.batches import columns_of, steps_of
from recsys_embed.training.checkpoints import Saved, Stage
from recsys_embed.training.snapshot import LoopState
from recsys_embed.training.trainer import describe, initialize, scale_of, stored, summary

# Steps after which rank 0 says whether it wants a checkpoint.
_SYNC_EVERY = 16
# A table with its two moments.
_COPIES = 3
# Bytes that a machine is taken to have if it does not say.
_UNKNOWN_MEMORY = 64 * 2**30


class ShardedEngine:
    """The engine of several processes (see `Engine`), as rank 0 leads them.

    Each rank learns from the ratings of its own users, a part of each batch, and draws its own negatives; TorchRec
    carries the rows and their gradients. A step equals that of one process on the whole batch, up to random numbers.
    """

    def __init__(
        self,
        settings: ModelConfig,
        model: TwoTowerModel,
        ratings: Ratings,
        config: TrainConfig,
        init: Callable[[TwoTowerModel], None] | None = None,
    ) -> None:
        """settings: what the model was built from. Raises SettingError for what cannot be spread."""
        check_can_be_spread(model, config)
        self.ranks, self.net, self.disk = current(), model, ratings.disk
        initialize(model, ratings, config)
        if init is not None:
            init(model)
        columns = columns_of(ratings, config, torch.device("cpu"))
        sizes = len(ratings.users), len(ratings.items)
        self.counts = [torch.bincount(c, minlength=n) for c, n in zip(columns[:2], sizes, strict=True)]
        self.kind = LOSSES[config.loss or "softmax"].output, scale_of(ratings)
        known = replace(ratings, hidden=None).excluded()
        cuts, steps = cuts_of(self.counts[0], self.ranks.size, config)
        start = torch.cat((torch.zeros(1, dtype=torch.int64), self.counts[0].cumsum(0)))
        message = {
            "op": "fit",
            "settings": asdict(settings),
            "config": asdict(config),
            "sizes": sizes,
            "biases": [tower.bias is not None for tower in (model.users, model.items)],  # type: ignore[attr-defined]
            "offset": float(model.offset),
            "cuts": cuts,
            "rows": start[cuts].tolist(),
            "known": [int(known.indptr[cut]) for cut in cuts],
            "steps": steps,
            "memory": _memory(self.ranks) // _COPIES,
        }
        self.ranks.say(**message)
        self.member = Member.set_up(self.ranks, message, Whole(model, columns, known, self.counts[1]))

    def train_epoch(
        self, state: LoopState, curve: tuple[float, int, int], tracker: Tracker, stage: Stage | None
    ) -> dict[str, float]:
        """Pass over all ratings, or over those that are left of the epoch; see `Engine`."""
        member, note, start = self.member, describe(state.history), time.perf_counter()
        first = min(state.batch, member.steps)
        before = state.losses
        message = {
            "op": "epoch",
            "done": state.epoch,
            "first": first,
            "curve": curve,
            "sync_every": 0 if stage is None else _SYNC_EVERY,
        }
        self.ranks.say(**message)

        def together(losses: Tensor) -> Tensor:
            """Return the losses of all batches; those of before an interruption are known already."""
            return losses if before is None else torch.cat((before[:first], losses[first:]))

        def after(number: int) -> None:
            if number % 64 == 0:
                tracker.progress(state.epoch + number / member.steps, curve[2], note)

        def save(number: int, losses: Callable[[], Tensor]) -> None:
            assert stage is not None
            folder = stage.shards
            shutil.rmtree(folder, ignore_errors=True)
            self.ranks.say(op="save", folder=str(folder.resolve()))
            try:
                mean = losses()
                member.save(folder)
            except (OSError, CheckpointException) as error:
                stage.skip(str(error))
                return
            state.batch, state.losses = number, together(mean)
            decay = [group.log_decay for group in member.step.optimizer.groups]
            state.save(stage, {}, {"shards": files_of(folder), "ranks": self.ranks.size, "log_decay": decay})

        with self._watching():
            losses, rows = member.train(message, Leading(after, save, lambda: stage is not None and stage.due))
        state.losses = together(losses)
        return summary(state.losses, rows / (time.perf_counter() - start))

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """Note that ranks cannot be talked to any more where a step ended in the middle, and say so if one was lost."""
        try:
            yield
        except BaseException as error:
            self.ranks.in_step = False
            if isinstance(error, RuntimeError) and self.ranks.lost(error):
                raise lost(error) from None
            raise

    def to_arrays(self) -> EmbeddingModel:
        """Return the present model."""
        if not self.ranks.in_step:
            raise KeyboardInterrupt
        self.ranks.say(op="gather")
        with self._watching():
            self.member.gather(self.net)
        return stored(self.net.to_arrays((self.counts[0], self.counts[1]), *self.kind), self.disk)

    def restore(self, state: LoopState, saved: Saved) -> None:
        """Go on from what `train_epoch` saved in a stage, perhaps on another number of ranks."""
        state.restore(saved, torch.device("cpu"))
        message = {"op": "load", "folder": str(saved.folder.resolve()), "done": state.epoch}
        message |= {name: saved.facts[name] for name in ("ranks", "log_decay")}
        self.ranks.say(**message)
        self.member.do(message)


def check_can_be_spread(model: TwoTowerModel, config: TrainConfig) -> None:
    """Raise SettingError for models and settings that this engine does not have."""
    for used, what in (
        (not isinstance(model.users, IdTower), "vectors of users from their histories (--user-tower id goes)"),
        (not isinstance(model.items, IdTower), "descriptions that take part in the training (--no-content-tower goes)"),
        (model.users is model.items, "--shared-ids"),
        (bool(config.max_grad_norm), "--max-grad-norm"),
    ):
        if used:
            raise SettingError(f"--engine torchrec does not go with {what}")


def cuts_of(counts: Tensor, size: int, config: TrainConfig) -> tuple[list[int], int]:
    """Return the first user of each rank, and the end, so that ranks have about as many ratings; and the batches.

    Every rank has a rating in every batch.
    """
    active = counts.nonzero()[:, 0]
    users = len(active)
    if users < size:
        raise SettingError(f"{size} ranks are too many for {users:,} users with ratings")
    ends = counts[active].cumsum(0).numpy()
    ratings = int(ends[-1])
    places = np.searchsorted(ends, np.arange(1, size) * ratings / size) + 1
    places = np.clip(places, np.arange(1, size), users - np.arange(size - 1, 0, -1))
    places = np.maximum.accumulate(places - np.arange(size - 1)) + np.arange(size - 1)
    cuts = [0, *active[places].tolist(), len(counts)]
    edges = np.array([0, *places, users])
    fewest = np.diff(edges if config.batch_users else np.concatenate(([0], ends))[edges]).min()
    return cuts, min(steps_of(config, ratings, users), int(fewest))


def _memory(ranks: Ranks) -> int:
    """Return the bytes that a rank may take for tables."""
    if ranks.device.type == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return (free_memory() or _UNKNOWN_MEMORY) // ranks.local[1]
