"""A model folder as an MLflow model: rows of a table in, one long table of recommendations out."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args

import numpy as np
import polars as pl

from recsys_embed.answering.batch import iter_recommendations
from recsys_embed.answering.recommend import origins_of, recommend
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.answering.titles import split_names, split_ratings
from recsys_embed.config.answers import OnUnknown, Rules
from recsys_embed.config.fields import options
from recsys_embed.config.renamed import RENAMED, current_names
from recsys_embed.data.ids import Id
from recsys_embed.errors import RecsysError, SettingError, UnknownId
from recsys_embed.recommender import Recommender

# The rows of the input say whom lists are for, one user per row: likes and dislikes are items separated by ";", and
# ratings are "50=5;181=3". (MLflow's schema takes any type: ids may be numbers, and JSON has null beside numbers.)
# What the lists may hold is given by parameters for all rows: the fields of Rules, and these.
COLUMNS = ("user_id", "k", "likes", "dislikes", "ratings")
PARAMETERS: dict[str, tuple[str, Any]] = {
    "k": ("long", None),
    "candidates": ("string", None),
    "exclude": ("string", None),
    "include_seen": ("boolean", False),
    "hide_test": ("boolean", False),
    "on_unknown": ("string", None),
}
_LENGTH = 10
# Above this, numbers beside missing values, which pandas makes floats, are not what they were.
_EXACT = 2**53
# Old names of columns and parameters, still accepted. MLflow drops columns and parameters that are not in the
# signature, so these are in it too.
OLD_COLUMNS = {name: new for name, new in RENAMED.items() if new in COLUMNS}
OLD_PARAMETERS = {
    name: new for name, new in RENAMED.items() if new in (*PARAMETERS, *(field.name for field in fields(Rules)))
}
_KINDS = {"ratings": 'a text "ITEM=NUMBER;…"', "likes": "items", "dislikes": "items"}
_MLFLOW_TYPES = {str: "string", float: "double", int: "long", bool: "boolean"}
_OUTPUT = {
    "user_id": pl.String, "item_id": pl.String, "title": pl.String, "score": pl.Float64, "rank": pl.Int64,
    "from": pl.String,
}  # fmt: skip


def answer(
    recommender: Recommender, rows: Sequence[Mapping[str, Any]], params: Mapping[str, Any] | None = None
) -> pl.DataFrame:
    """Answer rows of COLUMNS, any of which may be missing, with one long table in the order of the rows.

    Its columns: user_id (text; null for a new user), item_id (text), title, score, rank, and from (what the list goes
    by, see `ListOrigin`). params: of PARAMETERS and Rules. An unknown user gets what an anonymous one gets, and unknown
    items are left out, unless on_unknown is "error". Rows with nothing but a user and k are searched together.
    Raises SettingError, and UnknownId, as `recommend` does.
    """
    shared = _shared_options(recommender, params or {})
    requests = [_request(recommender, row, shared) for row in rows]
    tables = [pl.DataFrame(schema={"position": pl.Int64, **_OUTPUT})]
    by_k: dict[int, list[int]] = {}
    for position, request in enumerate(requests):
        if request.user in recommender.users and not (request.likes or request.dislikes or request.ratings):
            by_k.setdefault(request.k, []).append(position)
        else:
            tables.append(_answer_one(recommender, request, position))
    tables += [_answer_users(recommender, [requests[at] for at in positions], positions) for positions in by_k.values()]
    return pl.concat(tables).sort("position", maintain_order=True).drop("position")


def _answer_one(recommender: Recommender, request: RecommendRequest, position: int) -> pl.DataFrame:
    found = recommend(recommender.state, request)
    entries = found.entries()
    keys = ("item", "title", "score", "rank")
    columns = {name: [entry[key] for entry in entries] for name, key in zip(list(_OUTPUT)[1:5], keys, strict=True)}
    user = request.user
    if user is not None and user in recommender.users:
        user = recommender.users.ids(recommender.users.rows([user]))[0]
    n = len(entries)
    who = {"position": [position] * n, "user_id": [None if user is None else str(user)] * n}
    return _output_table(pl.DataFrame({**who, **columns, "from": [found.origin] * n}))


def _answer_users(
    recommender: Recommender, requests: Sequence[RecommendRequest], positions: Sequence[int]
) -> pl.DataFrame:
    """Answer requests for known users with equal options by one search; a user may occur more than once."""
    state = recommender.state
    rows = recommender.users.rows([request.user for request in requests if request.user is not None])
    table = pl.concat(iter_recommendations(state, np.unique(rows), requests[0]))
    who = {"position": positions, "user_id": recommender.users.ids(rows), "from": origins_of(state, rows)}
    wanted = pl.DataFrame(who)
    return _output_table(wanted.join(table, on="user_id", maintain_order="left_right"))


def _output_table(table: pl.DataFrame) -> pl.DataFrame:
    return table.select("position", *(pl.col(name).cast(dtype) for name, dtype in _OUTPUT.items()))


def _request(recommender: Recommender, row: Mapping[str, Any], shared: Mapping[str, Any]) -> RecommendRequest:
    """Return the request of a row. shared: the fields that are the same for all rows."""
    unknown = set(row) - {*COLUMNS, *OLD_COLUMNS}
    if not set(row) - {"k"} or unknown:  # MLflow drops columns that are not in the signature
        raise SettingError(f"the columns of the input are {', '.join(COLUMNS)}; at least one must say for whom")
    given = current_names({name: value for name, value in row.items() if not _is_missing(value)}, OLD_COLUMNS)
    given = {name: value if name == "k" else _cell(name, value) for name, value in given.items()}
    on_unknown, ratings = shared["on_unknown"], split_ratings(given.get("ratings", ""))
    rated = {_item_id(recommender, name, on_unknown): value for name, value in ratings.items()}
    return RecommendRequest(
        user=given.get("user_id"),
        likes=_item_ids(recommender, given.get("likes"), on_unknown),
        dislikes=_item_ids(recommender, given.get("dislikes"), on_unknown),
        ratings={item: value for item, value in rated.items() if item is not None},
        **{**shared, "k": _length(given.get("k", shared["k"]))},
    )


def _length(k: Any) -> int:
    is_number = isinstance(k, int | float | np.integer | np.floating) and not isinstance(k, bool)
    if not is_number or not float(k).is_integer():
        raise SettingError(f"k must be a whole number, got {k!r}")
    return int(k)


def _cell(name: str, value: Any) -> Any:
    """Return what a column holds, numbers as text: a text, or a list of texts where the column may have several."""
    if name in ("likes", "dislikes") and isinstance(value, list | tuple | np.ndarray):
        return [_text(name, entry) for entry in value]
    return _text(name, value)


def _text(name: str, value: Any) -> str:
    """Return a value as text. Raises SettingError for one that is not what it was, or can be no id."""
    if isinstance(value, float | np.floating):
        number = float(value)
        if abs(number) >= _EXACT:
            raise SettingError(f"{name} {number:.0f} is too large a number beside missing values: send ids as text")
        return str(int(number)) if number.is_integer() else str(number)
    if isinstance(value, int | np.integer | str) and not isinstance(value, bool):
        return str(value)
    raise SettingError(f"{name} must be {_KINDS.get(name, 'a text or a whole number')}, got {value!r:.80}")


def _shared_options(recommender: Recommender, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request that are the same for all rows."""
    # MLflow fills in the defaults of what was not given, and the default of all old names is None.
    defaults = {field.name: field.default for field in fields(Rules)}
    given = current_names(
        {name: value for name, value in params.items() if value is not None and value != defaults.get(name)},
        OLD_PARAMETERS,
    )
    on_unknown = given.get("on_unknown", "skip")
    if on_unknown not in get_args(OnUnknown):
        raise SettingError(f"on_unknown must be one of {', '.join(get_args(OnUnknown))}, got {on_unknown!r}")

    def items(name: str) -> list[Id]:
        return _item_ids(recommender, given.get(name), on_unknown)

    return {
        "rules": Rules(**{name: value for name, value in given.items() if name in defaults}),
        "k": given.get("k", _LENGTH),
        "candidates": None if given.get("candidates") is None else items("candidates"),
        "exclude": items("exclude"),
        "include_seen": bool(given.get("include_seen")),
        "hide_test": bool(given.get("hide_test")),
        "on_unknown": on_unknown,
    }


def _is_missing(value: Any) -> bool:
    if isinstance(value, float | np.floating | np.datetime64 | np.timedelta64):
        return bool(value != value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")  # pandas' own


def _item_id(recommender: Recommender, name: str, on_unknown: OnUnknown) -> Id | None:
    """Return the id of an item by its id or title, or None for an unknown one that is to be left out."""
    try:
        return recommender.find_item(name)
    except UnknownId:
        if on_unknown == "error":
            raise
        return None


def _item_ids(recommender: Recommender, named: str | Sequence[Any] | None, on_unknown: OnUnknown) -> list[Id]:
    """Return the ids of items given by id or title, in a text separated by ";" or in a list."""
    names = split_names(named) if isinstance(named, str) else [str(name) for name in named or ()]
    found = dict.fromkeys(_item_id(recommender, name, on_unknown) for name in names)
    return [item for item in found if item is not None]


def signature() -> Any:
    """Return MLflow's signature: the input, in which any column may be missing, the parameters and the output."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    specs = dict(PARAMETERS)
    for field, kind, _ in options(Rules):
        type_ = next(k for k in get_args(kind) if k is not type(None)) if isinstance(kind, types.UnionType) else kind
        specs[field.name] = _MLFLOW_TYPES[type_], field.default
    specs |= {name: (specs[new][0], None) for name, new in OLD_PARAMETERS.items()}
    params = [ParamSpec(name, type_, default) for name, (type_, default) in specs.items()]
    output = dict.fromkeys(_OUTPUT, "string") | {"score": "double", "rank": "long"}
    return ModelSignature(
        Schema([ColSpec(AnyType(), name, required=False) for name in (*COLUMNS, *OLD_COLUMNS)]),
        Schema([ColSpec(type_, name, required=name != "user_id") for name, type_ in output.items()]),
        ParamSchema(params),
    )


def _rows(given: Any) -> list[dict[str, Any]]:
    """Return the rows of an input: a frame, or, where MLflow made none of it, what a frame can be made of."""
    import pandas as pd

    try:
        frame = given if isinstance(given, pd.DataFrame) else pd.DataFrame(given)
    except (ValueError, TypeError):
        raise SettingError(
            f"the input must be a table with columns of {', '.join(COLUMNS)}, got {given!r:.80}"
        ) from None
    # MLflow drops unknown columns: if none is left, the row says nothing.
    return frame.to_dict("records") if len(frame.columns) else [{}]


def set_mlflow_model() -> None:
    """Tell MLflow which object answers: `mlflow_entry`, of which every logged model has a copy, calls this."""
    import pandas as pd
    from mlflow.exceptions import MlflowException
    from mlflow.models import set_model
    from mlflow.pyfunc import PythonModel

    class RecommenderModel(PythonModel):  # type: ignore[misc]
        """Input: one user per row; see `answer`. Output: user_id, item_id, title, score, rank."""

        def load_context(self, context: Any) -> None:
            """Read the model folder."""
            self.recommender = Recommender.load(context.artifacts["bundle"])

        def predict(
            self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
        ) -> pd.DataFrame:
            """Answer every row."""
            try:
                table = answer(self.recommender, _rows(model_input), params).to_pandas()
            except RecsysError as error:  # MLflow's server shows the messages of its own errors only
                raise MlflowException.invalid_parameter_value(str(error)) from error
            users = table["user_id"].astype(object)
            return table.assign(user_id=users.where(users.notna(), None))  # JSON has no NaN

    set_model(RecommenderModel())
