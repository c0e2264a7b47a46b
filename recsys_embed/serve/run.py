"""Running the service: one process, or several that share a port."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from dataclasses import asdict
from typing import Any

from recsys_embed.config import ServeConfig
from recsys_embed.errors import DataError, SettingError
from recsys_embed.serve.source import Source

# How workers learn of the settings: they begin as new processes.
_SETTINGS = "RECSYS_SERVE"


def serve(config: ServeConfig) -> None:
    """Answer until a signal ends it. Raises BundleError, DataError and SettingError before it listens."""
    try:
        import uvicorn

        import recsys_embed.serve.app as app
    except ImportError as missing:
        raise SettingError(
            f"recsys serve needs the extra: pip install 'recsys-embed[serve]' ({missing.name} is not installed)"
        ) from None
    from recsys_embed.serve.service import Service

    options: dict[str, Any] = {
        "host": config.host,
        "port": config.port,
        "access_log": False,
        "log_level": "warning",
        "server_header": False,
        "timeout_graceful_shutdown": 10,
    }
    try:
        if config.workers == 1:
            uvicorn.run(app.create_app(Service(config)), **options)
            return
        Source(config.model, config.tracking_uri).find()  # a model that is not there is found here, once
        os.environ[_SETTINGS] = json.dumps({**asdict(config), "token": config.secret})
        with tempfile.TemporaryDirectory(prefix="recsys-metrics-") as shared:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
            uvicorn.run(f"{__name__}:worker", factory=True, workers=config.workers, **options)
    except SystemExit as ended:
        if ended.code:
            raise DataError(f"{config.host}:{config.port} cannot be listened at: is it in use? (--port)") from None


def worker() -> object:
    """Return the application of one worker, with the settings that its parent left in the environment."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from recsys_embed.serve.app import create_app
    from recsys_embed.serve.service import Service

    return create_app(Service(ServeConfig(**json.loads(os.environ[_SETTINGS]))))
