"""Compiling a method's forward pass, and with it the backward pass, to one graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from terrasieve.errors import ConfigError
from terrasieve.methods.base import Method


def compile_forward(method: Method, backend: str | Callable[..., Any] = "inductor") -> None:
    """Let a method compile itself at its first forward pass, in place; names of its state stay as they are.

    All batches of a run have one size, so that shapes are taken as constant and one graph serves every step. What else
    passes through the encoder, such as a round of curation, is not compiled.

    Args:
        method: The method; what it gives is the same up to rounding.
        backend: What makes a program of the graph, as ``torch.compile`` takes it.

    Raises:
        ConfigError: The method draws numbers on the host in its forward pass.
    """
    if method.draws_in_forward:
        raise ConfigError(
            f"{type(method).__name__} draws {method.draws_in_forward}, in its forward pass, which therefore is not one "
            "graph. Set train.compile=false."
        )
    method.compile(backend=backend, fullgraph=True, dynamic=False)
