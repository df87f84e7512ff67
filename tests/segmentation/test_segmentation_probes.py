"""Segmentation probes learn what the maps tell, from the pixels that count, the same with the same seed."""

from __future__ import annotations

import terrasieve._torchvision  # noqa: F401  (must come first: the installed builds may not match)

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from terrasieve.embeddings.inputs import join
from terrasieve.errors import ConfigError
from terrasieve.models.backbone import Encoder
from terrasieve.models.dense import cell_places, dense_encoder
from terrasieve.probes.segmentation.deeplab import DeepLabProbe, build_head
from terrasieve.probes.segmentation.map_probe import EncoderMaps, FeatureMaps, LabelledImages, PixelValues
from terrasieve.probes.segmentation.patch import PatchLinear
from terrasieve.probes.segmentation.pixel_metrics import IGNORE, METRICS, pixel_confusion


class Gradients(FeatureMaps):
    """Mean pixel and mean absolute difference to the neighbours, of cells of 4 px; then random mixtures."""

    stride, first = 4, 1.5

    def __init__(self, features: int = 12) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mix = nn.Parameter(torch.randn(features, 2, 1, 1, generator=generator), requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        image = pixels.flatten(1, 2)[:, :1]
        differences = (image - image.roll(-1, -1)).abs() + (image - image.roll(-1, -2)).abs()
        both = torch.cat([image, differences], dim=1)
        return nn.functional.conv2d(nn.functional.avg_pool2d(both, 4), self.mix)


def textures(count: int, seed: int, size: int = 32) -> LabelledImages:
    """Halves of fine and of coarse stripes of the same two values, in random order; the seam does not count."""
    rng = np.random.default_rng(seed)
    columns, half = np.arange(size), size // 2
    fine, coarse = 2.0 * (columns % 2) - 1, 2.0 * (columns // 4 % 2) - 1
    pixels, labels = np.zeros((count, 1, 1, size, size)), np.zeros((count, size, size), dtype=np.int16)
    for number, fine_first in enumerate(rng.permutation(np.arange(count) % 2)):
        left = (columns < half) == bool(fine_first)
        pixels[number, 0, 0] = np.where(left, fine, coarse)
        labels[number] = np.where(left, 0, 1)
    labels[:, :, half - 3 : half + 3] = IGNORE
    return LabelledImages(torch.from_numpy(pixels).float(), labels, 2)


def miou(probe: PatchLinear | DeepLabProbe, maps: FeatureMaps, images: LabelledImages) -> float:
    predicted = probe.predict(maps, images.pixels, images.labels.shape[1:])
    return float(METRICS["miou"](pixel_confusion(images.labels, predicted, images.classes)))


def test_deeplab_learns_what_no_single_pixel_tells() -> None:
    train, test = textures(8, seed=0), textures(4, seed=1)
    pixel = PatchLinear(pixels=2000).fit(PixelValues(), train)
    assert miou(pixel, PixelValues(), test) < 0.5
    deeplab = DeepLabProbe(steps=40, batch_size=4, width=16).fit(Gradients(), train)
    assert miou(deeplab, Gradients(), test) > 0.9


def test_deeplab_repeats_itself_and_leaves_the_generator_alone() -> None:
    train, weights = textures(3, seed=0), []
    for seed in (1, 1, 2):
        torch.rand(1)
        state = torch.random.get_rng_state()
        probe = DeepLabProbe(steps=3, batch_size=2, width=8, seed=seed).fit(Gradients(), train)
        assert torch.equal(state, torch.random.get_rng_state())
        weights.append(probe.head_[-1].weight)
    first, again, other = weights
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_deeplab_ignores_what_does_not_count() -> None:
    train = textures(3, seed=0)
    wrong = train.labels.copy()
    wrong[0, :, :8] = IGNORE
    kept = [DeepLabProbe(steps=2, batch_size=2, width=8).fit(Gradients(), train)]
    kept += [DeepLabProbe(steps=2, batch_size=2, width=8).fit(Gradients(), LabelledImages(train.pixels, wrong, 2))]
    assert not torch.equal(kept[0].head_[-1].weight, kept[1].head_[-1].weight)
    assert all(torch.isfinite(fit.head_[-1].weight).all() for fit in kept)
    with pytest.raises(AssertionError, match="without a label"):
        LabelledImages(train.pixels, np.full_like(train.labels, IGNORE), 2)


def test_the_head_is_torchvisions() -> None:
    own, published = build_head(32, 5, width=256).eval(), DeepLabHead(32, 5).eval()
    own.load_state_dict(published.state_dict())
    maps = torch.randn(2, 32, 9, 9)
    with torch.no_grad():
        assert torch.equal(own(maps), published(maps))


def test_deeplab_needs_batches_it_can_normalise() -> None:
    with pytest.raises(ConfigError, match="2 or more"):
        DeepLabProbe(batch_size=1)


def test_deeplab_takes_images_that_are_not_square() -> None:
    train = textures(3, seed=0)
    wide = LabelledImages(train.pixels[..., :16, :], train.labels[:, :16], 2)
    probe = DeepLabProbe(steps=6, batch_size=2, width=8).fit(Gradients(), wide)
    assert probe.predict(Gradients(), wide.pixels, (16, 32)).shape == (3, 16, 32)


def test_patch_linear_reduces_before_it_interpolates_and_predicts_the_same() -> None:
    train, maps = textures(6, seed=0), Gradients(features=40)
    train.pixels.add_(0.3 * torch.randn(train.pixels.shape, generator=torch.Generator().manual_seed(3)))
    probe = PatchLinear(pixels=1500, components=2).fit(maps, train)
    assert probe.reduction_ is not None
    values = maps.at(maps(train.pixels), cell_places((32, 32), (32, 32)))
    vectors = values.permute(0, 2, 3, 1).reshape(-1, 40).numpy()
    expected = probe.probe_.predict(probe.reduction_.transform(vectors)).reshape(6, 32, 32)
    assert (probe.predict(maps, train.pixels, (32, 32)) == expected).mean() > 0.999
    assert miou(probe, maps, textures(4, seed=1)) > 0.9


def test_patch_linear_never_draws_a_pixel_that_does_not_count() -> None:
    train = textures(4, seed=0)
    spoilt = train.pixels.clone()
    spoilt[torch.from_numpy(train.labels == IGNORE)[:, None, None]] = 1e6
    probes = [
        PatchLinear(pixels=10**6).fit(PixelValues(), LabelledImages(pixels, train.labels, 2))
        for pixels in (train.pixels, spoilt)
    ]
    assert torch.equal(probes[0].probe_.weights_, probes[1].probe_.weights_)


def test_patch_linear_draws_as_many_pixels_from_each_image() -> None:
    train = textures(4, seed=0)
    drawn = PatchLinear(pixels=100)._draw(PixelValues(), train, lambda note: None)
    assert drawn.features.shape == (100, 1)
    parts = np.split(drawn.features[:, 0], 4)
    assert all(set(part) <= set(train.pixels[i].flatten().tolist()) for i, part in enumerate(parts))
    other = PatchLinear(pixels=100, seed=1)._draw(PixelValues(), train, lambda note: None)
    assert not np.array_equal(drawn.labels, other.labels)


def test_joined_maps_are_joined_vectors_cell_by_cell(single_band: Encoder) -> None:
    pixels = torch.randn(2, 3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = EncoderMaps(single_band, 16, "32")
    each = torch.stack([dense_encoder(single_band, 16)(pixels[:, part]) for part in range(3)], dim=1)
    cells = each.permute(0, 3, 4, 1, 2).flatten(0, 2).numpy()
    expected = torch.from_numpy(join(cells)).reshape(2, 2, 2, -1).permute(0, 3, 1, 2)
    torch.testing.assert_close(maps(pixels), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(maps(pixels[:, :1]), each[:, 0], atol=1e-4, rtol=1e-4)


def test_pixel_values_at_the_labels_are_the_pixels() -> None:
    pixels = torch.randn(2, 3, 1, 6, 9)
    maps = PixelValues()
    found = maps.at(maps(pixels), cell_places((6, 9), (6, 9)))
    torch.testing.assert_close(found, pixels.flatten(1, 2), atol=1e-5, rtol=1e-5)


def test_places_of_a_coarser_label_map_are_the_centres_of_its_pixels() -> None:
    places = cell_places((2, 3), (4, 12))
    assert places[0, :, 0, 0].tolist() == [0.5, 2.5]
    assert places[0, 0, :, 1].tolist() == [1.5, 5.5, 9.5]
