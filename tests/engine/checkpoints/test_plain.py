"""What mmengine puts into a checkpoint, in types that every reader of torch knows."""

import collections
import copy
import enum
import pathlib

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OptimWrapper

from mmwave.engine.checkpoints.plain import (
    HISTORIES,
    make_plain,
    same_metainfo,
    with_histories,
)
from mmwave.errors import UserError


class Colour(enum.IntEnum):
    RED = 3


class Text(str):
    """A subclass."""


Pair = collections.namedtuple('Pair', 'a b')

VALUES = {
    'float': (np.float32(0.1), float(np.float32(0.1))),
    'double': (np.float64(0.1), 0.1),
    'int': (np.int64(-7), -7),
    'byte': (np.uint8(255), 255),
    'bool': (np.bool_(True), True),
    'complex': (np.complex64(1j), 1j),
    'enum': (Colour.RED, 3),
    'text': (np.str_('a'), 'a'),
    'own text': (Text('b'), 'b'),
    'bytes': (np.bytes_(b'c'), b'c'),
    'path': (pathlib.PurePosixPath('a/b'), 'a/b'),
    'config': (ConfigDict(a=dict(b=np.int8(1))), {'a': {'b': 1}}),
    'default': (collections.defaultdict(list, a=[np.int8(1)]), {'a': [1]}),
    'named': (Pair(1, np.int8(2)), (1, 2)),
    'queue': (collections.deque([np.int8(2)], 3), [2]),
    'frozen': (frozenset({np.int8(2)}), {2}),
    'keys': ({np.int64(2): 1}, {2: 1}),
    'texts': (np.array(['a', 'b']), ['a', 'b']),
    'wide': (np.array([1.5], np.longdouble), [1.5]),
    'milestones': (collections.Counter({2: np.int64(1)}), collections.Counter({2: 1})),
}


def kinds(value):
    """The types in a value, for ``1 == True == 1.0``."""
    if isinstance(value, dict):
        return type(value), [(kinds(k), kinds(v)) for k, v in value.items()]
    if isinstance(value, list | tuple | set):
        return type(value), list(map(kinds, value))
    return type(value)


def through_file(content, tmp_path):
    torch.save(content, tmp_path / 'a.pth')
    return torch.load(tmp_path / 'a.pth', weights_only=True)


@pytest.mark.parametrize(('given', 'wanted'), VALUES.values(), ids=VALUES)
@pytest.mark.parametrize('part', ['meta', 'runtime'])
def test_plain_values(tmp_path, part, given, wanted):
    content = {part: {'x': [given]}}
    assert make_plain(content) == []
    (found,) = through_file(content, tmp_path)[part]['x']
    assert found == wanted
    assert kinds(found) == kinds(wanted)


def test_arrays_are_tensors_and_in_meta_lists(tmp_path):
    array = np.arange(6, dtype=np.int16).reshape(2, 3).T
    content = {'meta': {'palette': array}, 'average': array}
    make_plain(content)
    read = through_file(content, tmp_path)
    assert read['meta']['palette'] == array.tolist()
    assert read['average'].dtype == torch.int16
    np.testing.assert_array_equal(read['average'].numpy(), array)


def test_tensors_and_versions_of_modules_stay(tmp_path):
    state = torch.nn.BatchNorm1d(2).state_dict()
    content = {'state_dict': state, 'optimizer': {'state': {0: {'step': torch.tensor(2.0)}}}}
    make_plain(content)
    read = through_file(content, tmp_path)
    assert type(read['state_dict']) is collections.OrderedDict
    assert read['state_dict']._metadata == state._metadata
    torch.testing.assert_close(read['state_dict'], state, rtol=0, atol=0)


def test_what_has_no_plain_form_is_named_and_stays():
    owner = object()
    content = {'meta': {'a': [1, owner]}, 'b': owner}
    assert make_plain(content) == ['meta.a[1] of type builtins.object', 'b of type builtins.object']
    assert content['meta']['a'][1] is content['b'] is owner


def test_what_is_copied_is_not_changed():
    group = {'lr': np.float64(0.5), 'betas': (np.float64(0.9), 0.99)}
    content = {'optimizer': {'param_groups': [group]}}
    make_plain(content)
    assert type(group['lr']) is type(group['betas'][0]) is np.float64
    assert type(content['optimizer']['param_groups'][0]['lr']) is float


def test_optimizers_of_several_rates_with_the_scale_of_a_loss(tmp_path):
    """With what constructors of layer-wise rates note in groups, some of it of NumPy."""
    layer = torch.nn.Linear(2, 2)
    groups = [
        dict(params=[p], lr=np.float64(0.1) ** i, lr_scale=np.float32(0.5), group_name=f'layer_{i}')
        for i, p in enumerate(layer.parameters(), 1)
    ]
    scaler = torch.amp.GradScaler('cpu', init_scale=np.float32(8.0))
    wrapper = OptimWrapper(torch.optim.AdamW(groups), accumulative_counts=2)
    wrapper.update_params(layer(torch.ones(2)).sum())
    wrapper.update_params(layer(torch.ones(2)).sum())
    wanted = wrapper.state_dict()
    content = {
        'optimizer': {**wanted, 'loss_scaler': {**scaler.state_dict(), 'scale': np.float32(8)}}
    }
    assert make_plain(content) == []
    read = through_file(content, tmp_path)['optimizer']
    assert read.pop('loss_scaler') == {**scaler.state_dict(), 'scale': 8.0}
    torch.testing.assert_close(read['state'], wanted['state'], rtol=0, atol=0)
    assert read['param_groups'] == wanted['param_groups']
    assert {type(group['lr']) for group in read['param_groups']} == {float}
    wrapper.load_state_dict(read)


# -- Histories ---------------------------------------------------------------------------------


@pytest.fixture
def hub():
    hub = MessageHub('of a run')
    hub.update_scalar('train/loss', 0.25)
    hub.update_scalar('train/loss', np.float32(0.1), 3)
    hub.update_scalar('train/time', 1.0, resumed=False)
    hub.update_info('epoch', np.int64(2))
    hub.update_info('best_score', np.float32(0.5))
    hub.update_info('gone', 1, resumed=False)
    hub.log_scalars['train/long'] = HistoryBuffer([1, 2], [1, 1], max_length=2)
    hub._resumed_keys['train/long'] = True
    return hub


@pytest.fixture
def saved(hub, tmp_path):
    """The state of a hub, written and read."""
    content = {'message_hub': hub.state_dict()}
    assert make_plain(content) == []
    return through_file(content, tmp_path)['message_hub']


def test_histories_come_back_as_they_were(hub, saved):
    wanted = hub.state_dict()
    restored = with_histories(saved)
    assert HISTORIES not in restored
    assert restored['runtime_info'] == wanted['runtime_info']
    flags = {name: flag for name, flag in wanted['resumed_keys'].items() if flag}
    assert restored['resumed_keys'] == flags
    assert restored['log_scalars'].keys() == wanted['log_scalars'].keys()
    for name, history in wanted['log_scalars'].items():
        found = restored['log_scalars'][name]
        assert type(found) is HistoryBuffer
        assert found.max_length == history.max_length
        for mine, theirs in zip(found.data, history.data, strict=True):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)
        found.update(1.0)


def test_mmengine_loads_the_rest_without_a_word(saved, caplog, capsys):
    other = MessageHub('of a stock run')
    other.load_state_dict(saved)
    assert other.get_info('epoch') == 2
    assert not other.log_scalars
    assert not caplog.records
    assert capsys.readouterr().out == ''


def test_the_hub_of_mmengine_stays_as_it_is(hub):
    state = hub.state_dict()
    assert with_histories(state) is state
    assert with_histories(None) is None


def damaged(saved, **values):
    entry = {**saved[HISTORIES]['train/loss'], **values}
    return {**saved, HISTORIES: {'train/loss': entry}}


@pytest.mark.parametrize(
    'values',
    [
        dict(values=[1.0, 2.0]),
        dict(values=torch.ones(1, 2)),
        dict(values=torch.ones(2) * 1j),
        dict(values=torch.ones(3)),
        dict(values=torch.ones(0), counts=torch.ones(0)),
        dict(max_length=1),
        dict(max_length='x'),
        dict(counts=None),
    ],
)
def test_damaged_histories_are_one_line(saved, values):
    with pytest.raises(UserError, match=r"its message_hub\.histories holds .*'train/loss'") as told:
        with_histories(damaged(saved, **values))
    assert '\n' not in str(told.value)


def test_histories_that_are_no_dict(saved):
    with pytest.raises(UserError, match=r'histories is \[\], expected a dict'):
        with_histories({**saved, HISTORIES: []})
    with pytest.raises(UserError, match='no history of numbers as 5'):
        with_histories({**saved, HISTORIES: {5: 1.0}})


# -- Data sets ---------------------------------------------------------------------------------


def test_a_description_is_known_again():
    own = {'classes': ('a', 'b'), 'palette': np.eye(3)}
    content = {'meta': {'dataset_meta': own}}
    make_plain(content)
    noted = copy.deepcopy(content['meta']['dataset_meta'])
    assert same_metainfo(noted, own)
    assert not same_metainfo({**noted, 'classes': ('a', 'c')}, own)
    assert not same_metainfo({**noted, 'palette': np.eye(3)}, own)  # ambiguous, which is no error
    assert not same_metainfo(None, own)
