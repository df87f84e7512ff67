"""Vectors are the frozen encoder's, in order, each sample read once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional as oracle

from terrasieve import device
from terrasieve.embeddings import EmbedSettings, EncoderInput, embed, embed_batches
from terrasieve.embeddings.stream import resize
from terrasieve.errors import BandError, SampleError
from terrasieve.models.backbone import Encoder
from terrasieve.models.export import EncoderCard
from terrasieve.views.render import Normaliser

FLOAT32 = EmbedSettings(precision="32", batch_size=4)
BANDS = [EncoderInput(sensor="s2", bands=(band,)) for band in ("B02", "B04")]

MakeArchive = Callable[..., Any]


def collect(*args: Any) -> tuple[np.ndarray, np.ndarray]:
    batches = list(embed_batches(*args))
    return np.concatenate([b[0] for b in batches]), np.concatenate([b[1] for b in batches])


def test_vectors_equal_a_forward_pass_by_hand(
    make_archive: MakeArchive, normaliser: Normaliser, encoder: Encoder
) -> None:
    archive = make_archive(6)
    indices, vectors = collect(encoder, archive, BANDS, normaliser, FLOAT32)
    assert indices.tolist() == list(range(6))
    assert vectors.shape == (6, 2, encoder.features)
    assert vectors.dtype == np.float32
    encoder.eval()
    for group, (row, mean, std) in enumerate([(2, 1700, 1000), (0, 1500, 900)]):
        pixels = torch.from_numpy(np.stack(archive.pixels)[:, row : row + 1].astype(np.float32))
        with torch.no_grad():
            expected = encoder((pixels - mean) / std)
        assert np.allclose(vectors[:, group], expected.numpy(), atol=1e-4)


def test_each_sample_is_read_once_and_indices_choose_and_order(
    make_archive: MakeArchive, normaliser: Normaliser, encoder: Encoder
) -> None:
    archive = make_archive(9)
    chosen = np.array([7, 1, 3, 8, 0])
    indices, vectors = collect(encoder, archive, BANDS, normaliser, FLOAT32, chosen)
    assert indices.tolist() == chosen.tolist()
    assert dict(archive.reads) == dict.fromkeys(chosen.tolist(), 1)
    everything = collect(encoder, archive, BANDS, normaliser, FLOAT32)[1]
    assert np.allclose(vectors, everything[chosen], atol=1e-5)


def test_bfloat16_is_close_and_repeatable(make_archive: MakeArchive, normaliser: Normaliser, encoder: Encoder) -> None:
    archive = make_archive(4)
    half = EmbedSettings(precision="bf16")
    first = collect(encoder, archive, BANDS, normaliser, half)[1]
    assert np.array_equal(first, collect(encoder, archive, BANDS, normaliser, half)[1])
    exact = collect(encoder, archive, BANDS, normaliser, FLOAT32)[1]
    assert not np.array_equal(first, exact)
    assert np.abs(first - exact).max() < 0.05 * np.abs(exact).max()


def test_bfloat16_equals_autocast(make_archive: MakeArchive, normaliser: Normaliser, encoder: Encoder) -> None:
    archive = make_archive(4)
    vectors = collect(encoder, archive, BANDS[1:], normaliser, EmbedSettings(precision="bf16"))[1]
    pixels = torch.from_numpy(np.stack(archive.pixels)[:, :1].astype(np.float32))
    encoder.eval().to(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = encoder(normaliser(pixels, [("s2", "B04")]).contiguous(memory_format=torch.channels_last))
    assert np.array_equal(vectors[:, 0], expected.float().numpy())


class Spy(nn.Module):
    """An encoder that notes the mode it was called in."""

    modes: list[bool] = []  # noqa: RUF012  (shared, so that the copy's calls are seen)

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Spy.modes.append(self.training or self.norm.training or self.drop.training)
        return self.drop(self.norm(x)).flatten(1)


def test_encoder_is_frozen_in_eval_mode_and_left_as_it_was(make_archive: MakeArchive, normaliser: Normaliser) -> None:
    Spy.modes.clear()
    spy = Spy()
    spy.drop.eval()
    before = {key: value.clone() for key, value in spy.state_dict().items()}
    random_state = torch.get_rng_state()
    collect(spy, make_archive(6), BANDS[:1], normaliser, FLOAT32)
    assert Spy.modes == [False, False]
    assert (spy.training, spy.norm.training, spy.drop.training) == (True, True, False)
    assert all(parameter.requires_grad for parameter in spy.parameters())
    assert all(torch.equal(value, before[key]) for key, value in spy.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_unreadable_sample_is_named_with_the_way_out(
    make_archive: MakeArchive, normaliser: Normaliser, encoder: Encoder
) -> None:
    stream = embed_batches(encoder, make_archive(9, broken=[5]), BANDS, normaliser, FLOAT32)
    assert next(stream)[0].tolist() == [0, 1, 2, 3]
    with pytest.raises(SampleError, match=r"tile-5 cannot be read: tile-5.tif is truncated.*terrasieve index"):
        next(stream)


def test_samples_of_different_size_need_a_size(
    make_archive: MakeArchive, normaliser: Normaliser, encoder: Encoder
) -> None:
    archive = make_archive(4)
    archive.pixels[2] = archive.pixels[2][:, :9, :]
    with pytest.raises(SampleError, match="differ in size"):
        collect(encoder, archive, BANDS, normaliser, FLOAT32)
    resized = EmbedSettings(precision="32", size=16)
    vectors = collect(encoder, archive, BANDS, normaliser, resized)[1]
    alone = collect(encoder, archive, BANDS, normaliser, resized, np.array([2]))[1]
    assert vectors.shape[0] == 4
    assert np.allclose(vectors[2], alone[0], atol=1e-5)


@pytest.mark.parametrize("size", [8, 24])
def test_resizing_equals_torchvision(size: int) -> None:
    pixels = torch.randn(2, 3, 16, 12, generator=torch.Generator().manual_seed(1))
    expected = oracle.resize(pixels, [size, size], oracle.InterpolationMode.BICUBIC, antialias=True)
    assert torch.allclose(resize(pixels, size), expected, atol=1e-6)
    assert resize(pixels, None) is pixels


def test_table_in_memory(
    make_archive: MakeArchive, normaliser: Normaliser, encoder: Encoder, card: EncoderCard
) -> None:
    table = embed(encoder, card, make_archive(5), BANDS, normaliser, FLOAT32, np.array([4, 1]))
    assert table.ids.tolist() == ["tile-4", "tile-1"]
    assert table.columns["label"].to_pylist() == ["class-1", "class-1"]
    assert "split" not in table.columns.column_names
    assert table.vectors.shape == (2, 2, encoder.features)
    assert table.provenance["emb:dimensions"] == 2 * encoder.features
    with pytest.raises(BandError, match="the encoder takes 1"):
        embed(encoder, card, make_archive(5), [EncoderInput.parse("s2:rgb")], normaliser)


def test_the_automatic_precision_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for fast, expected in ((True, "bf16"), (False, "32")):
        monkeypatch.setattr(device, "bf16_is_fast", lambda chosen, fast=fast: fast)
        assert EmbedSettings().on(torch.device("cpu")).precision == expected
        assert EmbedSettings(precision="bf16").on(torch.device("cpu")).precision == "bf16"
        assert EmbedSettings(precision="32").on(torch.device("cpu")).precision == "32"
