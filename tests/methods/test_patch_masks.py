"""Which patches are hidden: how many, in what shapes, and that nothing but seed, step, process and place decides."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from terrasieve.methods import patch_masks
from terrasieve.methods.patch_masks import PatchMasks, hide_blocks
from terrasieve.streams import Stream, generator

GRIDS = [(8, 8), (8, 8)]


def _drawn(masks: PatchMasks, samples: int, views: int = 2) -> Tensor:
    return torch.stack(masks.draw(samples, GRIDS[:1] * views))


@pytest.mark.parametrize(("views", "share", "masked"), [(2, 0.5, 1), (2, 1.0, 2), (3, 0.1, 1), (4, 0.5, 2)])
def test_of_each_sample_a_share_of_the_views_is_masked(views: int, share: float, masked: int) -> None:
    hidden = _drawn(PatchMasks(0, share), 300, views).any(dim=2)
    assert (hidden.sum(dim=0) == masked).all()
    assert torch.allclose(hidden.float().mean(dim=1), torch.tensor(masked / views), atol=0.1), "whichever the view"


@pytest.mark.parametrize(("grid", "ratio"), [((8, 8), (0.1, 0.5)), ((4, 4), (0.1, 0.5)), ((3, 10), (0.6, 1.0))])
def test_a_masked_view_hides_a_share_within_the_ratio(grid: tuple[int, int], ratio: tuple[float, float]) -> None:
    (mask,) = PatchMasks(3, 1.0, ratio).draw(400, [grid])
    patches = math.prod(grid)
    counts = mask.sum(dim=1)
    assert mask.shape == (400, patches)
    assert mask.dtype == torch.bool
    wanted = set(range(math.ceil(ratio[0] * patches), math.floor(ratio[1] * patches) + 1))
    assert set(counts.tolist()) == wanted, "every number of patches occurs"
    assert abs(float(counts.float().mean()) - np.mean(list(wanted))) < 0.1 * len(wanted)


def test_at_least_one_patch_is_hidden() -> None:
    (mask,) = PatchMasks(0, 1.0, (0.01, 0.02)).draw(5, [(2, 2)])
    assert mask.sum(dim=1).tolist() == [1] * 5


def test_patches_are_hidden_in_blocks() -> None:
    """More neighbours are hidden together than if patches were drawn one by one."""

    def together(mask: np.ndarray) -> int:
        return int((mask[1:] & mask[:-1]).sum() + (mask[:, 1:] & mask[:, :-1]).sum())

    drawing, blocks, scattered = np.random.default_rng(0), 0, 0
    for _ in range(50):
        mask = np.zeros((14, 14), dtype=np.bool_)
        hide_blocks(mask, 40, drawing)
        assert mask.sum() == 40
        blocks += together(mask)
        scattered += together(drawing.permutation(mask.flatten()).reshape(mask.shape))
    assert blocks > 2.5 * scattered


def test_a_mask_is_a_function_of_seed_step_and_place() -> None:
    masks = PatchMasks(5)
    whole, first = _drawn(masks, 8), PatchMasks(5)
    parts = torch.cat([_drawn(first, 2), _drawn(first, 6)], dim=1)
    assert torch.equal(whole, parts), "micro-batches have the masks of the whole batch"
    masks.step()
    later = _drawn(masks, 8)
    assert not torch.equal(whole, later)
    assert not torch.equal(whole, _drawn(PatchMasks(6), 8))
    assert len({tuple(mask.tolist()) for mask in torch.cat([whole, later]).flatten(0, 1) if mask.any()}) > 14
    resumed = PatchMasks(0)
    resumed.load_state_dict(load(save(first.state_dict())))
    resumed.step()
    assert torch.equal(_drawn(resumed, 8), later)


def test_processes_draw_masks_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    own = _drawn(PatchMasks(5), 8)
    monkeypatch.setattr(patch_masks, "own_rank", lambda: 1)
    assert not torch.equal(own, _drawn(PatchMasks(5), 8))


@pytest.mark.parametrize("seed", [0, 2**63 - 1, 2**63, 2**64 - 1])
def test_every_seed_keeps_all_its_bits(seed: int) -> None:
    (mask,) = PatchMasks(seed, 1.0).draw(1, [(8, 8)])
    drawing, expected = generator(Stream.PATCH_MASKS, seed, 0, 0), np.zeros((8, 8), dtype=np.bool_)
    drawing.permutation(1)
    hide_blocks(expected, int(drawing.integers(7, 32, endpoint=True)), drawing)
    assert torch.equal(mask[0], torch.from_numpy(expected.flatten()))
