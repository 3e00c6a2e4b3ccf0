"""The share of loading in the time of steps."""

import pytest

from mmwave.engine.watching.slow_loader import LoadingShare


def test_first_steps_are_left_out_and_windows_follow_each_other():
    share = LoadingShare(first=2, window=4)
    assert [share.add(9, 9) for _ in range(2)] == [None, None]
    assert [share.add(1, 4) for _ in range(4)] == [None, None, None, 0.25]
    assert [share.add(3, 4) for _ in range(4)][-1] == 0.75


@pytest.mark.parametrize('window', [1, 100])
def test_no_time_is_no_share(window):
    share = LoadingShare(first=0, window=window)
    assert [share.add(0, 0) for _ in range(window)][-1] == 0
