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
