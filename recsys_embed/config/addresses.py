"""Addresses of data (postgresql://…, s3://…): settings hold them without their passwords, which this process keeps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from recsys_embed.errors import SettingError

# user:password@ of an address, and options of it whose values are secrets.
_USERINFO = re.compile(r"^([a-z][a-z0-9+.-]*://[^/?#@:]*):([^@]*)@", re.IGNORECASE)
_SECRET = re.compile(
    r"([?&](?:password|passwd|pwd|passfile|sslpassword|token|access_token|sig|signature|key|api_?key|secret|"
    r"x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature)=)([^&#]+)",
    re.IGNORECASE,
)
_MASK = "***"

# Addresses as settings hold them -> in full. Only this process has these, and only to connect with.
_FULL: dict[str, str] = {}


def is_address(location: str) -> bool:
    """Return whether a location is an address, with a scheme, rather than a name or a path."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", location))


def scheme(location: str) -> str:
    """Return the scheme of an address in lower case, or "" for a path."""
    return location.partition("://")[0].lower() if is_address(location) else ""


def without_password(location: str) -> str:
    """Return an address without its password and other secrets, which are kept for `with_password`."""
    if not is_address(location):
        return location
    address, mark, fragment = location.partition("#")
    userinfo = _USERINFO.match(address)
    authority = re.split("[/?]", address.partition("://")[2])[0]
    stray = address[userinfo.end() :] if userinfo else fragment if re.search(r":(?!\d*$)", authority) else ""
    if "@" in stray:  # it may be a part of the password
        raise SettingError(
            f"the password of the {scheme(location)} address has one of the characters @ / ? #: leave it to the "
            "environment (PGPASSWORD, ~/.pgpass), or write %40, %2F, %3F, %23 for them"
        )
    public = _SECRET.sub(rf"\1{_MASK}", _USERINFO.sub(r"\1@", address))
    if public != address:
        _FULL[public] = address
    return public + mark + fragment


def with_password(location: str) -> str:
    """Return an address with the password that it had when this process first saw it, and without #…. It must not
    be shown."""
    address = location.partition("#")[0]
    return _FULL.get(address, address)


def without_secrets(text: str, address: str) -> str:
    """Return a message without the secrets of an address, whoever wrote it into the message."""
    full = with_password(address)
    found = [m[2] for m in _USERINFO.finditer(full)] + [m[2] for m in _SECRET.finditer(full)]
    for secret in {s for s in found if s} | {unquote(s) for s in found if s}:
        text = text.replace(secret, _MASK)
    return text


def several_locations(text: str) -> list[str]:
    """Return the files, folders and patterns that a text names, separated by ";", or the one address that it is.

    Raises SettingError for an address among others.
    """
    if is_address(text):
        return [text]
    found = [location.strip() for location in text.split(";") if location.strip()]
    address = next((location for location in found if is_address(location)), None)
    if address is not None:
        raise SettingError(f"the address {without_password(address)} must stand alone: only files are separated by ;")
    return found


def hide_passwords(config: Any, names: tuple[str, ...]) -> None:
    """Take the passwords out of those settings of a frozen config that are addresses."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, Path):
            object.__setattr__(config, name, str(value))
        elif isinstance(value, str):
            object.__setattr__(config, name, without_password(value))
