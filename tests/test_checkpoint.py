"""Reading weight files without running code, and loading weights loudly."""

import argparse
import http.server
import io
import os
import pickle
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from mmengine.runner import checkpoint as mm_checkpoint
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Dataset

from mmwave.checkpoint import (
    TRUST_FLAG,
    LoadReport,
    UntrustedCheckpointError,
    container_of,
    load_matching,
    read_checkpoint,
    register_safe_loader,
    sha256_of,
    state_dict_of,
)


class Calls:
    """Pickles to ``function(*arguments)``: what reading it in full would run."""

    def __init__(self, function, *arguments, state=None):
        self.recipe = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.recipe


@pytest.fixture
def marker(tmp_path):
    return tmp_path / 'payload_ran'


def payload(marker):
    return Calls(os.system, f'touch {marker}')


# -- Reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_reads_what_training_tools_save(tmp_path, zipped):
    history = HistoryBuffer([1.0, 3.0], [1, 1], max_length=7)
    saved = {
        'state_dict': {'a': torch.arange(6.0).reshape(2, 3)},
        'args': argparse.Namespace(lr=0.1, betas=(0.9, np.float32(0.5)), mean=np.ones(3)),
        'history': {'loss': history, 'same': history},
        'arrays': [
            np.arange(6.0).reshape(2, 3).T,
            np.arange(3, dtype='>i2'),
            np.array(['ab', 'c']),
            np.array(2.5, dtype=np.float16),
        ],
        'scalars': (np.float64(2.5), np.int64(-3), np.bool_(True)),
        'dtype': np.dtype('float32'),
    }
    path = tmp_path / 'a.pth'
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    got = read_checkpoint(path)
    assert torch.equal(got['state_dict']['a'], saved['state_dict']['a'])
    assert got['args'].lr == 0.1
    assert got['args'].betas == (0.9, np.float32(0.5))
    np.testing.assert_array_equal(got['args'].mean, np.ones(3))
    for array, want in zip(got['arrays'], saved['arrays'], strict=True):
        np.testing.assert_array_equal(array, want, strict=True)
    assert got['scalars'] == saved['scalars']
    assert [type(s) for s in got['scalars']] == [np.float64, np.int64, np.bool_]
    assert got['dtype'] == np.float32
    loss = got['history']['loss']
    assert type(loss) is HistoryBuffer
    assert got['history']['same'] is loss
    assert loss.max_length == 7
    assert loss.statistics('mean') == 2.0
    loss.update(5.0)
    assert loss.current() == 5.0


def test_reads_safetensors_with_its_metadata(tmp_path):
    path = tmp_path / 'weights'
    save_file({'a': torch.ones(2)}, path, metadata={'arch': 't', 'backbone': '{"depths": [1]}'})
    got = read_checkpoint(path)
    assert torch.equal(got['state_dict']['a'], torch.ones(2))
    assert got['meta'] == {'arch': 't', 'backbone': {'depths': [1]}}


def test_tensors_come_to_the_host(tmp_path):
    torch.save({'a': torch.ones(2, device='meta')}, tmp_path / 'a.pth')
    torch.save({'a': torch.ones(2)}, tmp_path / 'b.pth')
    with torch.device('meta'):
        assert read_checkpoint(tmp_path / 'b.pth')['a'].device.type == 'cpu'


@pytest.mark.parametrize('path_type', [str, Path])
def test_missing_file(tmp_path, path_type):
    with pytest.raises(FileNotFoundError, match=r'no checkpoint file .*nowhere\.pth'):
        read_checkpoint(path_type(tmp_path / 'nowhere.pth'))
    with pytest.raises(FileNotFoundError, match='no checkpoint file'):
        read_checkpoint(path_type(tmp_path))


def test_container_of_goes_by_content(tmp_path):
    path = tmp_path / 'a.pth'
    for content, kind in (
        (torch_file(), 'torch'),
        (torch_file(zipped=False), 'torch'),
        (safetensors_file(tmp_path), 'safetensors'),
        (b'{"json": {}}', 'other'),
        (b'nothing {of the} kind', 'other'),
    ):
        path.write_bytes(content)
        assert container_of(path) == kind


# -- Refusing ----------------------------------------------------------------------------------

SAVERS = {
    'zip': lambda content, path: torch.save(content, path),
    'legacy': lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    'protocol-4': lambda content, path: torch.save(content, path, pickle_protocol=4),
    'plain-pickle': lambda content, path: path.write_bytes(pickle.dumps(content)),
}


@pytest.mark.parametrize('save', SAVERS.values(), ids=SAVERS)
@pytest.mark.parametrize(
    'hide',
    [
        lambda evil: evil,
        lambda evil: {'state_dict': {'a': torch.ones(1)}, 'args': argparse.Namespace(lr=evil)},
    ],
    ids=['whole', 'in-args'],
)
def test_payload_is_refused_by_name_and_runs_only_when_trusted(tmp_path, marker, save, hide):
    path = tmp_path / 'evil.pth'
    save(hide(payload(marker)), path)
    with pytest.raises(UntrustedCheckpointError) as caught:
        read_checkpoint(path)
    assert not marker.exists()
    assert 'posix.system' in str(caught.value)
    assert str(path) in str(caught.value)
    assert TRUST_FLAG in str(caught.value)
    if save is not SAVERS['plain-pickle']:  # torch.load reads no plain pickles
        read_checkpoint(path, trust=True)
        assert marker.exists()


def test_every_name_asked_for_is_listed(tmp_path):
    path = tmp_path / 'evil.pth'
    torch.save([Calls(eval, '1'), nn.Linear(1, 1), Calls(os.getcwd)], path)
    with pytest.raises(UntrustedCheckpointError) as caught:
        read_checkpoint(path)
    for name in ('builtins.eval', 'torch.nn.modules.linear.Linear', 'posix.getcwd'):
        assert name in str(caught.value)
    assert 'collections.OrderedDict' not in str(caught.value)


@pytest.mark.parametrize(
    ('content', 'named'),
    [
        (Calls(getattr, HistoryBuffer, '__init__'), "getattr of .*, '__init__'"),
        (Calls(getattr, argparse.Namespace, 'mean'), "getattr of .*Namespace.*, 'mean'"),
        (Calls(getattr, [], 'append'), "'append'"),
        (np.array([None, 'a'], dtype=object), 'dtype object'),
        (np.zeros(1, dtype=[('x', 'f4')]), 'dtype'),
        (np.ma.masked_array([1.0]), 'numpy.ma'),
        (
            Calls(np._core.multiarray._reconstruct, np.dtype, (0,), b'b'),
            'subclass of numpy.ndarray',
        ),
    ],
)
def test_allowed_names_serve_nothing_else(tmp_path, content, named):
    path = tmp_path / 'evil.pth'
    torch.save({'a': content}, path)
    with pytest.raises(UntrustedCheckpointError, match=named):
        read_checkpoint(path)


def test_a_forged_dtype_cannot_turn_bytes_into_object_pointers(tmp_path):
    holds_objects = 0x3F
    state = (3, '<', None, None, None, -1, -1, holds_objects)
    dtype = Calls(np.dtype, 'f8', False, True, state=state)
    content = (1, (1,), dtype, False, np.float64(2.5).tobytes())
    array = Calls(np._core.multiarray._reconstruct, np.ndarray, (0,), b'b', state=content)
    torch.save({'a': array}, tmp_path / 'forged.pth')
    got = read_checkpoint(tmp_path / 'forged.pth')['a']
    assert got == [2.5]
    assert not got.dtype.hasobject


def test_functions_of_a_history_are_not_taken_from_the_file(tmp_path):
    history = HistoryBuffer([1.0], [1])
    state = {**vars(history), 'statistics_methods': {'mean': argparse.Namespace}}
    state.pop('_statistics_methods', None)
    torch.save([Calls(HistoryBuffer, state=state)], tmp_path / 'a.pth')
    got = read_checkpoint(tmp_path / 'a.pth')[0]
    assert got.statistics('mean') == 1.0
    assert HistoryBuffer._statistics_methods['mean'] is HistoryBuffer.mean


def test_the_list_is_ours_alone_and_theirs_is_kept(tmp_path):
    torch.save({'a': Calls(os.path.join, 'b')}, tmp_path / 'a.pth')
    with torch.serialization.safe_globals([os.path.join, argparse.Namespace]):
        before = set(torch.serialization.get_safe_globals())
        assert torch.load(tmp_path / 'a.pth', weights_only=True) == {'a': 'b'}
        with pytest.raises(UntrustedCheckpointError, match=r'posixpath\.join'):
            read_checkpoint(tmp_path / 'a.pth')
        assert set(torch.serialization.get_safe_globals()) == before


# -- Damage ------------------------------------------------------------------------------------


def torch_file(zipped=True):
    content = io.BytesIO()
    saved = {'state_dict': {'a': torch.ones(300)}, 'sizes': np.ones(2)}
    torch.save(saved, content, _use_new_zipfile_serialization=zipped)
    return content.getvalue()


def safetensors_file(folder):
    save_file({'a': torch.ones(300)}, folder / 'whole')
    return (folder / 'whole').read_bytes()


@pytest.mark.parametrize('trust', [False, True])
@pytest.mark.parametrize(
    'content',
    [
        lambda _: b'',
        lambda _: b'just text, no weights',
        lambda _: torch_file()[: len(torch_file()) // 2],
        lambda _: torch_file()[:-30],
        lambda _: torch_file(zipped=False)[:200],
        lambda _: torch_file(zipped=False)[:-5],
        lambda folder: safetensors_file(folder)[:-5],
        lambda folder: safetensors_file(folder)[:12],
        lambda _: b'PK\x03\x04 and no more',
        lambda _: b'\x80',
    ],
    ids=lambda value: '' if isinstance(value, bool) else None,
)
def test_damage_is_named_with_the_size(tmp_path, content, trust):
    path = tmp_path / 'cut.pth'
    path.write_bytes(content(tmp_path))
    size = path.stat().st_size
    with pytest.raises(ValueError, match='damaged or not a checkpoint') as caught:
        read_checkpoint(path, trust=trust)
    assert f'cut.pth is damaged or not a checkpoint ({size} bytes)' in str(caught.value)
    assert not isinstance(caught.value, UntrustedCheckpointError)


def test_another_zip_archive_is_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as archive:
        archive.writestr('hello.txt', 'hello')
    with pytest.raises(ValueError, match=r'not a checkpoint \(\d+ bytes\)'):
        read_checkpoint(tmp_path / 'a.pth')


def test_a_list_that_holds_itself_is_read(tmp_path):
    endless = [1]
    endless.append(endless)
    torch.save(endless, tmp_path / 'a.pth')
    got = read_checkpoint(tmp_path / 'a.pth')
    assert got[1] is got


# -- Weights in a checkpoint -------------------------------------------------------------------


@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: {'state_dict': s, 'epoch': 1}])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_state_dict_of(wrap, prefix):
    a, b = torch.ones(1), torch.zeros(2)
    assert state_dict_of(wrap({f'{prefix}a': a, f'{prefix}b.c': b})) == {'a': a, 'b.c': b}


def test_state_dict_of_model_entry_and_a_module_called_module():
    a, b = torch.ones(1), torch.zeros(2)
    assert state_dict_of({'model': {'a': a}}) == {'a': a}
    assert state_dict_of({'module.a': a, 'b': b}) == {'module.a': a, 'b': b}


@pytest.mark.parametrize(
    ('checkpoint', 'error', 'message'),
    [
        ([1], TypeError, 'must be a dict, not list'),
        ({}, ValueError, '0 tensors'),
        ({'epoch': 3, 'net': {}}, ValueError, 'other entries: epoch, net'),
        ({'state_dict': {'a': torch.ones(1), 'b': 2}}, ValueError, "'state_dict'.*: 1 tens.* b;"),
    ],
)
def test_state_dict_of_something_else(checkpoint, error, message):
    with pytest.raises(error, match=message):
        state_dict_of(checkpoint)


def test_sha256_of(tmp_path):
    (tmp_path / 'abc').write_bytes(b'abc')  # the example of FIPS 180-2
    assert sha256_of(tmp_path / 'abc') == (
        'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    )


# -- Loading -----------------------------------------------------------------------------------


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


NAMES = [
    '0.weight',
    '0.bias',
    '1.weight',
    '1.bias',
    '1.running_mean',
    '1.running_var',
    '2.weight',
    '2.bias',
]


def filled(module):
    return {k: torch.full_like(v, 3) for k, v in module.state_dict().items()}


def test_load_matching_loads_all():
    module = small()
    report = load_matching(module, filled(module), source='w.pth', min_fraction=1.0)
    assert report == LoadReport(tuple(NAMES), (), (), (), 'w.pth')
    assert report.summary() == 'loaded 8 of 8 tensors from w.pth'
    assert all(torch.all(v == 3) for v in module.state_dict().values())


def test_load_matching_reports_what_did_not_match():
    module = small()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = filled(module)
    state['2.weight'], state['2.bias'] = torch.full((4, 2, 1, 1), 3.0), torch.full((5,), 3.0)
    state['head.weight'] = torch.ones(1)
    del state['1.bias'], state['1.num_batches_tracked']
    report = load_matching(module, state)
    assert set(report.loaded) == set(NAMES) - {'2.weight', '2.bias', '1.bias'}
    assert report.missing == ('1.bias',)
    assert report.unexpected == ('head.weight',)
    assert {k: (a, b) for k, a, b in report.mismatched} == {
        '2.weight': ((4, 2, 1, 1), (2, 4, 1, 1)),
        '2.bias': ((5,), (2,)),
    }
    summary = report.summary()
    assert 'loaded 5 of 8 tensors from a state dict' in summary
    for text in ('1 not in it, left as they were: 1.bias', 'head.weight', '4 x 2 x 1 x 1 for 2 x'):
        assert text in summary
    after = module.state_dict()
    assert all(torch.all(after[name] == 3) for name in report.loaded)
    for name in ('1.bias', '2.weight', '1.num_batches_tracked'):
        assert torch.equal(after[name], before[name])


def test_load_matching_stops_below_half_and_changes_nothing():
    module = small()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = filled(module)
    half = {name: state[name] for name in NAMES[:4]}
    assert len(load_matching(small(), half).loaded) == 4
    counter = {'1.num_batches_tracked': torch.tensor(3)}
    below = {**{name: state[name] for name in NAMES[:3]}, **counter, 'x.y': torch.ones(1)}
    with pytest.raises(ValueError, match=r'loaded 3 of 8 tensors from w\.pth') as caught:
        load_matching(module, below, source='w.pth')
    for text in ('5 not in it', '1.bias', '1 in it but not in the module: x.y', 'at least 50%'):
        assert text in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    load_matching(module, below, min_fraction=0.25)
    assert torch.all(module.state_dict()['0.weight'] == 3)


def test_load_matching_takes_a_prefix():
    module = small()
    state = {f'backbone.{k}': v for k, v in filled(module).items()} | {'head.w': torch.ones(1)}
    report = load_matching(module, state, prefix='backbone.')
    assert report.loaded == tuple(NAMES)
    assert report.unexpected == ()


@pytest.mark.parametrize('lead', ['module.', 'backbone.', 'model.backbone.'])
def test_load_matching_hints_at_the_prefix_in_the_file(lead):
    state = {f'{lead}{k}': v for k, v in filled(small()).items()}
    with pytest.raises(ValueError, match=f"with the prefix '{lead}' taken off its names 8 would"):
        load_matching(small(), state)


def test_load_matching_hints_at_a_wrong_prefix_and_at_a_part_of_the_module():
    state = filled(small())
    with pytest.raises(ValueError, match="with the prefix '' taken off its names 8 would"):
        load_matching(small(), state, prefix='backbone.')
    whole = nn.ModuleDict({'backbone': small(), 'head': nn.Linear(2, 2)})
    with pytest.raises(ValueError, match="8 would in the part 'backbone' of the module"):
        load_matching(whole, state)


def test_load_matching_without_a_fitting_prefix_gives_no_hint():
    with pytest.raises(ValueError, match=r'at least 50% must match$'):
        load_matching(small(), {'stem.w': torch.ones(1)})


@pytest.mark.parametrize('fraction', [-0.1, 1.5])
def test_load_matching_checks_the_fraction(fraction):
    with pytest.raises(ValueError, match=f'min_fraction={fraction}'):
        load_matching(small(), {}, min_fraction=fraction)


# -- mmengine ----------------------------------------------------------------------------------


@pytest.fixture
def loader():
    """Undo what register_safe_loader does to this process."""
    schemes, from_http = dict(CheckpointLoader._schemes), mm_checkpoint.load_from_http
    yield
    CheckpointLoader._schemes = schemes
    mm_checkpoint.load_from_http = from_http


@pytest.fixture
def website(tmp_path, monkeypatch):
    """A folder, and the address it is served at."""
    folder = tmp_path / 'site'
    folder.mkdir()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            """Quiet."""

    with http.server.HTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def test_mmengine_refuses_a_payload_that_it_would_run(tmp_path, marker, loader):
    path = tmp_path / 'evil.pth'
    torch.save({'state_dict': {}, 'x': payload(marker)}, path)
    register_safe_loader()
    with pytest.raises(UntrustedCheckpointError, match=r'posix\.system'):
        load_checkpoint(small(), str(path))
    assert not marker.exists()
    register_safe_loader(trust=True)
    load_checkpoint(small(), str(path))
    assert marker.exists()


def test_mmengine_reads_downloads_safely(website, marker, loader, monkeypatch):
    folder, address = website
    torch.save({'x': payload(marker)}, folder / 'evil.pth')
    torch.save({'a': torch.ones(2)}, folder / 'good.pth')
    register_safe_loader()
    with pytest.raises(UntrustedCheckpointError, match=r'posix\.system'):
        CheckpointLoader.load_checkpoint(f'{address}/evil.pth')
    good = CheckpointLoader.load_checkpoint(f'{address}/good.pth?version=1')
    assert torch.equal(good['a'], torch.ones(2))
    zoo = {'evil': f'{address}/evil.pth'}
    monkeypatch.setattr(mm_checkpoint, 'get_torchvision_models', lambda: zoo)
    with pytest.raises(UntrustedCheckpointError, match=r'posix\.system'):
        CheckpointLoader.load_checkpoint('torchvision://evil')
    assert not marker.exists()


@pytest.mark.parametrize('path', ['s3://b/x.pth', 'petrel://b/x.pth', 'c:s3://x', 'pavi://x'])
def test_mmengine_reads_no_object_stores(loader, path):
    register_safe_loader()
    with pytest.raises(ValueError, match='cannot be read safely'):
        CheckpointLoader.load_checkpoint(path)


class Points(Dataset):
    METAINFO = {'classes': ('a', 'b'), 'palette': np.arange(6).reshape(2, 3)}
    metainfo = METAINFO

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {'inputs': torch.ones(3)}  # all alike: a resumed run sees what a whole one sees


class Regression(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, inputs, mode='tensor'):
        return {'loss': self.layer(torch.stack(list(inputs))).square().mean()}


def runner(work_dir, name, iterations, **kwargs):
    torch.manual_seed(0)
    return Runner(
        model=Regression(),
        work_dir=str(work_dir / name),
        experiment_name=name,
        train_dataloader={
            'batch_size': 2,
            'dataset': Points(),
            'sampler': {'type': 'InfiniteSampler', 'shuffle': False},
            'num_workers': 0,
        },
        train_cfg={'by_epoch': False, 'max_iters': iterations},
        optim_wrapper={'optimizer': {'type': 'AdamW', 'lr': 1e-3}},
        param_scheduler={'type': 'LinearLR', 'by_epoch': False, 'start_factor': 0.5, 'end': 9},
        default_hooks={
            'checkpoint': {'type': 'CheckpointHook', 'by_epoch': False, 'interval': 1},
            'logger': {'type': 'LoggerHook', 'interval': 1},
        },
        custom_hooks=[EMAHook(momentum=0.5)],
        randomness={'seed': 1},
        env_cfg={'mp_cfg': {'mp_start_method': 'fork'}},
        default_scope='mmengine',
        **kwargs,
    )


def test_a_checkpoint_of_mmengines_runner_resumes(tmp_path, marker, loader):
    register_safe_loader()
    runner(tmp_path, 'first', 2).train()
    path = tmp_path / 'first' / 'iter_2.pth'
    saved = read_checkpoint(path)
    assert type(saved['message_hub']['log_scalars']['train/loss']) is HistoryBuffer
    assert set(saved) >= {'state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'}

    # mmengine runs the text of this entry when resuming.
    text = f'import pathlib\npathlib.Path({str(marker)!r}).touch()\ngpu_ids = None\n'
    Config.fromstring(text, '.py')
    assert marker.exists()
    marker.unlink()
    saved['meta']['config'] = text
    torch.save(saved, path)

    second = runner(tmp_path, 'second', 3, resume=True, load_from=str(path))
    second.train()
    assert not marker.exists()
    assert second.iter == 3
    losses = second.message_hub.get_scalar('train/loss').data[0]
    assert len(losses) == 3
    np.testing.assert_array_equal(
        losses[:2], saved['message_hub']['log_scalars']['train/loss'].data[0]
    )
    runner(tmp_path, 'whole', 3).train()
    resumed = read_checkpoint(tmp_path / 'second' / 'iter_3.pth')
    whole = read_checkpoint(tmp_path / 'whole' / 'iter_3.pth')
    assert resumed['param_schedulers'] == whole['param_schedulers']
    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        torch.testing.assert_close(resumed[part], whole[part], rtol=0, atol=0)
