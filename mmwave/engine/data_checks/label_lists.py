"""Lists of images and labels, one a line, as mmpretrain's ``CustomDataset`` reads them."""

from mmwave.errors import printable


def list_fault(path: str) -> str | None:
    """Name the first line of a list that has no label, or one that is no whole number.

    Args:
        path: of a text file whose lines are the path of an image, a blank and its label.

    Returns:
        What is wrong, None for a list that can be read.
    """
    try:
        with open(path, encoding='utf-8') as file:
            lines = [line.strip() for line in file]
    except UnicodeDecodeError as error:
        return f'{path!r} is no text: {error.reason}'
    # Millions of lines have few labels: each is converted once.
    bad = {label for label in {_label(line) for line in lines} if not _is_whole(label)}
    if not bad and all(' ' in line for line in lines):
        return None
    number, line = next(
        (number, line)
        for number, line in enumerate(lines, start=1)
        if ' ' not in line or _label(line) in bad
    )
    return (
        f'line {number} of {path!r} is {printable(line)!r}, but each line must be the path of an '
        'image, a blank and the number of its class (with_label=False for a list without labels)'
    )


def _label(line: str) -> str:
    return line.rpartition(' ')[2]


def _is_whole(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True
