"""One training from file to report: prepare, fit, refit, evaluate, save, publish to MLflow."""
