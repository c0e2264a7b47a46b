"""python -m recsys_embed.cli.open_page URL: wait until a server on this machine answers, and open its page."""

from __future__ import annotations

import socket
import sys
import time
import webbrowser
from urllib.parse import urlsplit

_PATIENCE_S = 120.0  # MLflow's server may take a minute to start


def main(url: str) -> None:
    """Open a page in the browser as soon as its server takes connections; give up in silence."""
    place, deadline = urlsplit(url), time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection((place.hostname or "127.0.0.1", place.port or 80), timeout=1).close()
        except OSError:
            time.sleep(0.3)
        else:
            webbrowser.open(url)
            return


if __name__ == "__main__":
    main(sys.argv[1])
