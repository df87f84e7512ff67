"""Layers exchanged for subclasses that compute the same in another way, inside a network that is already built."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def exchange_layers(model: nn.Module, kinds: Mapping[type[nn.Module], type[nn.Module]]) -> None:
    """Make layers instances of a subclass, in place; parameters, buffers, hooks and names stay as they are.

    Args:
        model: Its layers at any depth are exchanged, itself never.
        kinds: The subclass for each kind. A kind stands for itself alone, not for its own subclasses, whose forward
            pass would be lost.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) in kinds:
                kind = kinds[type(child)]
                exchanged = kind.__new__(kind)
                exchanged.__dict__ = child.__dict__.copy()
                setattr(parent, name, exchanged)
