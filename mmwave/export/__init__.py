"""Models as files for other runtimes, each run and compared before it is called good."""
