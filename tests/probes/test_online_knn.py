"""The online kNN reads once, leaves the training alone, and measures what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from terrasieve.embeddings import EmbedSettings, EncoderInput
from terrasieve.models.backbone import Encoder
from terrasieve.probes.online import OnlineKnn

INPUTS = [EncoderInput.parse("s2:B03"), EncoderInput.parse("s2:B02")]
FLOAT32 = EmbedSettings(precision="32", batch_size=16)
MakeLabelled = Callable[..., Any]


def test_pixels_are_read_once_and_never_from_the_test_split(encoder: Encoder, make_labelled: MakeLabelled) -> None:
    archive = make_labelled()
    online = OnlineKnn(archive, INPUTS, train=20, test=9, settings=FLOAT32)
    used = {str(archive.split[index]) for index in archive.reads}
    archive.reads.clear()
    first = online(encoder)
    assert first == online(encoder)
    assert not archive.reads
    assert used == {"train", "val"}


def test_encoder_and_random_states_are_left_alone(encoder: Encoder, make_labelled: MakeLabelled) -> None:
    online = OnlineKnn(make_labelled(), INPUTS, settings=FLOAT32)
    encoder.train()
    encoder.model.layer2.eval()
    modes = [module.training for module in encoder.modules()]
    strides = [parameter.stride() for parameter in encoder.parameters()]
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002  (the global state is the subject)
    online(encoder)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # noqa: NPY002
    assert [module.training for module in encoder.modules()] == modes
    assert [parameter.stride() for parameter in encoder.parameters()] == strides
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


class Level(nn.Module):
    """Maps brightness to a direction, so that classes are apart; ``scale`` 0 makes it constant."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        angle = self.scale * x.mean(dim=(1, 2, 3))
        return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_accuracy_tells_a_good_encoder_from_a_constant_one(make_labelled: MakeLabelled) -> None:
    online = OnlineKnn(make_labelled(), INPUTS, settings=FLOAT32)
    assert online(Level(1.0))["knn_accuracy"] == 1.0
    assert online(Level(0.0))["knn_accuracy"] <= 0.5
