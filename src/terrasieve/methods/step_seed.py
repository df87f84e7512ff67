"""What decides the draws of a method in each of its steps, so that a resumed run draws as if it had never stopped."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class StepSeed(nn.Module):
    """The run's seed and the number of optimiser steps done: two numbers for a random generator, alike on all ranks.

    Args:
        seed: The run's seed, 0 to 2**64 - 1.

    Attributes:
        numbers: Both of them, ``(2,)``; a part of the state of the method that holds this.
    """

    numbers: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        # A seed may have 64 bits, of which the tensor takes the highest for a sign.
        self.register_buffer("numbers", torch.from_numpy(np.array([seed, 0], dtype=np.uint64).view(np.int64)))
        # The same on the CPU: to read the buffer is to wait for an accelerator.
        self._here = (seed, 0)
        self.register_load_state_dict_post_hook(_read)  # type: ignore[no-untyped-call]  # torch left it so

    @property
    def words(self) -> tuple[int, int]:
        """The seed, and the number of steps done."""
        return self._here

    def advance(self) -> None:
        """Go on to the next step."""
        seed, step = self._here
        self._here = (seed, step + 1)
        self.numbers[1] += 1


def _read(place: nn.Module, _: Any) -> None:
    assert isinstance(place, StepSeed)
    seed, step = place.numbers.cpu().numpy().view(np.uint64).tolist()
    place._here = (seed, step)
