"""The dihedral group of the square, against torch's own flips and turns."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from terrasieve.views.dihedral import ORDER, TRANSPOSE, apply_dihedral, apply_dihedral_each, dihedral_codes

SQUARE = torch.arange(18.0).reshape(1, 2, 3, 3)
OBLONG = torch.arange(30.0).reshape(1, 2, 3, 5)


def test_codes_are_the_eight_symmetries_of_the_square() -> None:
    seen = {tuple(apply_dihedral(SQUARE, code).flatten().tolist()) for code in range(ORDER)}
    turns = {
        tuple(torch.rot90(one, k, (2, 3)).flatten().tolist()) for k in range(4) for one in (SQUARE, SQUARE.flip(3))
    }
    assert seen == turns
    assert len(seen) == ORDER
    assert torch.equal(apply_dihedral(SQUARE, 0), SQUARE)
    assert all(apply_dihedral(OBLONG, code).shape == OBLONG.shape for code in range(TRANSPOSE))


@pytest.mark.parametrize("images", [SQUARE, OBLONG])
def test_a_code_flips_then_turns(images: torch.Tensor) -> None:
    for rows, columns, turns in itertools.product([False, True], [False, True], range(4)):
        code = int(dihedral_codes(np.array([[rows, columns]]), np.array([turns]))[0])
        expected = images.flip([2] * rows + [3] * columns).rot90(turns, (2, 3))
        assert torch.equal(apply_dihedral(images, code), expected)


def test_each_image_has_its_own_code_and_the_layout_stays() -> None:
    images = torch.rand(20, 3, 6, 6).to(memory_format=torch.channels_last)
    codes = np.random.default_rng(0).integers(ORDER, size=20)
    laid = apply_dihedral_each(images, codes)
    assert laid.is_contiguous(memory_format=torch.channels_last)
    for image, code, found in zip(images, codes.tolist(), laid, strict=True):
        assert torch.equal(found, apply_dihedral(image, code))
