"""Splits by date, metrics, and the baselines that a model has to beat."""
