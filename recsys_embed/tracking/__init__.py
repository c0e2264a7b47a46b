"""Who is told of a training: nobody, a progress bar, MLflow.

The only room that knows MLflow's API, but for the model that MLflow serves (`experiment.mlflow_model`).
"""
