"""A bundle as an MLflow model: MLflow runs this file as the model's code ("models from code"); it reads a bundle."""

from typing import Any

import polars as pl

from recsys_embed.recommend.recommender import Recommender


def answer(recommender: Recommender, asked: pl.DataFrame) -> pl.DataFrame:
    """Answer rows of user_id (text) and k with one long table: user_id, item_id (text), title, score, rank."""
    frames = []
    for (k,), rows in asked.group_by("k", maintain_order=True):
        table = recommender.recommend(rows["user_id"].cast(pl.String).to_list(), int(k))
        frames.append(
            table.with_columns(pl.col("user_id", "item_id").cast(pl.String), score=pl.col("score").cast(pl.Float64))
        )
    return pl.concat(frames)


def signature() -> Any:
    """Return what MLflow is told of the input, where k may be missing, and of the output."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    asked = [ColSpec("string", "user_id"), ColSpec("long", "k", required=False)]
    kinds = {"user_id": "string", "item_id": "string", "title": "string", "score": "double", "rank": "long"}
    return ModelSignature(Schema(asked), Schema([ColSpec(kind, name) for name, kind in kinds.items()]))


def _register() -> None:
    """Tell MLflow which class answers."""
    import pandas as pd
    from mlflow.models import set_model
    from mlflow.pyfunc import PythonModel

    class Recommendations(PythonModel):  # type: ignore[misc]
        """Input: columns user_id and, if wanted, k (10). Output: user_id, item_id, title, score, rank."""

        def load_context(self, context: Any) -> None:
            """Read the bundle."""
            self.recommender = Recommender.load(context.artifacts["bundle"])

        def predict(
            self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
        ) -> pd.DataFrame:
            """Answer for every row."""
            asked = pl.from_pandas(model_input)
            k = pl.col("k").cast(pl.Int64).fill_null(10) if "k" in asked.columns else pl.lit(10)
            asked = asked.with_columns(k=k)
            return answer(self.recommender, asked).to_pandas()

    set_model(Recommendations())


# MLflow executes this file under a name of its own; an ordinary import must not load mlflow.
if __name__ != "recsys_embed.recommend.pyfunc":
    _register()
