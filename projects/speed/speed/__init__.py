"""The benchmark: how fast our models are and what memory they take, beside the published code."""
