"""Runs in an MLflow store. Processes that tests start import this file, so it imports little."""

from recsys_embed.tracking.mlflow_tracker import MLflowTracker


def record(uri, start=None):
    """Track an empty run, as a first training does; return whether MLflow failed."""
    if start is not None:
        start.wait()
    with MLflowTracker(uri, "x", {}) as tracker:
        return tracker.alive


def must_record(uri, start):
    """Do so in a process of its own, which ends with an error where MLflow failed."""
    assert record(uri, start)
