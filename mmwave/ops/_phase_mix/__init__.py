"""Phase-aware mixing along both image axes, the token mixing of Wave-MLP."""

from torch import Tensor

from ..backend import select
from ..overridable import overridable
from .cpp import phase_mix_cpp
from .even_odd import phase_mix_even_odd
from .reference import phase_mix_reference
from .triton import phase_mix_triton

_IMPLEMENTATIONS = {
    'triton': phase_mix_triton,
    'cpp': phase_mix_cpp,
    'torch': phase_mix_even_odd,
    'reference': phase_mix_reference,
}


@overridable
def phase_mix(
    amplitude_h: Tensor,
    phase_h: Tensor,
    amplitude_w: Tensor,
    phase_w: Tensor,
    kernel_h: Tensor,
    kernel_w: Tensor,
    *,
    split: bool = False,
    rectify: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Unfold two maps into waves and mix each along one image axis.

    With a wave's real part :math:`r_c = a_c \cos\theta_c`, its imaginary part
    :math:`i_c = a_c \sin\theta_c`, and both stacked to :math:`z = (r_0 .. r_{C-1}, i_0 ..
    i_{C-1})`, output channel g at column x is

    .. math::
        y_g(x) = \sum_{t=0}^{K-1} k_{g,0,t}\, z_{2g}(x + t - \lfloor K/2 \rfloor)
                 + k_{g,1,t}\, z_{2g+1}(x + t - \lfloor K/2 \rfloor)

    with zeros outside the map. So output g mixes two *neighbouring* channels of one part, not the
    real and the imaginary part of one channel: the paper's equation as its released code realises
    it, and what its weights were trained with.

    Args:
        amplitude_h: (N, C, H, W), amplitudes of the waves mixed along the width.
        phase_h: (N, C, H, W), their phases in radians.
        amplitude_w: (N, C, H, W), amplitudes of the waves mixed along the height.
        phase_w: (N, C, H, W), their phases in radians.
        kernel_h: (C, 2, 1, K), taps along the width, K odd. Published: K = 7. (The release calls
            the branch that mixes along a row ``h``.)
        kernel_w: (C, 2, K, 1), taps along the height.
        split: whether the channels of the four maps are in the order 0, 2, 4, .., 1, 3, 5, ..: the
            even ones, then the odd ones that they are mixed with. The results are in the ordinary
            order. C must be even.
        rectify: whether phases below zero count as zero, as behind a ReLU.

    Returns:
        Two maps (N, C, H, W): mixed along the width, mixed along the height; and (N, C), the mean
        of their sum over all positions.

    Raises:
        ValueError: where the shapes do not fit each other; the message names them.

    Source: Tang et al., An Image Patch is a Wave: Phase-Aware Vision MLP, CVPR 2022,
    arXiv:2111.12294; huawei-noah/Efficient-AI-Backbones ``wavemlp_pytorch/models/wavemlp.py``
    (class PATM).
    """
    channels = amplitude_h.shape[1]
    for name, tensor in (('phase_h', phase_h), ('amplitude_w', amplitude_w), ('phase_w', phase_w)):
        if tensor.shape != amplitude_h.shape:
            raise ValueError(
                f'{name} has shape {tuple(tensor.shape)}, amplitude_h {tuple(amplitude_h.shape)}: '
                'the four maps must be of one shape (N, C, H, W)'
            )
    check_kernels(channels, kernel_h, kernel_w, split=split)
    tensors = (amplitude_h, phase_h, amplitude_w, phase_w, kernel_h, kernel_w)
    mix = select('phase_mix', _IMPLEMENTATIONS, *tensors)
    if rectify and mix is phase_mix_cpp:
        return phase_mix_cpp(*tensors, split=split, rectify=True)
    if rectify:
        tensors = (amplitude_h, phase_h.relu(), amplitude_w, phase_w.relu(), kernel_h, kernel_w)
    return mix(*tensors, split=split)


def check_kernels(channels: int, kernel_h: Tensor, kernel_w: Tensor, *, split: bool) -> None:
    """Raise ``ValueError`` unless the kernels fit maps of ``channels`` channels."""
    size = kernel_h.shape[-1]
    for name, kernel, expected in (
        ('kernel_h', kernel_h, (channels, 2, 1, size)),
        ('kernel_w', kernel_w, (channels, 2, size, 1)),
    ):
        if tuple(kernel.shape) != expected or size % 2 == 0:
            raise ValueError(
                f'{name} has shape {tuple(kernel.shape)}: expected {expected} with an odd '
                'number of taps'
            )
    if split and channels % 2:
        raise ValueError(f'split=True needs an even number of channels, not {channels}')


__all__ = ['check_kernels', 'phase_mix', 'phase_mix_reference']
