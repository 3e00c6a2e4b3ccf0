"""Hooks, optimizer wrappers, data checks and launch helpers on top of mmengine."""
