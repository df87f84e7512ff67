"""The loss of iBOT: what the teacher makes of the patches that the student does not see (Zhou et al. 2022)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from terrasieve.device import send
from terrasieve.methods.pair_entropies import Sharpening, pair_entropies


class IbotLoss(NamedTuple):
    """What :func:`ibot_loss` gives.

    Attributes:
        loss: Scalar, float32 whatever the precision of the outputs.
        entropy: Mean entropy of the teacher's distributions in nats, without gradient.
    """

    loss: Tensor
    entropy: Tensor


def ibot_loss(
    taught: Tensor, outputs: Tensor, counts: Tensor, temperature: float, sharpening: Sharpening | None = None
) -> IbotLoss:
    """Cross-entropy at hidden patches: the mean over those of each image, then over all images.

    Images of which nothing is hidden count as 0, as in the published code of DINOv2. Thereby the loss of a batch is the
    mean over its parts, however the hidden patches are spread over these.

    Args:
        taught: Of each hidden patch, image by image, the teacher's distribution over prototypes, or with
            ``sharpening`` the teacher's outputs, ``(m, prototypes)``.
        outputs: What the student's head gives for the same patches, ``(m, prototypes)``.
        counts: Of each image the number of hidden patches, integers ``(n,)`` on the CPU, m in all.
        temperature: What the student's outputs are divided by, above 0.
        sharpening: Makes distributions of ``taught``; None where these are distributions.
    """
    found = pair_entropies([taught], [outputs], [[0]], temperature, sharpening)
    weights = send((1 / counts).repeat_interleave(counts), outputs.device)
    return IbotLoss((weights * found.cross[0]).sum() / len(counts), found.taught.mean())
