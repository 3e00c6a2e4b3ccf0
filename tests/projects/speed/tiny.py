"""Models that the benchmark's tests measure in no time."""

import copy
from dataclasses import replace

from torch import nn

from mmwave.models.backbones.repmlpnet import ARCHS
from mmwave.structures import SizeConstraint
from speed import cases
from speed.benchmark import FORMS_IN_TRAINING
from speed.peers import Peer

TINY = replace(
    ARCHS['t224'],
    depths=(4, 2, 1, 1),
    dims=(8, 8, 16, 16),
    windows=(16, 8, 4, 2),
    share_sets=(1, 2, 4, 16),
)
OURS = {'inference': ['deploy', 'train form'], 'train': list(FORMS_IN_TRAINING)}
PEER = ['published NCHW', 'published NHWC']


class Toy(nn.Module):
    """As much of a backbone as the benchmark needs, compiled at once: its own peer."""

    archs = {'one': None}
    in_channels = 3

    def __init__(self, arch, out_indices, lean=True, with_cp=False, deploy=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 4, stride=4)
        self.deploy = deploy

    def deploy_form(self):
        return copy.deepcopy(self), ()

    def forward(self, x):
        return (self.conv(x).relu(),)


TOY = Peer(
    backbone=Toy,
    inference=copy.deepcopy,
    training=copy.deepcopy,
    sizes=lambda arch: SizeConstraint(),
    out_indices=(0,),
)


def case(mode='inference', dtype='float32', size=(64, 128), model='repmlpnet-tiny') -> cases.Case:
    """Return a case of four images of ``size``."""
    (only,) = cases.cases([model], sizes=[(*size, 4)], dtypes=[dtype], modes=[mode])
    return only
