"""Finding the layers whose input is a channel concatenation, such as a U-Net's skip connections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from plugins.generative.quantization.layers import channel_axis

__all__ = ["find_concatenations"]

_CONCATENATIONS = {"cat", "concat", "concatenate"}
# Operations that keep every channel in its place: a concatenation stays one through them.
_KEEPING = {
    "batch_norm", "celu", "clone", "contiguous", "dropout", "elu", "float", "gelu", "group_norm", "hardswish",
    "hardtanh", "instance_norm", "interpolate", "leaky_relu", "mish", "pad", "prelu", "relu", "relu_", "selu",
    "sigmoid", "silu", "softplus", "tanh", "to",
}  # fmt: skip


class _Parts(NamedTuple):
    axis: int
    sizes: tuple[int, ...]


class _ConcatenationTrace(TorchFunctionMode):
    """Remembers of every tensor made by concatenation along which axis, and of which sizes."""

    def __init__(self) -> None:
        super().__init__()
        # By id, with the tensor itself: an id is unique among living tensors only.
        self._found: dict[int, tuple[Tensor, _Parts]] = {}

    def parts(self, tensor: Any) -> _Parts | None:
        found = self._found.get(id(tensor))
        return None if found is None else found[1]

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _CONCATENATIONS:
            tensors = args[0] if args else kwargs["tensors"]
            axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
            sizes = tuple(t.shape[axis] for t in tensors)
            if len(sizes) > 1:
                self._found[id(out)] = out, _Parts(axis % out.ndim, sizes)
        elif name in _KEEPING and args and (parts := self.parts(args[0])) and isinstance(out, Tensor):
            if out.ndim == args[0].ndim and out.shape[parts.axis] == sum(parts.sizes):
                self._found[id(out)] = out, parts
        return out


@torch.no_grad()
def find_concatenations(
    layers: dict[str, nn.Module], run: Callable[[], Any], min_channels: int = 2
) -> dict[str, tuple[int, ...]]:
    """Channel counts of the concatenated parts of every layer's input, for the layers that see one.

    Follows ``torch.cat`` along the channel axis through normalisations, activations, dropout, padding and resizing;
    what a convolution, a linear map or an addition makes of it is no concatenation any more.

    Args:
        layers: layers by name, from :func:`quantizable_layers`.
        run: one forward pass through the model that holds them.
        min_channels: smaller parts are not worth a quantizer of their own; such a concatenation is left whole.
    """
    found: dict[str, tuple[int, ...]] = {}
    trace = _ConcatenationTrace()

    def observe(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            parts = trace.parts(x)
            if parts and parts.axis == x.ndim + channel_axis(layer) and min(parts.sizes) >= min_channels:
                found[name] = parts.sizes

        return hook

    handles = [layer.register_forward_pre_hook(observe(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        with trace:
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found
