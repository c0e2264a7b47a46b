"""A bundle as an MLflow model: MLflow runs this file as the model's code ("models from code"); it reads a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from recsys_embed.recommend.recommender import Recommender

if TYPE_CHECKING:
    import pandas as pd


def answer(recommender: Recommender, asked: pl.DataFrame) -> pl.DataFrame:
    """Answer rows of user_id (text) and k with one long table: user_id, item_id (text), title, score, rank."""
    frames = []
    for (k,), rows in asked.group_by("k", maintain_order=True):
        table = recommender.recommend(rows["user_id"].cast(pl.String).to_list(), int(k))
        frames.append(
            table.with_columns(pl.col("user_id", "item_id").cast(pl.String), score=pl.col("score").cast(pl.Float64))
        )
    return pl.concat(frames)


def _register() -> None:
    """Tell MLflow which class answers; it does nothing where MLflow is not loading this file."""
    from mlflow.models import set_model
    from mlflow.pyfunc import PythonModel

    class Recommendations(PythonModel):  # type: ignore[misc]
        """Input: columns user_id and, if wanted, k (10). Output: user_id, item_id, title, score, rank."""

        def load_context(self, context: Any) -> None:
            """Read the bundle."""
            self.recommender = Recommender.load(context.artifacts["bundle"])

        def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
            """Answer for every row."""
            asked = pl.from_pandas(model_input)
            if "k" not in asked.columns:
                asked = asked.with_columns(k=pl.lit(10))
            return answer(self.recommender, asked).to_pandas()

    set_model(Recommendations())


# MLflow executes this file under a name of its own; an ordinary import must not load mlflow.
if __name__ != "recsys_embed.recommend.pyfunc":
    _register()
