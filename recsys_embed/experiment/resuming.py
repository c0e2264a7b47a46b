"""Where a training keeps its checkpoints, so that the same command finds them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

from recsys_embed.config.fields import NON_RESULT_SETTINGS, settings
from recsys_embed.errors import SettingError
from recsys_embed.experiment.fit_and_refit import Configs
from recsys_embed.experiment.prepare import Prepared
from recsys_embed.storage.digest import frame_digest
from recsys_embed.storage.lease import lease
from recsys_embed.training.checkpoints import Checkpoints
from recsys_embed.training.interface import TrainingResult
from recsys_embed.version import __version__

log = logging.getLogger("recsys_embed")

# Minutes between checkpoints of a training that was resumed without saying so.
_EVERY = 10.0


@contextlib.contextmanager
def checkpoints_of(configs: Configs, prepared: Prepared, models: Path) -> Iterator[Checkpoints | None]:
    """Yield where a training saves its state, or None if it is not to.

    models: the folder that the model's folder is in. The name says which data and settings: the same command, and no
    other, finds it again. Raises SettingError if that very training is running already.
    """
    run = configs.run
    if run.checkpoint_every is None and not run.resume:
        yield None
        return
    given = {name: value for name, value in settings(*configs).items() if name not in NON_RESULT_SETTINGS}
    items = prepared.dataset.items
    data = [part.digest() for part in prepared.split] + ([] if items is None else [frame_digest(items)])
    text = json.dumps([__version__, data, given], sort_keys=True, default=str)
    folder = models / f".checkpoints-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    lease_file = folder.with_name(f"{folder.name}.lease")
    models.mkdir(parents=True, exist_ok=True)
    with lease(lease_file) as held:
        if held is False:
            raise SettingError(f"the same training is running already and writes the checkpoints in {folder}")
        if run.resume and not folder.is_dir():
            log.info("there are no checkpoints of this training: it starts at the beginning")
        elif folder.is_dir() and not run.resume:
            log.warning("the checkpoints of an earlier, unfinished training are removed: --resume would go on with it")
        every = _EVERY if run.checkpoint_every is None else run.checkpoint_every
        yield Checkpoints(folder, 60 * every, run.resume)


def remove_checkpoints(checkpoints: Checkpoints | None, result: TrainingResult) -> None:
    """Remove the checkpoints of a training whose model is saved, unless it was interrupted: it can be gone on with."""
    if checkpoints is not None and result.stopped != "interrupted":
        checkpoints.remove()
