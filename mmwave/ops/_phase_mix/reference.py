"""The definition of ``phase_mix``, written for reading."""

import torch
import torch.nn.functional as F
from torch import Tensor


def unfold_wave(amplitude: Tensor, phase: Tensor) -> Tensor:
    """Return waves (N, 2C, H, W) of maps (N, C, H, W): all real parts, then all imaginary parts."""
    return torch.cat([amplitude * torch.cos(phase), amplitude * torch.sin(phase)], dim=1)


def interleaved(x: Tensor) -> Tensor:
    """Return (N, C, H, W) with its channels 0, 2, 4, .., 1, 3, 5, .. in the order 0, 1, 2, 3, .."""
    n, channels, height, width = x.shape
    even_odd = x.reshape(n, 2, channels // 2, height, width)
    return even_odd.transpose(1, 2).reshape(x.shape)


def phase_mix_reference(
    amplitude_h: Tensor,
    phase_h: Tensor,
    amplitude_w: Tensor,
    phase_w: Tensor,
    kernel_h: Tensor,
    kernel_w: Tensor,
    *,
    split: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`mmwave.ops.phase_mix`."""
    if split:
        maps = (amplitude_h, phase_h, amplitude_w, phase_w)
        amplitude_h, phase_h, amplitude_w, phase_w = (interleaved(x) for x in maps)
    groups = amplitude_h.shape[1]
    reach = kernel_h.shape[-1] // 2
    along_width = F.conv2d(
        unfold_wave(amplitude_h, phase_h), kernel_h, padding=(0, reach), groups=groups
    )
    along_height = F.conv2d(
        unfold_wave(amplitude_w, phase_w), kernel_w, padding=(reach, 0), groups=groups
    )
    return along_width, along_height, (along_width + along_height).mean(dim=(2, 3))
