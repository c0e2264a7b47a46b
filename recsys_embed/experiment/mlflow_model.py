"""A bundle as an MLflow model: MLflow runs this file as the model's code ("models from code"); it reads a bundle."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args

import numpy as np
import polars as pl

from recsys_embed.answering.batch import iter_recommendations
from recsys_embed.answering.recommend import recommend
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.answering.titles import split_names, split_ratings
from recsys_embed.config.fields import options
from recsys_embed.config.settings import Rules
from recsys_embed.data.ids import Id
from recsys_embed.errors import RecsysError, SettingError
from recsys_embed.recommender import Recommender

# Whom a list is for is in the rows of the input, one user a row, as text: likes and dislikes are items parted by
# ";", and what they rated is "50=5;181=3". What may be shown to them goes beside the rows, as parameters: the fields of
# Rules, and these.
COLUMNS = {"user_id": "string", "k": "long", "likes": "string", "dislikes": "string", "rated": "string"}
PARAMETERS: dict[str, tuple[str, Any]] = {
    "among": ("string", None),
    "exclude": ("string", None),
    "include_seen": ("boolean", False),
    "hide_test": ("boolean", False),
}
_KINDS = {str: "string", float: "double", int: "long", bool: "boolean"}
_OUTPUT = {"user_id": pl.String, "item_id": pl.String, "title": pl.String, "score": pl.Float64, "rank": pl.Int64}


def answer(
    recommender: Recommender, asked: Sequence[Mapping[str, Any]], params: Mapping[str, Any] | None = None
) -> pl.DataFrame:
    """Answer rows of COLUMNS, any of which may be missing, with one long table in their order.

    Its columns: user_id (text; null for a new user), item_id (text), title, score, rank. params: of PARAMETERS and
    Rules. Users of whom nothing else is said are searched for together.
    Raises UnknownId and SettingError, as `recommend` does.
    """
    base = _options(recommender, params or {})
    requests = [_request(recommender, row, base) for row in asked]
    tables = [pl.DataFrame(schema={"place": pl.Int64, **_OUTPUT})]
    together: dict[int, list[int]] = {}
    for place, request in enumerate(requests):
        if request.user is not None and not (request.likes or request.dislikes or request.ratings):
            together.setdefault(request.k, []).append(place)
        else:
            tables.append(_one(recommender, request, place))
    tables += [_many(recommender, [requests[place] for place in places], places) for places in together.values()]
    return pl.concat(tables).sort("place", maintain_order=True).drop("place")


def _one(recommender: Recommender, request: RecommendRequest, place: int) -> pl.DataFrame:
    found = recommend(recommender.state, request).entries()
    names = ("item", "title", "score", "rank")
    columns = {name: [entry[key] for entry in found] for name, key in zip(list(_OUTPUT)[1:], names, strict=True)}
    user = None if request.user is None else str(recommender.users.ids(recommender.users.rows([request.user]))[0])
    return _form(pl.DataFrame({"place": [place] * len(found), "user_id": [user] * len(found), **columns}))


def _many(recommender: Recommender, requests: Sequence[RecommendRequest], places: Sequence[int]) -> pl.DataFrame:
    """Answer what requests for known users with the same options, by one search; a user may be asked for twice."""
    rows, first = (
        recommender.users.rows([request.user for request in requests if request.user is not None]),
        requests[0],
    )
    table = pl.concat(iter_recommendations(recommender.state, np.unique(rows), first))
    wanted = pl.DataFrame({"place": places, "user_id": recommender.users.ids(rows)})
    return _form(wanted.join(table, on="user_id", maintain_order="left_right"))


def _form(table: pl.DataFrame) -> pl.DataFrame:
    return table.select("place", *(pl.col(name).cast(kind) for name, kind in _OUTPUT.items()))


def _request(recommender: Recommender, row: Mapping[str, Any], base: Mapping[str, Any]) -> RecommendRequest:
    given = {name: value for name, value in row.items() if name in COLUMNS and not _missing(value)}
    unknown = set(row) - set(COLUMNS)
    if not set(row) - {"k"} or unknown:  # MLflow leaves columns out that it does not know
        raise SettingError(f"the columns of the input are {', '.join(COLUMNS)}; at least one must say for whom")
    likes, dislikes = (_items(recommender, given.get(name)) for name in ("likes", "dislikes"))
    rated = split_ratings(given.get("rated", ""))
    ratings = {recommender.find_item(name): value for name, value in rated.items()}
    k = int(given.get("k", 10))
    return RecommendRequest(user=given.get("user_id"), likes=likes, dislikes=dislikes, ratings=ratings, k=k, **base)


def _options(recommender: Recommender, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a request that are one for all rows."""
    rules = {field.name: params[field.name] for field in fields(Rules) if params.get(field.name) is not None}
    return {
        "rules": Rules(**rules),
        "candidates": _items(recommender, params.get("among")) or None,
        "exclude": _items(recommender, params.get("exclude")),
        "include_seen": bool(params.get("include_seen")),
        "hide_test": bool(params.get("hide_test")),
    }


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ == "NAType"


def _items(recommender: Recommender, named: str | Sequence[Any] | None) -> list[Id]:
    """Return the ids of items that are named by id or title in a text, parted by ";", or in a list."""
    names = split_names(named) if isinstance(named, str) else [str(name) for name in named or ()]
    return list(dict.fromkeys(recommender.find_item(name) for name in names))


def signature() -> Any:
    """Return what MLflow is told of the input, where any column may be missing, the parameters and the output."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    asked = [ColSpec(kind, name, required=False) for name, kind in COLUMNS.items()]
    params = [ParamSpec(name, kind, default) for name, (kind, default) in PARAMETERS.items()]
    for field, kind, _ in options(Rules):
        plain = next(k for k in get_args(kind) if k is not type(None)) if isinstance(kind, types.UnionType) else kind
        params.append(ParamSpec(field.name, _KINDS[plain], field.default))
    kinds = {"user_id": "string", "item_id": "string", "title": "string", "score": "double", "rank": "long"}
    output = Schema([ColSpec(kind, name, required=name != "user_id") for name, kind in kinds.items()])
    return ModelSignature(Schema(asked), output, ParamSchema(params))


def _register() -> None:
    """Tell MLflow which class answers."""
    import pandas as pd
    from mlflow.exceptions import MlflowException
    from mlflow.models import set_model
    from mlflow.pyfunc import PythonModel

    class Recommendations(PythonModel):  # type: ignore[misc]
        """Input: one person a row; see `answer`. Output: user_id, item_id, title, score, rank."""

        def load_context(self, context: Any) -> None:
            """Read the bundle."""
            self.recommender = Recommender.load(context.artifacts["bundle"])

        def predict(
            self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
        ) -> pd.DataFrame:
            """Answer for every row."""
            # MLflow leaves out what it does not know: where no column is left, nobody was asked for.
            rows = model_input.to_dict("records") if len(model_input.columns) else [{}]
            try:
                found = answer(self.recommender, rows, params).to_pandas()
            except RecsysError as error:  # MLflow's server shows what its own errors say, and no others
                raise MlflowException.invalid_parameter_value(str(error)) from error
            users = found["user_id"].astype(object)
            return found.assign(user_id=users.where(users.notna(), None))  # a NaN is no JSON

    set_model(Recommendations())


# MLflow executes this file under a name of its own; an ordinary import must not load mlflow.
if __name__ != "recsys_embed.experiment.mlflow_model":
    _register()
