"""Which patches a student does not see: blocks, as BEiT (Bao et al. 2022, arXiv 2106.08254) and DINOv2 draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from terrasieve.methods.step_seed import StepSeed
from terrasieve.processes.ranks import own_rank
from terrasieve.streams import Stream, generator

_SMALLEST = 4
"""Patches of the smallest block, where so many are still to be hidden."""

_ASPECT = 0.3
"""Lowest ratio of a block's height to its width; the highest is its inverse."""


class PatchMasks(nn.Module):
    """Draws which patches are hidden in the global views of each sample.

    Of every sample the same number of views is masked, which ones is drawn. A mask depends on nothing but the seed, the
    number of the step, the process, and the sample's place among those that the process has been shown in that step:
    micro-batches have the masks of the whole batch, and a resumed run those of one that was never interrupted.

    Args:
        seed: The run's seed, 0 or more.
        share: Share of the views that are masked, above 0 and at most 1; rounded to a number of views, at least one.
        ratio: Lowest and highest share of a masked view's patches that are hidden; at least one is.

    Attributes:
        step_seed: What decides the masks of a step.
    """

    def __init__(self, seed: int, share: float = 0.5, ratio: tuple[float, float] = (0.1, 0.5)) -> None:
        super().__init__()
        self.share = share
        self.ratio = ratio
        self.step_seed = StepSeed(seed)
        # No part of the state: checkpoints are taken between steps.
        self._shown = 0

    def draw(self, samples: int, grids: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Masks of the next samples of this step.

        Args:
            samples: Number of samples in this micro-batch.
            grids: Rows and columns of patches of each view.

        Returns:
            Of each view a boolean tensor ``(samples, patches)`` on the CPU, true where a patch is hidden.
        """
        masks = [np.zeros((samples, *grid), dtype=np.bool_) for grid in grids]
        masked_views = max(1, round(self.share * len(grids)))
        first = (own_rank() << 32) + self._shown
        for sample in range(samples):
            drawing = generator(Stream.PATCH_MASKS, *self.step_seed.words, first + sample)
            for view in drawing.permutation(len(grids))[:masked_views]:
                hide_blocks(masks[view][sample], self._count(masks[view][sample].size, drawing), drawing)
        self._shown += samples
        return [torch.from_numpy(mask).flatten(1) for mask in masks]

    def step(self) -> None:
        """Go on to the next step."""
        self.step_seed.advance()
        self._shown = 0

    def _count(self, patches: int, drawing: np.random.Generator) -> int:
        low = max(1, math.ceil(self.ratio[0] * patches))
        return int(drawing.integers(low, max(low, math.floor(self.ratio[1] * patches)), endpoint=True))


def hide_blocks(mask: NDArray[np.bool_], count: int, drawing: np.random.Generator) -> None:
    """Set that many cells of a mask by rectangles at random places, of which the last may be cut short.

    Args:
        mask: Rows and columns of patches, of which none is hidden yet; changed in place.
        count: How many cells are set, at most as many as there are.
        drawing: Draws size, shape and place of the rectangles.
    """
    while (missing := count - int(mask.sum())) > 0:
        area = drawing.uniform(min(_SMALLEST, missing), missing)
        root = math.exp(drawing.uniform(math.log(_ASPECT), -math.log(_ASPECT)) / 2)
        sides = (math.sqrt(area) * root, math.sqrt(area) / root)
        height, width = (min(max(1, round(side)), room) for side, room in zip(sides, mask.shape, strict=True))
        top = int(drawing.integers(mask.shape[0] - height, endpoint=True))
        left = int(drawing.integers(mask.shape[1] - width, endpoint=True))
        block = mask[top : top + height, left : left + width]
        block.flat[np.flatnonzero(~block)[:missing]] = True
