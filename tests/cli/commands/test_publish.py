"""``mmwave publish``: what it prints, and how it ends."""

import sys

import pytest
import torch

from mmwave.cli.program import main


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['mmwave', 'publish', *map(str, arguments)])
    monkeypatch.setenv('LOCAL_RANK', '0')
    main()


@pytest.fixture
def checkpoint(tmp_path):
    state = torch.nn.Linear(2, 3).state_dict()
    averaged = {f'module.{name}': tensor + 1 for name, tensor in state.items()}
    content = {'state_dict': state, 'ema_state_dict': averaged, 'optimizer': torch.ones(9999)}
    torch.save(content, tmp_path / 'epoch_1.pth')
    return tmp_path / 'epoch_1.pth'


@pytest.mark.parametrize(
    ('options', 'which'),
    [((), 'averaged (EMA)'), (('--ema',), 'averaged (EMA)'), (('--no-ema',), 'raw, not averaged')],
)
def test_what_is_printed(checkpoint, tmp_path, monkeypatch, capsys, options, which):
    call(monkeypatch, checkpoint, '--out', tmp_path / 'out', '--name', 'my', *options)
    written = capsys.readouterr().out.splitlines()
    (file,) = (tmp_path / 'out').glob('my-*.safetensors')
    assert written[0] == f'weights: {which}, 2 tensors'
    sizes = [int(line.split()[1].replace(',', '')) for line in written if ' bytes ' in line]
    assert sizes == [checkpoint.stat().st_size, file.stat().st_size]
    assert written[-1].startswith(f'card: {file.with_suffix(".md")}')
    assert any(line.startswith('warning: ') for line in written)


def test_the_format(checkpoint, tmp_path, monkeypatch):
    call(monkeypatch, checkpoint, '--out', tmp_path / 'out', '--format', 'pth')
    (file,) = (tmp_path / 'out').glob('epoch_1-*.pth')
    assert torch.load(file).keys() == {'state_dict', 'meta'}


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    torch.save({'weight': torch.tensor([float('nan')])}, tmp_path / 'a.pth')
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, tmp_path / 'a.pth')
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: {tmp_path}/a.pth: 1 tensors hold 1 NaN')
    assert [path.name for path in tmp_path.iterdir()] == ['a.pth']
