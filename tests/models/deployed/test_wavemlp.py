"""Wave-MLP in deploy form: what is folded, the order of channels, the two ways to mix."""

import pytest
import torch

from mmwave.deploy import to_deploy
from mmwave.models.deployed import wavemlp
from tests.contracts import images, relative_error
from tests.families import FAMILIES
from tests.models.deployed.forms import arch_of, model, run

VARIANTS = ('tiny', *FAMILIES['WaveMLP'].variants)


@pytest.mark.parametrize('variant', VARIANTS)
def test_norms_are_folded_where_they_can_be(variant):
    made = model('WaveMLP', variant)
    deployed, report = to_deploy(made)
    arch = made.arch
    lines = ' '.join(report.fused[''])
    # Group norms have statistics of the image at hand.
    assert ('norms of 4 embeddings' in lines) == (arch.stem_norm and arch.norm == 'BN')
    assert f'{5 if arch.phase == "fc" else 3} projections' in lines
    block = deployed.stages[1][0]
    # Kernels of 3 x 3 are padded by zeros behind the norm.
    assert isinstance(block.affine1, torch.nn.Identity) == (arch.phase == 'fc')
    assert isinstance(block.norm1, torch.nn.Identity) == (arch.norm == 'BN')


@pytest.mark.parametrize('variant', VARIANTS)
def test_one_tap_and_the_order_of_channels_matter(variant):
    made = model('WaveMLP', variant)
    deployed, _ = to_deploy(made)
    x = images(1, 3, 64, 64).double()
    wanted = run(made, x)[3]
    with torch.no_grad():
        deployed.stages[1][0].mixer.kernel_w[3, 1, 2] += 0.1
    assert relative_error(run(deployed, x)[3], wanted) > 1e-6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wavemlp, '_even_odd', torch.arange)
        swapped, _ = to_deploy(made)
    assert relative_error(run(swapped, x)[3], wanted) > 1e-6


def test_phases_of_single_positions_are_mixed_in_one_call(monkeypatch):
    """On a CPU and in place; otherwise by the op that autograd and graphs know."""
    calls = []
    for name in ('linear_phase_mix', 'phase_mix'):
        op = getattr(wavemlp, name)
        monkeypatch.setattr(
            wavemlp, name, lambda *a, op=op, name=name, **k: calls.append(name) or op(*a, **k)
        )
    blocks = sum(arch_of('WaveMLP')['depths'])
    x = images(1, 3, 32, 32).double()
    for variant, autograd, name in (
        ('tiny', False, 'linear_phase_mix'),
        ('tiny', True, 'phase_mix'),
        ('dw-BN-norm', False, 'phase_mix'),
    ):
        deployed, _ = to_deploy(model('WaveMLP', variant))
        calls.clear()
        with torch.set_grad_enabled(autograd):
            deployed(x)
        assert calls == [name] * blocks
