"""The page on reliability: every fault in it is shown by a test that is there."""

import ast
import re

import pytest

from tests.contracts import ROOT

PAGE = (ROOT / 'docs/reliability.md').read_text()
HEAD = '| fault | what happens | promised | shown by |'


def tables() -> list[str]:
    return re.findall(rf'{re.escape(HEAD)}\n\|[-|]+\|\n((?:\|.*\n)+)', PAGE)


def rows() -> list[list[str]]:
    lines = [line for table in tables() for line in table.splitlines()]
    return [[cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]] for line in lines]


def test_every_table_is_read():
    assert len(tables()) == PAGE.count(HEAD) > 1


@pytest.mark.parametrize('row', rows(), ids=lambda row: row[0])
def test_a_fault_is_shown(row):
    fault, happens, _, shown = row
    assert fault
    assert happens
    tests = re.findall(r'`(tests/[^`]+)`', shown)
    assert tests, shown
    for test in tests:
        path, *names = test.split('::')
        nodes = ast.parse((ROOT / path).read_text()).body
        assert names, test
        for name in names:
            (node,) = [n for n in nodes if getattr(n, 'name', None) == name]
            nodes = getattr(node, 'body', [])
