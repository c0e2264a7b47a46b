"""Running the service: one process, or several that share a port."""

from __future__ import annotations

import json
import logging
import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from recsys_embed.config.settings import ServeConfig
from recsys_embed.errors import DataError, SettingError

if TYPE_CHECKING:
    from recsys_embed.serving.service import Service

log = logging.getLogger("recsys_embed")

# How workers learn of the settings: they begin as new processes.
_SETTINGS = "RECSYS_SERVE"
# Seconds in which requests may come to their end when the service is told to.
_SHUTDOWN_GRACE_S = 10


def serve(config: ServeConfig, ready: Callable[[str], None]) -> None:
    """Answer until a signal ends it. ready: told the address when it is about to answer.

    Raises BundleError, UnknownId, DataError and SettingError before that.
    """
    try:
        import uvicorn

        from recsys_embed.serving.app import create_app
        from recsys_embed.serving.service import Service
    except ImportError as missing:
        raise SettingError(
            f"recsys serve needs the extra: pip install 'recsys-embed[serve]' ({missing.name} is not installed)"
        ) from None
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listening = socket.create_server((config.host, config.port), family=family, backlog=2048)
    except OSError as error:
        raise DataError(f"{config.host}:{config.port} cannot be listened at ({error.strerror}): see --port") from None
    host = f"[{config.host}]" if ":" in config.host else config.host
    address = f"http://{host}:{listening.getsockname()[1]}"
    options: dict[str, Any] = {"access_log": False, "log_level": "warning", "server_header": False}
    options["timeout_graceful_shutdown"] = _SHUTDOWN_GRACE_S
    with listening:
        # Whatever cannot be read or written is found here, once, and not by every worker again and again.
        service = Service(config)
        _warn_of_held(service)
        if config.workers == 1:
            app = create_app(service)
            ready(address)
            uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[listening])
            return
        service.close()
        os.environ[_SETTINGS] = json.dumps({**asdict(config), "token": config.secret})
        with tempfile.TemporaryDirectory(prefix="recsys-metrics-") as shared:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
            ready(address)
            name, workers = f"{__name__}:worker", config.workers
            uvicorn.run(name, factory=True, workers=workers, fd=listening.fileno(), **options)


def _warn_of_held(service: Service) -> None:
    held = len(service.live.state.held_out)
    if held:
        log.warning(
            "%s ratings were held out for test, and what they are of may be recommended: send hide_test, or train on "
            "everything (--valid-share 0 --test-share 0)", f"{held:,}",
        )  # fmt: skip


def worker() -> object:
    """Return the application of one worker, with the settings that its parent left in the environment."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from recsys_embed.serving.app import create_app
    from recsys_embed.serving.service import Service

    return create_app(Service(ServeConfig(**json.loads(os.environ[_SETTINGS]))))
