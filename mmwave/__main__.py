"""``python -m mmwave``: the command ``mmwave``."""

from mmwave.cli.program import main

if __name__ == '__main__':
    main()
