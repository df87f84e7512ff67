"""The loss of iBOT: what the teacher makes of the patches that the student does not see (Zhou et al. 2022)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from terrasieve.device import send


def ibot_loss(targets: Tensor, outputs: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """Cross-entropy at hidden patches: the mean over those of each image, then over all images.

    Images of which nothing is hidden count as 0, as in the published code of DINOv2. Thereby the loss of a batch is the
    mean over its parts, however the hidden patches are spread over these.

    Args:
        targets: Of each hidden patch, image by image, the teacher's distribution ``(m, prototypes)``.
        outputs: What the student's head gives for the same patches, ``(m, prototypes)``.
        counts: Of each image the number of hidden patches, integers ``(n,)`` on the CPU, m in all.
        temperature: What the student's outputs are divided by, above 0.

    Returns:
        Scalar, float32 whatever the precision of the outputs.
    """
    log_shares = functional.log_softmax(outputs.float() / temperature, dim=-1)
    entropies = -(targets * log_shares).sum(dim=-1)
    weights = send((1 / counts).repeat_interleave(counts), entropies.device)
    return (weights * entropies).sum() / len(counts)
