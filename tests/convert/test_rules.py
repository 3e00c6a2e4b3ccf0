"""Rules account for every tensor."""

import pytest
import torch

from mmwave.convert.rules import (
    DENSE_NAMES,
    MINDSPORE_FILLS,
    MINDSPORE_NAMES,
    PADDLE_FILLS,
    PADDLE_NAMES,
    TRANSFORMS,
    apply,
    drop,
    rename,
    transform,
    zeros,
)

A, B = torch.arange(6.0).reshape(2, 3), torch.ones(4)


def test_first_rule_that_matches_the_whole_name_decides():
    rules = (
        drop(r'stage\.\d+\.ops', 'counters'),
        rename(r'stage\.1\.(\w+)', r'first.\1'),
        rename(r'stage\.(\d+)\.(?P<leaf>\w+)', r'rest.\1.\g<leaf>'),
    )
    done = apply(rules, {'stage.1.w': A, 'stage.12.w': B, 'stage.1.ops': B})
    assert list(done.tensors) == ['first.w', 'rest.12.w']
    assert done.tensors['first.w'] is A
    assert done.dropped == {'counters': ['stage.1.ops']}
    assert done.filled == {}


@pytest.mark.parametrize('name', ['xa.w', 'a.wx', 'a.w.b'])
def test_patterns_are_anchored(name):
    with pytest.raises(ValueError, match=f'no rule for {name}'):
        apply((rename(r'a\.w', 'b'),), {name: A})


def test_named_transform():
    done = apply((transform(r'(.*)', r'\1.t', 'transpose'),), {'a': A})
    assert torch.equal(done.tensors['a.t'], A.T)
    assert done.transformed == {'a.t': 'transpose'}


def test_convolutions_become_matrices():
    kernel = torch.arange(24.0).reshape(6, 4, 1, 1)
    assert torch.equal(TRANSFORMS['flatten'](kernel), torch.arange(24.0).reshape(6, 4))
    groups = torch.arange(24.0).reshape(6, 2, 2, 1)[:, :, :1]  # 3 groups, 2 positions
    matrices = TRANSFORMS['group matrices'](groups)
    assert matrices.shape == (3, 2, 2)
    for s in range(3):
        assert torch.equal(matrices[s], groups[2 * s : 2 * s + 2, :, 0, 0])


def test_vectors_lose_their_axes_of_one():
    for shape in ((1, 1, 3), (3,), (1, 3)):
        assert torch.equal(
            TRANSFORMS['vector'](torch.arange(3.0).reshape(shape)), torch.arange(3.0)
        )


def test_kernels_of_flax():
    kernel = torch.arange(24.0).reshape(1, 2, 3, 4)
    turned = TRANSFORMS['hwio'](kernel)
    assert turned.shape == (4, 3, 1, 2)
    assert turned[3, 1, 0, 1] == kernel[0, 1, 1, 3]


def test_every_tensor_has_a_source():
    rules = (rename(r'a(\d)', r'b\1'), drop('c', 'none needed'))
    done = apply(rules, {'a1': A, 'a2': B, 'c': B}, {'b1': (2, 3), 'b2': (4,)})
    assert done.sources == {'b1': 'a1', 'b2': 'a2'}


def test_two_steps_in_turn():
    drops = drop('.*x', 'none needed')
    first = apply((drops, rename(r'a(\d)', r'b\1')), {'a1': A, 'a2': B, 'ax': B})
    second = apply((drop('b2', 'none needed'), rename(r'b(\d)', r'c\1')), first.tensors)
    done = second.after(first)
    assert list(done.tensors) == ['c1']
    assert done.sources == {'c1': 'a1'}
    assert done.dropped == {'none needed': ['ax', 'a2']}
    assert first.dropped == {'none needed': ['ax']}


def test_a_shape_that_a_transform_does_not_accept_is_listed():
    rules = (
        transform('a', 'a', 'transpose'),
        transform('b', 'b', 'group matrices'),
        transform('c', 'c', 'flatten'),
        transform('d', 'd', 'vector'),
        transform('e', 'e', 'hwio'),
    )
    given = {'a': torch.ones(4), 'b': torch.ones(5, 3, 1, 1), 'c': torch.ones(())}
    given |= {'d': torch.ones(2, 3), 'e': torch.ones(3, 4)}
    with pytest.raises(ValueError, match='5 tensors do not fit') as caught:
        apply(rules, given)
    for text in ('a of shape (4,): no transpose', 'b of shape (5, 3, 1, 1): no group', 'c of'):
        assert text in str(caught.value)
    for text in ('d of shape (2, 3): no vector', 'e of shape (3, 4): no hwio'):
        assert text in str(caught.value)


def test_a_rule_needs_a_known_transform_and_a_drop_a_reason():
    with pytest.raises(ValueError, match=f"'flip': expected one of {', '.join(TRANSFORMS)}"):
        transform('a', 'b', 'flip')
    with pytest.raises(ValueError, match="drops 'a' must give a reason"):
        drop('a', '')


def test_everything_that_does_not_fit_is_listed():
    rules = (rename(r'same\d', 'same'), rename(r'keep\.(\w+)', r'\1'))
    tensors = {'same1': A, 'same2': A, 'odd1': A, 'odd2': A, 'keep.w': A, 'keep.extra': B}
    expected = {'same': (2, 3), 'w': (3, 2), 'absent1': (1,), 'absent2': ()}
    with pytest.raises(ValueError, match='7 tensors do not fit') as caught:
        apply(rules, tensors, expected)
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        'no rule for odd1',
        'no rule for odd2',
        'same is written by same1 and same2',
        'absent1 is not filled',
        'absent2 is not filled',
        'w has shape (2, 3), the target (3, 2)',
        'extra is not in the target',
    ]


def test_zeros_fill_only_what_is_expected_and_absent():
    expected = {'a.count': (), 'b.count': (2,)}
    given = {'b.count': torch.tensor([3, 4])}
    done = apply((rename('(.*)', r'\1'),), given, expected, (zeros(r'.*\.count', 'none kept'),))
    assert done.filled == {'none kept': ['a.count']}
    assert torch.equal(done.tensors['a.count'], torch.zeros((), dtype=torch.int64))
    assert done.tensors['a.count'].dtype == torch.int64
    assert torch.equal(done.tensors['b.count'], given['b.count'])


def test_mindspore_names():
    given = {
        **dict.fromkeys(
            ('n.gamma', 'n.beta', 'n.moving_mean', 'n.moving_variance', 'fc.weight'), B
        ),
        **dict.fromkeys(('moments.n.gamma', 'moment1.n.beta', 'global_step', 'best_acc'), B),
    }
    done = apply(MINDSPORE_NAMES, given)
    assert list(done.tensors) == [
        *('n.weight', 'n.bias', 'n.running_mean', 'n.running_var', 'fc.weight'),
    ]
    assert sum(map(len, done.dropped.values())) == 4
    assert MINDSPORE_FILLS[0].pattern.fullmatch('n.num_batches_tracked')


def test_paddle_names():
    given = dict.fromkeys(('n.weight', 'n.bias', 'n._mean', 'n._variance', 'pos_embed'), B)
    done = apply(PADDLE_NAMES, given)
    assert list(done.tensors) == [
        *('n.weight', 'n.bias', 'n.running_mean', 'n.running_var', 'pos_embed'),
    ]
    assert done.dropped == {}
    assert PADDLE_FILLS[0].pattern.fullmatch('n.num_batches_tracked')


def test_the_names_of_a_detector_are_those_of_its_backbone():
    given = dict.fromkeys(('backbone.norm0.weight', 'backbone.head.weight'), A)
    others = ('neck.lateral_convs.0.conv.weight', 'decode_head.conv_seg.bias', 'rpn_head.w')
    done = apply(DENSE_NAMES, given | dict.fromkeys(others, B))
    assert list(done.tensors) == ['norm0.weight', 'head.weight']
    ((reason, names),) = done.dropped.items()
    assert 'detector or segmentor' in reason
    assert names == list(others)
    with pytest.raises(ValueError, match=r'no rule for head\.weight'):
        apply(DENSE_NAMES, {'head.weight': A})
