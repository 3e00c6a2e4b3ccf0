"""A module for each word of ``mmwave``; see :data:`mmwave.cli.program.COMMANDS`."""
