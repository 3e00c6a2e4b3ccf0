"""The weights in a checkpoint, and loading them loudly."""

import time

import pytest
import torch
from torch import nn

from mmwave.checkpoint import LoadReport, load_matching, state_dict_of
from mmwave.errors import UserError


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
        ([1], UserError, 'must be a dict, not list'),
        ({}, ValueError, '0 tensors'),
        ({'epoch': 3, 'net': {}}, ValueError, 'other entries: epoch, net'),
        ({'state_dict': {'a': torch.ones(1), 'b': 2}}, ValueError, "'state_dict'.*: 1 tens.* b;"),
    ],
)
def test_state_dict_of_something_else(checkpoint, error, message):
    with pytest.raises(error, match=message):
        state_dict_of(checkpoint)


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
    report = load_matching(module, state, may_differ=['2.'])
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


# -- Tensors that cannot be weights ------------------------------------------------------------

UNFIT = {
    'complex': (torch.ones(2, dtype=torch.complex64), 'a complex tensor'),
    'meta': (torch.ones(2, device='meta'), 'a meta tensor'),
    'sparse': (torch.eye(2).to_sparse(), 'a sparse tensor'),
    'quantised': (torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8), 'a quantised ten'),
    'nested': (torch.nested.nested_tensor([torch.ones(1)]), 'a nested tensor'),
}


@pytest.mark.parametrize(('tensor', 'kind'), UNFIT.values(), ids=UNFIT)
def test_kinds_of_tensors_are_refused_by_name(tensor, kind):
    state = {'a': torch.ones(2), 'head.bias': tensor}
    message = rf'^head\.bias is {kind}.*: expected a dense tensor of real numbers'
    with pytest.raises(UserError, match=message):
        state_dict_of({'state_dict': state})
    with pytest.raises(UserError, match=message):
        load_matching(small(), state)


@pytest.mark.parametrize('dtype', [torch.bool, torch.int64, torch.uint8])
def test_integers_are_no_floating_point_weights(dtype):
    state = {k: v if k != '2.bias' else v.to(dtype) for k, v in filled(small()).items()}
    module = small()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    name = str(dtype).removeprefix('torch.')
    with pytest.raises(UserError, match=rf'^2\.bias is of {name} where the module has float32'):
        load_matching(module, state_dict_of(state))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    whole = {k: v.to(dtype) for k, v in state.items()}
    with pytest.raises(UserError, match=r'none of 9 tensors is floating-point: 0\.weight, 0\.bias'):
        state_dict_of(whole)


def test_tables_of_integers_are_loaded():
    module = nn.BatchNorm2d(2)
    module.register_buffer('table', torch.zeros(3, dtype=torch.int64))
    module.register_buffer('mask', torch.zeros(3, dtype=torch.bool))
    state = {**filled(module), 'table': torch.arange(3), 'mask': torch.ones(3, dtype=torch.bool)}
    load_matching(module, state_dict_of(state), min_fraction=1.0)
    assert module.table.tolist() == [0, 1, 2]
    assert module.mask.all()
    assert module.num_batches_tracked == 3


@pytest.mark.parametrize('name', [3, None, (1, 2), b'a', 1.5])
def test_names_that_are_no_text(name):
    with pytest.raises(UserError, match=r'name .* of a tensor is a .*, expected a text'):
        state_dict_of({'a': torch.ones(1), name: torch.ones(1)})
    with pytest.raises(UserError, match='is no state dict: 1 tensors, other entries: '):
        state_dict_of({'a': torch.ones(1), name: 'text'})


@pytest.mark.parametrize(
    'name',
    ['a\nb', 'a\x1b[2J', 'a\r', 'a\u202eb', 'a\ud800', 'a\0', 'a\u200b', 'a' * 1001, '.' * 20_000],
)
@pytest.mark.parametrize('read', [state_dict_of, lambda state: load_matching(small(), state)])
def test_names_that_would_forge_a_log(read, name):
    with pytest.raises(
        UserError, match='of a tensor has characters that are not printable'
    ) as caught:
        read({'a': torch.ones(1), name: torch.ones(1)})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    with pytest.raises(UserError) as caught:
        state_dict_of({'a': torch.ones(1), name: 'no tensor'})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    'content', [[1], None, torch.ones(1), nn.Linear(1, 1), (1,), 3, 'text', {'model': 3}]
)
def test_containers_of_another_shape(content):
    with pytest.raises(UserError, match=r'must be a dict, not|is no state dict'):
        state_dict_of(content)


# -- NaN and infinite values -------------------------------------------------------------------


def test_values_that_are_not_finite_are_counted_and_said():
    module = small()
    state = filled(module)
    state['0.weight'][0, :2] = float('nan')
    state['1.running_var'][1:3] = torch.tensor([float('inf'), float('-inf')])
    state['head'] = torch.tensor([float('nan')])  # not loaded
    report = load_matching(module, state)
    assert report.not_finite == (('0.weight', 2), ('1.running_var', 2))
    last = report.summary().splitlines()[-1]
    assert last == '  2 tensors hold 4 NaN or infinite values: 0.weight, 1.running_var'


@pytest.mark.parametrize(
    'dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2]
)
def test_large_finite_values_are_no_fault(dtype):
    module = nn.Linear(1000, 1).to(torch.float32 if dtype.itemsize == 1 else dtype)
    largest = torch.full((1, 1000), torch.finfo(dtype).max, dtype=torch.float64).to(dtype)
    report = load_matching(module, {'weight': largest}, min_fraction=0)
    assert report.not_finite == ()
    worse = largest.clone()
    worse[0, 0] = float('inf')
    assert load_matching(module, {'weight': worse}, min_fraction=0).not_finite == (('weight', 1),)


# -- Time --------------------------------------------------------------------------------------


def test_names_of_many_parts_are_compared_in_no_time():
    dotted = {'.'.join(['a'] * 480) + str(i): torch.ones(1) for i in range(1000)}
    start = time.perf_counter()
    with pytest.raises(UserError, match='at least 50% must match'):
        load_matching(small(), dotted)
    assert time.perf_counter() - start < 2


def test_a_source_is_shown_in_one_line():
    report = load_matching(small(), filled(small()), source='a\x1b[2J\nb')
    assert report.summary() == r'loaded 8 of 8 tensors from a\x1b[2J\nb'


class Parts(nn.Module):
    """A stem, tables and heads as models name them."""

    def __init__(self, width=4, classes=2, positions=6):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.stem = nn.Conv2d(3, width, 1)
        self.backbone.body = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))
        self.backbone.pos_embed = nn.Parameter(torch.ones(1, positions, 4))
        self.backbone.attn = nn.Module()
        self.backbone.attn.relative_position_bias_table = nn.Parameter(torch.ones(positions, 2))
        self.backbone.position_embeddings = nn.Embedding(positions, 4)
        self.decode_head = nn.Module()
        self.decode_head.conv_seg = nn.Conv2d(4, classes, 1)
        self.bbox_head = nn.Linear(4, classes)
        self.label_embedding = nn.Embedding(classes, 4)


def test_heads_and_tables_of_positions_may_have_another_shape():
    given = Parts(classes=3, positions=8).state_dict()
    report = load_matching(Parts(), given, min_fraction=0.5)
    assert {name.rpartition('.')[0] for name, _, _ in report.mismatched} == {
        *('backbone', 'backbone.attn', 'backbone.position_embeddings', 'decode_head.conv_seg'),
        *('bbox_head', 'label_embedding'),
    }
    assert 'of another shape, left as they were' in report.summary()


def test_nothing_else_may_unless_it_is_named():
    """A stem of another shape would train on from random weights."""
    module, given = Parts(), Parts(width=5).state_dict()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(UserError, match=r'backbone\.stem\.weight, .* would be left untrained') as e:
        load_matching(module, given)
    assert 'backbone.stem.weight 5 x 3 x 1 x 1 for 4 x 3 x 1 x 1' in str(e.value)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    report = load_matching(module, given, may_differ=['backbone.stem'])
    stem = [f'backbone.stem.{name}' for name in ('weight', 'bias')]
    assert [name for name, _, _ in report.mismatched] == stem


def test_backbones_of_ours_state_that_no_table_fits():
    from mmwave.models import MLPMixer

    sizes = dict(depths=(1, 0, 0, 1), dim=8, token_mlp_dim=8, channel_mlp_dim=8, patch_size=8)
    given = MLPMixer(dict(sizes, grid=4)).state_dict()
    with pytest.raises(UserError, match=r'token_mlp.* would be left untrained'):
        load_matching(MLPMixer(dict(sizes, grid=2)), given, min_fraction=0.1)
