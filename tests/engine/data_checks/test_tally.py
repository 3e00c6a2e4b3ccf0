"""Faults are counted by kind, and the first are shown."""

from mmwave.engine.data_checks.tally import add_tally, count_fault, tally_lines


def test_all_are_counted_and_the_first_are_shown():
    tally = {}
    for number in range(7):
        count_fault(tally, 'broken', f'file {number}', number)
    count_fault(tally, 'of the whole', 'x')
    first = ', '.join(f'file {number}' for number in range(5))
    assert tally_lines(tally) == [f'7 broken: {first}, … and 2 more', '1 of the whole: x']


def test_tallies_are_added_up_and_the_parts_stay():
    left, right, total = {}, {}, {}
    for tally, numbers in ((left, (1, 5, 9)), (right, (0, 4, 8, 12))):
        for number in numbers:
            count_fault(tally, 'broken', f'file {number}', number)
    for part in (left, right):
        add_tally(total, part)
    shown = ', '.join(f'file {number}' for number in (0, 1, 4, 5, 8))
    assert tally_lines(total) == [f'7 broken: {shown}, … and 2 more']
    assert left['broken'][0] == 3
    assert [index for index, _ in left['broken'][1]] == [1, 5, 9]
