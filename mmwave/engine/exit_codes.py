"""The exit codes of the tools, which scripts and schedulers act upon."""

USER_ERROR = 2
"""The run cannot be carried out as it was asked for; one line on stderr says why."""

PREEMPTED = 75
"""A signal asked the run to leave: its state is saved, and ``--resume`` goes on from there.

BSD's ``EX_TEMPFAIL`` (sysexits.h): try again later.
"""

INTERRUPTED = 130
"""Ctrl-C ended the run: 128 and the number of SIGINT, as shells have it."""

UNAVAILABLE = 69
"""What the run waited for did not come: a process, a batch of a data loader, another machine.

BSD's ``EX_UNAVAILABLE``: started again with ``--resume``, the run goes on where it is back.
"""
