"""What ends a run that would wait for ever: for a process, a batch, shared memory, a machine."""
