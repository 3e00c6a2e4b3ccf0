"""Predict pictures and videos: from paths to a model's results, pictures of them and files.

``call`` and ``inputs`` import nothing heavy.
"""
