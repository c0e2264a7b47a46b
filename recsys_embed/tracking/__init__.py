"""Trackers that a training reports to: none, a progress bar, or MLflow; and MLflow's runs and models read back.

MLflow's API is used only here, and for the model that MLflow serves (`experiment.mlflow_model`).
"""
