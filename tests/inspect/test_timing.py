"""Turns, medians and quartiles of timings, and the machine's line."""

import gc
import os
import time

import pytest
import torch

from mmwave.inspect.timing import ALLOCATOR, Ratio, Timing, _processor, alternate, machine


def test_candidates_take_turns_and_the_first_rounds_do_not_count():
    calls = []
    names = ('a', 'b', 'c')
    times = alternate({n: lambda n=n: calls.append(n) for n in names}, repeats=3, warmup=2)
    assert ''.join(calls) == 'abc' + 'cba' + 'abc' + 'cba' + 'abc'
    assert {n: (len(t.wall), len(t.cpu)) for n, t in times.items()} == dict.fromkeys(names, (3, 3))


def test_wall_and_processor_time_are_told_apart():
    def work():
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass

    times = alternate({'sleep': lambda: time.sleep(0.02), 'work': work}, repeats=2)
    assert times['sleep'].cpu_median < 0.01 < 0.02 <= times['sleep'].median
    assert times['work'].cpu_median >= 0.02


def test_the_collector_is_off_inside_and_on_again_after_an_error():
    seen = []
    alternate({'a': lambda: seen.append(gc.isenabled())}, repeats=2)
    assert seen == [False] * 3
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        alternate({'a': lambda: 1 / 0}, repeats=2)
    assert gc.isenabled()


def test_medians_and_quartiles():
    slow, fast = (
        Timing((8.0, 2.0, 6.0, 3.0, 4.0), (5.0,) * 5),
        Timing((2.0, 2.0, 3.0, 1.0, 1.0), ()),
    )
    assert (slow.median, slow.iqr, slow.cpu_median) == (4.0, 3.0, 5.0)
    # Round by round: 4, 1, 2, 3, 4.
    assert Ratio.of(slow.wall, fast.wall) == Ratio(low=2.0, median=3.0, high=4.0)


def test_processors_of_one_name_are_told_apart(tmp_path):
    listing = tmp_path / 'cpuinfo'
    core = 'processor\t: {}\ncpu family\t: 25\nmodel\t\t: {}\nmodel name\t: A Name\n\n'
    listing.write_text(core.format(0, 17) + core.format(1, 18))
    assert _processor(listing) == 'A Name (family 25 model 17)'
    listing.write_text('processor\t: 0\nmodel name\t: A Name\n')
    assert _processor(listing) == 'A Name'
    assert _processor(tmp_path / 'none')  # what the platform says


def test_the_machine_in_one_line(monkeypatch):
    for name in ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    line = machine()
    cores = len(os.sched_getaffinity(0))
    assert line.endswith(
        f', {cores} cores, {torch.get_num_threads()} threads, torch {torch.__version__}'
    )
    assert '\n' not in line
    assert not line.startswith(',')
    monkeypatch.setenv(ALLOCATOR[0], '1')
    assert machine() == f'{line}, {ALLOCATOR[0]}=1'
