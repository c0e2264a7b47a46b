"""recsys serve: a model over HTTP."""

from __future__ import annotations

import os
import sys

from recsys_embed.cli.options import with_settings
from recsys_embed.cli.output import echo
from recsys_embed.config.answers import ServeConfig

# The options that --help shows; --help-all shows all.
_FIRST = ("model", "host", "port", "workers", "events", "items", "variant", "token", "index")


@with_settings(_FIRST, serve=ServeConfig)
def serve(serve: ServeConfig) -> None:
    """Serve a model over HTTP: recommendations, explanations, new ratings, and a page to try it. Ctrl-C ends it.

    Example: recsys serve --port 8000
    """
    # Threads for one small product of vectors slow each other down, and other requests.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from recsys_embed.serving.server import serve as run

    def print_address(address: str) -> None:
        echo(f"{address}   docs at /docs, metrics at /metrics")
        sys.stdout.flush()

    run(serve, print_address)
