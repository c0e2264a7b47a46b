"""A real PostgreSQL for a test, where Debian's package is installed; never run as root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

PASSWORD = "open-sesame"


def binaries() -> Path | None:
    """Return the folder of initdb, or None."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = homes[-1] if homes else shutil.which("initdb")
    return Path(found).parent if found else None


def _left_out(reason: str) -> NoReturn:
    """Skip a test, or fail it on CI, where everything is to be there."""
    (pytest.fail if "CI" in os.environ else pytest.skip)(reason)


def _owner() -> dict[str, object]:
    """Return how to start a process as a user who is not root."""
    if os.geteuid() != 0:
        return {}
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()} & {"postgres", "nobody"}
    if not names:
        _left_out("there is no user postgres or nobody to run PostgreSQL as")
    return {"user": max(names), "extra_groups": []}


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Start a server that wants a password, and give the address of its database, with the password."""
    home = binaries()
    if home is None:
        _left_out("PostgreSQL is not installed (initdb)")
    owner = _owner()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "password").write_text(PASSWORD)
        for path in (folder, f"{folder}/password"):
            if owner:
                shutil.chown(path, owner["user"])
        call = {"check": True, "capture_output": True, "cwd": folder, "timeout": 60, **owner}
        init = [home / "initdb", "-D", f"{folder}/data", "-U", "shop", "-A", "scram-sha-256", "-N"]
        subprocess.run([*init, f"--pwfile={folder}/password"], **call)
        control = [home / "pg_ctl", "-D", f"{folder}/data", "-w", "-l", f"{folder}/log"]
        subprocess.run([*control, "-o", f"-k {folder} -c listen_addresses= -c fsync=off", "start"], **call)
        try:
            yield f"postgresql://shop:{PASSWORD}@/postgres?host={folder}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **call)
