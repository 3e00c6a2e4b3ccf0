"""Hooks, optimizer wrappers and launch helpers on top of mmengine."""
