"""Checkpoints of a run: written whole or not at all, and found again.

A checkpoint gets its name when all of it has reached the disk. Those that it replaces are removed
after that, so that there is a whole one at any moment, whatever ends the run.
"""

from .finding import Saves, find_for_run, newest_checkpoint, output_folder
from .hook import CheckpointHook, use_our_hook
from .writing import NotWrittenError, register_whole_files

__all__ = [
    'CheckpointHook',
    'NotWrittenError',
    'Saves',
    'find_for_run',
    'newest_checkpoint',
    'output_folder',
    'register_whole_files',
    'use_our_hook',
]
