"""Read files behind an address: object stores by polars, with the credentials of its environment, and the web."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request

import polars as pl

from recsys_embed.config.addresses import scheme, with_password, without_secrets
from recsys_embed.errors import DataError
from recsys_embed.version import __version__

# Schemes that polars reads; see its documentation of cloud storage for the credentials.
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "azure", "adl", "abfs", "abfss", "hf", "file")
_WEB = ("http", "https")
_TIMEOUT = 30.0  # seconds to wait for a server that does not answer


def is_remote(location: str) -> bool:
    """Return whether a location is the address of a file."""
    return scheme(location) in (*OBJECT_STORES, *_WEB)


def read_remote(location: str) -> bytes | pl.DataFrame:
    """Return a file behind an address: its bytes or, for Parquet in an object store, its rows. Raises DataError."""
    address = with_password(location)
    try:
        if scheme(location) in _WEB:
            request = urllib.request.Request(address, headers={"User-Agent": f"recsys-embed/{__version__}"})
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                return bytes(answer.read())
        if address.partition("?")[0].endswith((".parquet", ".pq")):
            return pl.read_parquet(address)
        if not hasattr(pl, "read_lines"):
            raise DataError(f"{location}: this version of polars reads Parquet alone from object stores: update it")
        lines = pl.read_lines(address)["line"]
        return "\n".join(lines.to_list()).encode() + b"\n"
    except urllib.error.HTTPError as error:
        raise DataError(f"{location} cannot be read: {error.code} {error.reason}") from None
    except (
        OSError,
        http.client.HTTPException,
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        ValueError,
    ) as error:
        if isinstance(error, DataError):
            raise
        reason = str(getattr(error, "reason", None) or error).splitlines() or [type(error).__name__]
        raise DataError(f"{location} cannot be read: {without_secrets(reason[0], location)[:300]}") from None
