"""recsys serve."""

from __future__ import annotations

import os
import sys

from recsys_embed.cli.options import with_settings
from recsys_embed.cli.output import say
from recsys_embed.config.settings import ServeConfig


@with_settings(serve=ServeConfig)
def serve(serve: ServeConfig) -> None:
    """Answer over HTTP: recommendations, reasons, new ratings, and a page to try them. Ctrl-C ends it.

    Example: recsys serve --port 8000
    """
    # Several threads for one small product of vectors hinder each other, and the requests beside it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from recsys_embed.serving.server import serve as run

    def ready(address: str) -> None:
        say(f"{address}   docs at /docs, metrics at /metrics")
        sys.stdout.flush()

    run(serve, ready)
