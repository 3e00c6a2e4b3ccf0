"""Kinds of faults are counted, the first few offenders named."""

from mmwave.engine.data_checks.coco_tally import CocoTally, Level


def test_lines_in_the_order_of_the_levels():
    tally = CocoTally()
    for number in range(7):
        tally.add(Level.REMARK, 'odd', f'id {number}')
    tally.add(Level.BUILD, 'bad', 'id 9')
    odd = '7 odd: id 0, id 1, id 2, id 3, id 4, … and 2 more'
    assert tally.lines(Level.BUILD, Level.REMARK) == ['1 bad: id 9', odd]
    assert tally.lines(Level.METRIC) == []
