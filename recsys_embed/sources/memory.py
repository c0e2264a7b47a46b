"""Whether ratings are longer than memory."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from recsys_embed.config.fields import flag
from recsys_embed.config.settings import DataConfig
from recsys_embed.data.disk import Disk, scratch_folder
from recsys_embed.errors import SettingError
from recsys_embed.sources.locations import archive_of, find_files, is_path
from recsys_embed.sources.long_tables import LongTable, begins_with
from recsys_embed.sources.remote import is_remote
from recsys_embed.sources.sql import SQLITE_MAGIC, is_database

log = logging.getLogger("recsys_embed")

# Memory that a training in memory takes for each rating, at its highest, and for each byte of a file of text
# (experiments/LOG.md).
BYTES_A_RATING, _BYTES_A_BYTE = 160, 6
# Options that need all rows in memory.
_IN_MEMORY = ("shared_ids", "valid", "test", "extra_ratings", "max_age", "query")

# The files in which a container's limit of memory is, and what is used of it: of cgroups of version 2, and of 1.
_CGROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def free_memory() -> int | None:
    """Return how many bytes of memory are free, in this machine and in the container around; None where none says."""
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    elif hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for names in _CGROUPS:
        paths = [Path("/sys/fs/cgroup") / name for name in names]
        if all(path.exists() for path in paths):
            most, taken = (path.read_text().strip() for path in paths)
            found += [int(most) - int(taken)] if most.isdecimal() else []
    return min(found, default=None)


def size_text(size: float) -> str:
    """Return a number of bytes as people say it: "1.5 GB"."""
    unit = "TB" if size >= 1e12 else "GB" if size >= 1e9 else "MB"
    number = size / {"TB": 1e12, "GB": 1e9, "MB": 1e6}[unit]
    return f"{number:.1f} {unit}" if number < 10 else f"{number:,.0f} {unit}"


def long_table(location: str, config: DataConfig) -> tuple[LongTable, Disk] | None:
    """Return ratings that are longer than the memory that they may take, with where they go; None for all others.

    Raises SettingError where only memory would do.
    """
    limit = config.memory_bytes or free_memory()
    if limit is None or location == "-" or is_database(location) or is_remote(location) or not is_path(location):
        return None
    files = [(archive_of(file) or (file,))[0] for file in find_files(location)]
    if not all(file.is_file() for file in files) or any(begins_with(file, SQLITE_MAGIC) for file in files):
        return None
    table = LongTable.of(files)
    needed = sum(f.stat().st_size for f in files) * _BYTES_A_BYTE if table is None else table.rows * BYTES_A_RATING
    if needed <= limit:
        return None
    given = [flag(name) for name in _IN_MEMORY if getattr(config, name)] + ["an event log"] * config.is_event_log
    reason = "only Parquet is read in parts" if table is None else f"{', '.join(given)} needs all rows in memory"
    if table is not None and not given:
        return table, Disk(scratch_folder(), limit)
    text = f"{location} needs about {size_text(needed)} of memory, and {size_text(limit)} may be taken: {reason}"
    if config.memory_limit is not None:
        raise SettingError(text)
    log.warning("%s", text)
    return None
