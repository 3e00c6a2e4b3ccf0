"""What the benchmark's tests share."""

from dataclasses import replace

import pytest

from mmwave.models import RepMLPNet
from mmwave.models.backbones.repmlpnet import ARCHS
from speed import benchmark, cases
from speed.peers import PEERS
from tests.projects.speed.tiny import TINY, TOY, Toy


@pytest.fixture
def tiny(monkeypatch):
    """Adds ``repmlpnet-tiny``, of windows of 64 pixels, and ``toy-one``; multiplies no matrices."""
    monkeypatch.setattr(RepMLPNet, 'archs', {**ARCHS, 'tiny': TINY})
    alone = {**PEERS, 'repmlpnet': replace(PEERS['repmlpnet'], others={}), 'toy': TOY}
    monkeypatch.setattr(cases, 'PEERS', alone)
    backbones = {**cases.families(), 'toy': Toy}
    monkeypatch.setattr(cases, 'families', lambda: backbones)
    monkeypatch.setattr(benchmark, 'gemm', lambda dtype, device: lambda: None)


@pytest.fixture
def spoilt(monkeypatch):
    """Calls to make what RepMLPNets compute wrong: ``forward``, ``backward``, ``deploy``."""
    forward, deploy_form = RepMLPNet.forward, RepMLPNet.deploy_form

    def shifted(self, x):
        *others, last = forward(self, x)
        return *others, last * 1.0001

    def hooked(self, x):
        outputs = forward(self, x)
        if outputs[0].requires_grad:
            outputs[0].register_hook(lambda gradient: gradient * 1.001)
        return outputs

    def deployed(self):
        twin, folded = deploy_form(self)
        twin.stages[0][0].ffn.fc1.weight.data *= 1.001
        return twin, folded

    def spoil(what):
        name = 'deploy_form' if what == 'deploy' else 'forward'
        wrong = {'forward': shifted, 'backward': hooked, 'deploy': deployed}[what]
        monkeypatch.setattr(RepMLPNet, name, wrong)

    return spoil
