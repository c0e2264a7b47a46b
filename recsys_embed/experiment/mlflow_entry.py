"""The code file of logged MLflow models ("models from code"): MLflow stores a copy with each model and runs it.

Copies stay in use for years, so `recsys_embed.experiment.mlflow_model.set_mlflow_model` must keep its name and place.
"""

from recsys_embed.experiment.mlflow_model import set_mlflow_model

set_mlflow_model()
