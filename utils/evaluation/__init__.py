"""Evaluation: metrics, reports, plots, overlays."""
