"""Layers replaced by subclasses that compute the same in another way, inside a network that is already built."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def replace_modules(model: nn.Module, kinds: Mapping[type[nn.Module], type[nn.Module]]) -> None:
    """Make layers instances of a subclass, in place; parameters, buffers, hooks and names stay as they are.

    Args:
        model: The network whose layers at any depth are replaced; the network itself never is.
        kinds: Of each kind of layer the subclass that takes its place. A kind stands for itself alone, not for its own
            subclasses, whose forward pass would be lost.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) in kinds:
                kind = kinds[type(child)]
                replaced = kind.__new__(kind)
                replaced.__dict__ = child.__dict__.copy()
                setattr(parent, name, replaced)
