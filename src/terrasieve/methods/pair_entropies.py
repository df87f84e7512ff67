"""Cross-entropies of a student's outputs with a teacher's, for so many prototypes that memory is what they cost.

At 65,536 prototypes a sample of ten views has 655,360 outputs. By torch's own operations each of them would travel to
memory and back several times in float32. Here a chunk of samples that fits the processor's cache goes through all
operations at once, its gradient included, so that each output is read once and each gradient written once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

CHUNK_BYTES: Mapping[str, int] = {"cuda": 1 << 24}
"""Bytes of the float32 rows that are worked on at once, by kind of device: what a GPU's second cache holds."""

OTHER_CHUNK_BYTES = 1 << 21
"""The same where nothing is stated, as on the CPU."""

_HEADROOM = 1024.0
"""Stored gradients are so many times too large: in float16 the smallest of them would be 0."""


class Sharpening(NamedTuple):
    """How the teacher's outputs become distributions (Caron et al. 2021, section 3.1).

    Attributes:
        centre: What is subtracted from every row, ``(prototypes,)``.
        temperature: What the difference is divided by, above 0; the lower, the sharper.
    """

    centre: Tensor
    temperature: Tensor | float

    def __call__(self, outputs: Tensor) -> Tensor:
        """Distributions over prototypes of the teacher's outputs ``(n, prototypes)``: float32, without gradient."""
        # The centre makes the difference float32: no copy of the outputs in it is needed before.
        return functional.softmax(torch.sub(outputs.detach(), self.centre).div_(self.temperature), dim=-1)


class PairEntropies(NamedTuple):
    """What :func:`pair_entropies` gives.

    Attributes:
        cross: Of each of the student's views, row by row, its cross-entropy with the targets added up that it is
            paired with: float32 ``(n,)``, differentiable once.
        taught: Entropy of each of the teacher's distributions in nats, float32 ``(views, n)``, without gradient.
    """

    cross: tuple[Tensor, ...]
    taught: Tensor


def pair_entropies(
    taught: Sequence[Tensor],
    outputs: Sequence[Tensor],
    pairs: Sequence[Sequence[int]],
    temperature: float,
    sharpening: Sharpening | None = None,
) -> PairEntropies:
    """Cross-entropies of the student's distributions with the teacher's, in bounded memory.

    Arithmetic is float32 whatever the precision of the outputs, in which gradients are stored.

    Args:
        taught: Of each view of the teacher its distribution over prototypes, or with ``sharpening`` its outputs,
            ``(n, prototypes)`` each; no gradient flows into them.
        outputs: What the student's head gives for each of its views, ``(n, prototypes)`` each.
        pairs: Of each view of the student, the positions in ``taught`` that it is compared with, one or more.
        temperature: What the student's outputs are divided by before the softmax, above 0.
        sharpening: Makes distributions of ``taught``; None where these are distributions.
    """
    centre, divisor = sharpening or (None, None)
    *cross, entropies = _PairEntropies.apply(  # type: ignore[no-untyped-call]  # torch leaves it so
        tuple(tuple(pair) for pair in pairs), temperature, centre, divisor, len(taught), *taught, *outputs
    )
    return PairEntropies(tuple(cross), entropies)


class _PairEntropies(torch.autograd.Function):
    """The forward pass makes gradients as well, while a chunk is at hand; the backward pass scales them by row."""

    @staticmethod
    def forward(
        context: Any,
        pairs: tuple[tuple[int, ...], ...],
        temperature: float,
        centre: Tensor | None,
        divisor: Tensor | float | None,
        count: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        """Cross-entropies ``(n,)`` of each view of the student, then the entropies ``(count, n)`` of the teacher's."""
        taught, outputs = tensors[:count], tensors[count:]
        first = outputs[0]
        learns = any(context.needs_input_grad)
        scale = first.new_full((1,), temperature, dtype=torch.float32)
        headroom = torch.full_like(scale, _HEADROOM)
        gradients = [torch.empty_like(output) for output in outputs] if learns else []
        cross = first.new_empty((len(outputs), len(first)), dtype=torch.float32)
        entropies = first.new_empty((count, len(first)), dtype=torch.float32)
        for rows in _chunks(first, count + 2):
            targets = [one[rows] for one in taught]
            if centre is not None and divisor is not None:
                targets = [Sharpening(centre, divisor)(one) for one in targets]
            for own, target in enumerate(targets):
                entropies[own, rows] = torch.special.entr(target).sum(dim=-1)
            sums: dict[tuple[int, ...], Tensor] = {}
            pulls: dict[tuple[int, ...], Tensor] = {}
            for i, (output, pair) in enumerate(zip(outputs, pairs, strict=True)):
                if pair not in sums:
                    sums[pair] = sum((targets[j] for j in pair[1:]), targets[pair[0]])
                    pulls[pair] = sums[pair] * -headroom
                # A tensor with an axis divides in float32, what a number would do in the precision of the outputs.
                shares = functional.log_softmax(output[rows] / scale, dim=-1)
                # A sum of products instead of a matrix product, which autocast would compute in 16 bits.
                cross[i, rows] = -(sums[pair] * shares).sum(dim=-1)
                if learns:
                    torch.add(pulls[pair], shares.exp_(), alpha=_HEADROOM * len(pair), out=gradients[i][rows])
        context.temperature = temperature
        context.save_for_backward(*gradients)
        context.mark_non_differentiable(entropies)
        return (*cross.unbind(), entropies)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the student's outputs, in their precision."""
        count = len(upstream) - 1
        gradients: list[Tensor] = []
        for gradient, rows in zip(context.saved_tensors, upstream[:count], strict=True):
            # In float32, in which a row's factor is given; only the product is rounded.
            factor = (rows / (context.temperature * _HEADROOM))[:, None]
            gradients.append(torch.mul(gradient, factor, out=torch.empty_like(gradient)))
        unmoved = len(context.needs_input_grad) - count
        return (*(None,) * unmoved, *gradients)


def _chunks(like: Tensor, buffers: int) -> Iterator[slice]:
    """Rows that are worked on together, so that so many float32 buffers of them fit the cache; at least one row."""
    # A compiler puts operations together by itself, and would unroll the loop.
    limit = CHUNK_BYTES.get(like.device.type, OTHER_CHUNK_BYTES)
    size = len(like) if torch.compiler.is_compiling() else max(1, limit // (4 * buffers * like.shape[1]))
    return (slice(start, start + size) for start in range(0, len(like), max(1, size)))
