"""Run the service: one process, or several that share a port."""

from __future__ import annotations

import json
import logging
import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from recsys_embed.config.answers import ServeConfig
from recsys_embed.errors import DataError

if TYPE_CHECKING:
    from recsys_embed.serving.service import Service

log = logging.getLogger("recsys_embed")

# The environment variable that passes the settings to workers, which start as new processes.
_SETTINGS_VARIABLE = "RECSYS_SERVE"
# Seconds that running requests may take after the signal to stop.
_SHUTDOWN_GRACE_S = 10


def serve(config: ServeConfig, on_start: Callable[[str], None]) -> None:
    """Serve until a signal stops it. on_start: called with the address just before the service starts to answer.

    Raises BundleError, UnknownId and DataError before that.
    """
    import uvicorn

    from recsys_embed.serving.app import create_app
    from recsys_embed.serving.connections import BoundedProtocol
    from recsys_embed.serving.service import Service

    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listener = socket.create_server((config.host, config.port), family=family, backlog=2048)
    except OSError as error:
        raise DataError(f"cannot listen on {config.host}:{config.port} ({error.strerror}): see --port") from None
    host = f"[{config.host}]" if ":" in config.host else config.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    options: dict[str, Any] = {"access_log": False, "log_level": "warning", "server_header": False}
    options |= {"timeout_graceful_shutdown": _SHUTDOWN_GRACE_S, "http": BoundedProtocol}
    with listener:
        # Loaded here too, so that an error shows once rather than in every worker again and again.
        service = Service(config)
        if service.items_error is not None:  # later, a broken file changes nothing; now it may be the wrong one
            service.close()
            raise DataError(service.items_error)
        _warn_of_held_out(service)
        if config.workers == 1:
            app = create_app(service)
            on_start(address)
            uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[listener])
            return
        service.close()
        os.environ[_SETTINGS_VARIABLE] = json.dumps({**asdict(config), "token": config.secret})
        with tempfile.TemporaryDirectory(prefix="recsys-metrics-") as metrics_folder:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics_folder
            on_start(address)
            name, workers = f"{__name__}:worker", config.workers
            uvicorn.run(name, factory=True, workers=workers, fd=listener.fileno(), **options)


def _warn_of_held_out(service: Service) -> None:
    n_held_out = max(len(slot.served.fitted.held_out) for slot in service.slots)
    if n_held_out:
        log.warning(
            "%s ratings were held out for test, and their items may be recommended: send hide_test, or train on "
            "everything (--valid-share 0 --test-share 0)", f"{n_held_out:,}",
        )  # fmt: skip


def worker() -> object:
    """Return the application of one worker, with the settings that its parent put into the environment."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from recsys_embed.serving.app import create_app
    from recsys_embed.serving.service import Service

    return create_app(Service(ServeConfig(**json.loads(os.environ[_SETTINGS_VARIABLE]))))
