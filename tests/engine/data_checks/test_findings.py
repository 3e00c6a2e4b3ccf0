"""Findings of several processes."""

from mmwave.engine.data_checks.findings import Findings


def test_findings_of_all_are_added_up():
    parts = [Findings(samples=2, boxes=1), Findings(samples=3, label_maps=4, degenerate=5)]
    for index, part in zip((7, 3), parts, strict=True):
        for step in range(4):
            part.add('broken', index + 10 * step, f'file {index + 10 * step}')
    total = Findings.merged(parts)
    assert (total.samples, total.boxes, total.label_maps, total.degenerate) == (5, 1, 4, 5)
    (line,) = total.errors()
    assert line == '8 broken: file 3, file 7, file 13, file 17, file 23, … and 3 more'


def test_what_is_put_aside_is_settled_on_the_sum():
    parts = [Findings(opened=2), Findings(opened=3)]
    for index, part in enumerate(parts):
        part.put_aside('odd', index, f'file {index}')
    total = Findings.merged(parts)
    assert (total.opened, total.errors(), total.warnings()) == (5, [], [])
    total.settle('odd', fault=False, meaning='odd ones')
    assert (total.errors(), total.warnings()) == ([], ['2 odd ones: file 0, file 1'])
    again = Findings.merged(parts)
    again.settle('odd', fault=True, meaning='too odd')
    assert (again.errors(), again.aside) == (['2 too odd: file 0, file 1'], {})
