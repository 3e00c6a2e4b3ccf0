"""Measurements: how fast a model is and what memory it takes, beside the published code."""
