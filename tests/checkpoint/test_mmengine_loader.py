"""mmengine reads checkpoints as mmwave does, and none of them makes it run a program."""

import collections
import http.server
import threading

import pytest
import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.runner import CheckpointLoader
from torch import nn

from mmwave.checkpoint import mmengine_loader, register_safe_loader
from mmwave.errors import UserError

pytestmark = pytest.mark.usefixtures('safe_loader')

META = {
    'epoch': 3,
    'iter': 9,
    'seed': 1,
    'time': 'now',
    'experiment_name': 'x',
    'dataset_meta': {'classes': ('a',)},
    'mmengine_version': '0',
    'CLASSES': ('a',),
    'PALETTE': [[0, 0, 0]],
    'source': 'x.pth',
    'sha256': '0',
    'family': 'f',
    'arch': 't',
    'framework': 'pytorch',
    'weights': 'ema',
    'origin': 'there',
    'licence': 'MIT',
    'mmwave_version': '0',
    'backbone': {'type': 'mmwave.WaveMLP'},
}


def load(path):
    return CheckpointLoader.load_checkpoint(str(path))


def program(marker):
    return f'import pathlib\npathlib.Path({str(marker)!r}).touch()\n'


def refused(path, message, error=UserError):
    with pytest.raises(error, match=message) as told:
        load(path)
    assert '\n' not in str(told.value)
    assert str(told.value).isprintable()


# -- What would be run -------------------------------------------------------------------------


def test_of_meta_is_kept_what_is_known(tmp_path):
    weights = {'a': torch.ones(1)}
    meta = {**META, 'config': 'x = 1', 'cfg': 'x = 1', 'hooks': [1], 5: 6}
    torch.save({'state_dict': weights, 'meta': meta}, tmp_path / 'a.pth')
    assert load(tmp_path / 'a.pth')['meta'] == META
    register_safe_loader(trust=True)
    assert load(tmp_path / 'a.pth')['meta'] == meta


class Shadowed(dict):
    """A dict whose own methods say that it is empty, as attributes of a file's objects can."""

    def get(self, *_):
        return collections.Counter()

    def items(self):
        return ()

    keys = values = items
    __contains__ = __iter__ = get


def test_methods_of_what_was_read_hide_nothing(monkeypatch):
    meta = Shadowed(META, config='x = 1')
    hub = Shadowed(runtime_info=Shadowed(cfg='x = 1', epoch=1), resumed_keys=Shadowed(cfg=True))
    content = Shadowed(state_dict={'a': torch.ones(1)}, meta=meta, message_hub=hub)
    monkeypatch.setattr(mmengine_loader, 'read_checkpoint', lambda *_, **__: content)
    got = load('x.pth')
    assert type(got) is dict
    assert got['meta'] == META
    assert got['message_hub'] == {'runtime_info': {'epoch': 1}, 'resumed_keys': {}}
    assert {type(part) for part in got['message_hub'].values()} == {dict}


def test_an_inferencer_finds_no_config_to_run(tmp_path):
    """mmengine's are content with weights, and run the config that is noted beside them."""
    marker = tmp_path / 'ran'
    text = program(marker)
    Config.fromstring(text, '.py')
    assert marker.exists()
    marker.unlink()
    content = {'state_dict': {'a': torch.ones(1)}, 'meta': {'cfg': text}}
    content['message_hub'] = {'runtime_info': {'cfg': text}}
    torch.save(content, tmp_path / 'a.pth')

    class Inferencer(BaseInferencer):
        def _init_pipeline(self, cfg):
            return None

        def visualize(self, *_, **__):
            """Nothing."""

        postprocess = visualize

    with pytest.raises(Exception):  # noqa: B017  it is mmengine's to say what
        Inferencer(weights=str(tmp_path / 'a.pth'))
    assert not marker.exists()


# -- What is no checkpoint ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([1], 'holds an object of type list, expected a dict'),
        (None, 'type NoneType'),
        (torch.ones(2), 'type Tensor'),
        ({'state_dict': {}}, '0 tensors'),
        ({'state_dict': {'a': 1}}, 'state dict'),
        ({'state_dict': {'a': torch.ones(1)}, 'meta': 7}, r'meta is of type int, expected a dict'),
        ({'state_dict': {'a': torch.ones(1)}, 'meta': 'x'}, r'meta is of type str'),
        ({'state_dict': {'a': torch.ones(1)}, 'meta': [1]}, r'meta is of type list'),
    ],
)
@pytest.mark.parametrize('trust', [False, True])
def test_other_content_is_refused_and_named(tmp_path, content, message, trust):
    register_safe_loader(trust=trust)
    path = tmp_path / 'odd.pth'
    torch.save(content, path)
    refused(path, rf'odd\.pth.*{message}')


def test_a_module_is_no_checkpoint(tmp_path):
    register_safe_loader(trust=True)
    torch.save(nn.Linear(1, 1), tmp_path / 'module.pth')
    refused(tmp_path / 'module.pth', r'module\.pth holds an object of type Linear, expected a dict')


def test_names_of_files_forge_no_lines(tmp_path):
    path = tmp_path / 'a\nINFO - all fine\x1b[2J.pth'
    torch.save([1], path)
    refused(path, r'a\\nINFO')


# -- Addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('address', 'message'),
    [
        ('', 'the path of the checkpoint is empty'),
        ('s3://b/x.pth', 's3://b/x.pth cannot be read safely: download it'),
        ('petrel://b/x.pth', 'cannot be read safely'),
        ('c:s3://x', 'cannot be read safely'),
        ('pavi://x', 'cannot be read safely'),
        ('mmdet://x.pth', 'mmdet://x.pth has an address of an unknown kind: download it'),
        ('ftp://x/y.pth', 'unknown kind'),
        ('torchvision://nope', "no model nope in mmengine's zoo torchvision"),
        ('modelzoo://nope', 'no model nope'),
        ('open-mmlab://nope', 'no model nope'),
        ('openmmlab://no\npe', r"no model no\\npe in mmengine's zoo openmmlab"),
        ('mmcls://nope', 'no model nope'),
        ('http://127.0.0.1:9/x.pth', r'http://127\.0\.0\.1:9/x\.pth cannot be fetched: .*refused'),
        ('http://[/x.pth', 'cannot be fetched'),
        ('http://127.0.0.1:9/..', 'names no file'),
    ],
)
def test_addresses_that_lead_nowhere(tmp_path, monkeypatch, address, message):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    refused(address, message)


def test_an_address_without_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    quiet = type('Quiet', (http.server.SimpleHTTPRequestHandler,), {'log_message': lambda *_: None})
    with http.server.HTTPServer(('127.0.0.1', 0), quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        refused(f'http://127.0.0.1:{server.server_port}/nope.pth', 'cannot be fetched: .*404')
        server.shutdown()


def test_a_model_in_the_user_s_own_list_is_read_as_any_file(tmp_path, monkeypatch):
    """mmengine's home may hold a list of further models, whose files it would read in full."""
    marker = tmp_path / 'ran'

    class Evil:
        def __reduce__(self):
            return eval, (f'open({str(marker)!r}, "w")',)

    (tmp_path / 'open_mmlab.json').write_text('{"mine": "mine.pth", "bad": "bad.pth"}')
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    torch.save({'a': torch.ones(1)}, tmp_path / 'mine.pth')
    torch.save({'a': torch.ones(1), 'b': Evil()}, tmp_path / 'bad.pth')
    assert torch.equal(load('open-mmlab://mine')['a'], torch.ones(1))
    refused('openmmlab://bad', r'builtins\.eval')
    assert not marker.exists()
