"""What every table says of our models: names and shapes of layers, archs as configs hold them."""

from collections.abc import Mapping
from typing import Any

Shape = tuple[int, ...]


def layer_shapes(name: str, *shape: int, bias: bool = True) -> dict[str, Shape]:
    """Names and shapes of a layer with a weight of ``shape`` and a bias per row of it.

    A linear layer, a convolution, or a norm without statistics.
    """
    weight = {f'{name}.weight': shape}
    return weight | ({f'{name}.bias': shape[:1]} if bias else {})


def batch_norm_shapes(name: str, channels: int) -> dict[str, Shape]:
    """Names and shapes of a batch norm."""
    return {
        **layer_shapes(name, channels),
        f'{name}.running_mean': (channels,),
        f'{name}.running_var': (channels,),
        f'{name}.num_batches_tracked': (),
    }


def custom_arch(
    arch: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The fields of an arch without a name as a config holds them: lists, and no defaults."""
    known = defaults or {}
    changed = {k: v for k, v in arch.items() if k not in known or v != known[k]}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in changed.items()}
