"""/docs: the OpenAPI document as a page without scripts and without files from other servers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any
from urllib.parse import urlencode

from recsys_embed.config.answers import Rules
from recsys_embed.config.fields import options

_RULES = {field.name for field, _, _ in options(Rules)}
_STYLE = "page/page.css"


def docs_page(document: dict[str, Any], base: str, examples: Mapping[tuple[str, str], Any]) -> str:
    """Return the page for an OpenAPI document. base: the service's address; examples: see `examples_of`."""
    sections = [
        _section(path, method, route, document, _example(path, method, examples.get((method, path)), base))
        for path, method, route in _routes(document)
    ]
    title = escape(document["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}: the service</title>'
        f'<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="{_STYLE}">'
        '<link rel="icon" href="data:,">'
        f'<main class="docs"><h1>{title}: the service</h1><p>{escape(document["info"]["description"])} '
        'For programs: <a href="openapi.json">/openapi.json</a>; to try it: <a href=".">the page</a>.</p>'
        f"{''.join(sections)}</main></html>"
    )


def _routes(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            yield path, method.upper(), route


def _section(path: str, method: str, route: dict[str, Any], document: dict[str, Any], example: str) -> str:
    body = _body(route, document)
    fields = [(p["name"], p["schema"], p.get("required", False)) for p in route.get("parameters", ())]
    fields += [(n, s, n in body.get("required", ())) for n, s in body.get("properties", {}).items()]
    # Whom a list is for, before what it may hold; old names last.
    fields.sort(key=lambda field: (field[1].get("deprecated", False), field[0] in _RULES))
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(_type(schema))}</td><td>{_default(schema, required)}</td>"
        f"<td>{escape(schema.get('description', ''))}</td></tr>"
        for name, schema, required in fields
    )
    table = f"<table><tr><th>field<th>type<th>default<th>meaning</tr>{rows}</table>" if rows else ""
    return f"<h2>{method} {escape(path)}</h2><p>{escape(route['summary'])}</p><pre>{escape(example)}</pre>{table}"


def _body(route: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a route's body, or {} where it takes none."""
    try:
        reference = route["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    except KeyError:
        return {}
    schema: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]
    return schema


def _example(path: str, method: str, example: Any, base: str) -> str:
    """Return a command that sends an example: its parameters in the address, or its body."""
    if method in ("GET", "DELETE"):
        query = f"?{urlencode(example)}" if example else ""
        verb = "-X DELETE " if method == "DELETE" else ""
        return f"curl {verb}{shlex.quote(base + path + query)}"
    verb = "" if method == "POST" else f"-X {method} "
    return f"curl {verb}{base}{path} -H 'content-type: application/json' -d {shlex.quote(json.dumps(example))}"


def _type(schema: dict[str, Any]) -> str:
    """Return the type of a field, for people."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(s) for s in schema["anyOf"] if s.get("type") != "null"))
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    return {"string": "text", "object": "object"}.get(schema.get("type", ""), schema.get("type", ""))


def _default(schema: dict[str, Any], required: bool) -> str:
    if required:
        return "required"
    value = schema.get("default")
    return "" if value is None else escape(json.dumps(value))
