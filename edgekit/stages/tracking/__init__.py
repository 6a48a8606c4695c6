"""Writing results to an MLflow tracking server."""
