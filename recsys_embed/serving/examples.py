"""Examples of requests that the served model can answer, for /docs and /openapi.json."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from recsys_embed.serving.served_model import ServedModel


def examples_of(model: ServedModel, name_user: bool = True) -> dict[tuple[str, str], Any]:
    """Return the parameters or the body of an example by (method, path), with a user and popular items of the model.

    name_user: False puts a placeholder in place of the id: whoever has no token may read the examples too.
    """
    state = model.state
    popular = (-state.item_counts).argsort(kind="stable")[:3].tolist()
    items = [state.item_ids[row] for row in popular]
    first, last = items[0], items[-1]
    user = state.users.ids([int(state.seen.count.argmax())])[0] if name_user and len(state.users) else "USER"
    event = {"user": user, "item": first, "id": "order 7"}
    return {
        ("POST", "/recommend"): {"user": user, "k": 10},
        ("GET", "/recommend"): {"user": user, "k": 10},
        ("POST", "/recommend/batch"): {"requests": [{"user": user}, {"likes": [first]}]},
        ("POST", "/events"): {"events": [event]},
        ("GET", "/events"): {"user": user},
        ("DELETE", "/events"): {"user": user},
        ("PATCH", "/items"): {"items": [{"item": first, "set": {"stock": 3}}]},
        ("GET", "/items"): {"item": first},
        ("GET", "/similar"): {"item": first},
        ("GET", "/audience"): {"item": first, "k": 10},
        ("GET", "/predict"): {"user": user, "item": last},
        ("POST", "/explain"): {"user": user, "item": last},
        ("GET", "/history"): {"user": user},
    }


def with_examples(document: dict[str, Any], examples: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    """Return an OpenAPI document whose parameters and bodies have these examples; see `examples_of`."""
    document = deepcopy(document)
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            example = examples.get((method.upper(), path))
            if "requestBody" in route:
                reference = route["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                body = schemas[reference.rpartition("/")[2]]
                body["examples"] = [example]
                for field in body.get("properties", {}).values():
                    field.pop("examples", None)
            for parameter in route.get("parameters", ()):
                if example and parameter["name"] in example:
                    parameter["example"] = example[parameter["name"]]
    return document
