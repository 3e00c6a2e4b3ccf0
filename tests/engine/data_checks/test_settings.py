"""The setting ``data_check`` of a config."""

import pytest

from mmwave.engine.data_checks.settings import data_check_hooks
from mmwave.errors import UserError
from mmwave.registry import HOOKS


@pytest.mark.parametrize('off', [False, None])
def test_off(off):
    assert data_check_hooks(off) == []


def test_on():
    (hook,) = data_check_hooks(True)
    assert HOOKS.build(hook).max_broken_images == 10
    (hook,) = data_check_hooks({'max_broken_images': 3, 'max_headers': None})
    built = HOOKS.build(hook)
    assert (built.max_broken_images, built.max_headers, built.max_files) == (3, None, 2000)


def test_what_is_no_setting():
    with pytest.raises(UserError, match=r'^data_check has no max_file: accepted are max_files, '):
        data_check_hooks({'max_file': 3})
    expected = "^data_check='of' must be True, False or a dict of max_files, "
    with pytest.raises(UserError, match=expected):
        data_check_hooks('of')
    expected = '^data_check: max_headers must be None or at least 1, got 0$'
    with pytest.raises(UserError, match=expected):
        data_check_hooks({'max_headers': 0})
