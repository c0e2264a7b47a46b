"""TorchRec and FBGEMM, imported where they are needed."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

from recsys_embed.errors import SettingError

_CPU = "pip install --no-deps --force-reinstall fbgemm-gpu-cpu==1.8.0"


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Leave out what TorchRec and FBGEMM tell the root logger: which operators a build lacks, and each table's plan."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def check_torchrec() -> None:
    """Raise SettingError, with what to install, unless TorchRec and FBGEMM can be imported."""
    try:
        with quietly():
            import torchrec.distributed.embedding  # noqa: F401
        # It warns of a function that TorchRec calls in every lookup.
        logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(
            f"--engine torchrec needs TorchRec and FBGEMM ({reason}): pip install 'recsys-embed[distributed]', "
            f"and where there is no CUDA, after it: {_CPU}"
        ) from None
