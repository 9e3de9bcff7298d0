"""Mirrors the records of a sweep to MLflow."""
