"""Full gradients sum to the score, whatever the bands and the backbone, and point at the object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from terrasieve.errors import ConfigError
from terrasieve.explain.maps import FullGradient, full_gradient, grad_cam
from terrasieve.models.backbone import BackboneSpec, build_encoder

Shake = Callable[..., nn.Module]


def scored(name: str, channels: int, shake: Shake) -> nn.Module:
    encoder = build_encoder(BackboneSpec(name=name, channels=channels), seed=1)
    return shake(nn.Sequential(encoder, nn.Linear(encoder.features, 4))).double()


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("channels", [1, 3, 12])
@pytest.mark.parametrize(("name", "size"), [("resnet18", 32), ("test_resnet", 32), ("test_resnet", 64)])
def test_terms_sum_to_the_score(name: str, channels: int, size: int, shake: Shake) -> None:
    network, pixels = scored(name, channels, shake), drawn(3, channels, size, size)
    found = full_gradient(network, pixels, np.array([0, 3, 1]))
    assert found.score == pytest.approx(network.eval()(pixels)[[0, 1, 2], [0, 3, 1]].detach().numpy(), rel=1e-12)
    assert found.input_term + found.bias_term == pytest.approx(found.score, rel=1e-4)
    assert (found.completeness_error < 1e-10).all()
    assert (np.abs(found.bias_term) > 0.01 * np.abs(found.score)).all()
    assert found.saliency.shape == (3, size, size)
    assert found.saliency.min() >= 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "resnet18d", "regnetx_002", "vgg_like"])
def test_every_convolutional_backbone_is_complete(name: str, shake: Shake) -> None:
    network = shake(VggLike()).double() if name == "vgg_like" else scored(name, 2, shake)
    found = full_gradient(network, drawn(1, 2, 32, 32), np.array([2]))
    assert (found.completeness_error < 1e-10).all()


class VggLike(nn.Sequential):
    """Every kind of bias: of convolutions, of normalisation with and without parameters, of linear layers."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 6, 3),
            nn.BatchNorm2d(6, affine=False),
            nn.LeakyReLU(0.1, inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, stride=2, groups=2, padding=1),
            nn.PReLU(8),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 10),
            nn.BatchNorm1d(10),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(10, 4),
        )


def test_terms_of_one_layer_of_each_kind_by_hand() -> None:
    """score = w relu(g (a x + b - m) / s + t) + c with an active ReLU; the input gives w g a x / s."""
    convolution, norm, linear = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0), nn.Linear(1, 1)
    values = {"a": 2.0, "b": 0.5, "g": 3.0, "m": 0.25, "s": 2.0, "t": 0.75, "w": -1.5, "c": 0.125}
    convolution.weight.data.fill_(values["a"])
    convolution.bias.data.fill_(values["b"])
    norm.weight.data.fill_(values["g"])
    norm.running_mean.fill_(values["m"])
    norm.running_var.fill_(values["s"] ** 2)
    norm.bias.data.fill_(values["t"])
    linear.weight.data.fill_(values["w"])
    linear.bias.data.fill_(values["c"])
    network = nn.Sequential(convolution, norm, nn.ReLU(), nn.Flatten(), linear)
    found = full_gradient(network, torch.full((1, 1, 1, 1), 4.0), np.array([0]))
    assert found.input_term == pytest.approx([-1.5 * 3 / 2 * 2 * 4])
    assert found.bias_term == pytest.approx([-1.5 * (3 / 2 * (0.5 - 0.25) + 0.75) + 0.125])


def test_input_term_is_input_times_gradient(shake: Shake) -> None:
    network, pixels = scored("test_resnet", 3, shake).eval(), drawn(2, 3, 32, 32).requires_grad_()
    (gradient,) = torch.autograd.grad(network(pixels)[:, 1].sum(), pixels)
    expected = (pixels * gradient).sum(dim=(1, 2, 3)).detach().numpy()
    assert full_gradient(network, pixels, np.array([1, 1])).input_term == pytest.approx(expected)


def test_a_batch_is_its_samples(shake: Shake) -> None:
    network, pixels, classes = scored("test_resnet", 3, shake), drawn(3, 3, 32, 32), np.array([2, 0, 1])
    together = full_gradient(network, pixels, classes)
    for i in range(3):
        alone = full_gradient(network, pixels[i : i + 1], classes[i : i + 1])
        for part in ("input_term", "bias_term", "score", "saliency"):
            assert getattr(alone, part)[0] == pytest.approx(getattr(together, part)[i], rel=1e-9)


def test_float32_is_complete_to_its_precision(shake: Shake) -> None:
    network = scored("test_resnet", 3, shake).float()
    found = full_gradient(network, drawn(4, 3, 64, 64).float(), np.arange(4))
    assert (found.completeness_error < 1e-3).all()


class _InPlace(nn.Module):
    """Overwrites the outputs of its layers, as code outside layers may."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.linear = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        features = functional.relu_(self.norm(functional.relu_(self.convolution(pixels))))
        return self.linear(features.mean(dim=(2, 3))).mul_(2)


def test_layers_whose_outputs_are_overwritten(shake: Shake) -> None:
    found = full_gradient(shake(_InPlace()).double(), drawn(2, 2, 8, 8), np.array([0, 3]))
    assert (found.completeness_error < 1e-10).all()


class _Gated(nn.Module):
    """A gate that no layer shows."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(2, 3, 3), nn.Linear(3, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.convolution(pixels)
        return self.linear((features * torch.sigmoid(features)).mean(dim=(2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer"), [("test_vit", "LayerNorm"), ("convnext_atto", "LayerNorm2d"), ("regnety_002", "Sigmoid")]
)
def test_what_is_not_piecewise_linear_is_refused(name: str, layer: str, shake: Shake) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)\b{layer}\b.*attention maps.*Grad-CAM"):
        full_gradient(scored(name, 2, shake), drawn(1, 2, 32, 32), np.array([0]))


def test_a_gate_between_layers_and_statistics_of_the_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"miss the score by .*Grad-CAM"):
        full_gradient(_Gated().double(), drawn(1, 2, 8, 8), np.array([0]))
    of_the_batch = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.Linear(32, 2))
    with pytest.raises(ConfigError, match="BatchNorm2d"):
        full_gradient(of_the_batch.double(), drawn(1, 2, 4, 4), np.array([0]))


def test_network_stays_as_it_is(shake: Shake, snapshot: Any, unchanged: Any) -> None:
    network = scored("test_resnet", 3, shake).train()
    network[0].model.layer1.eval()
    before = snapshot(network)
    pixels = drawn(2, 3, 32, 32)
    kept = pixels.clone()
    full_gradient(network, pixels, np.array([0, 1]))
    grad_cam(network, pixels, np.array([0, 1]))
    unchanged(network, before)
    assert torch.equal(pixels, kept)
    assert not pixels.requires_grad


def quadrants(n: int, seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Noise, but stripes in one quadrant, whose direction is the class; and which quadrant of (row, column)."""
    rng = np.random.default_rng(seed)
    classes, place = rng.integers(0, 2, n), rng.integers(0, 2, (n, 2))
    rows, columns = np.mgrid[:16, :16]
    images = 0.1 * rng.normal(size=(n, 1, 32, 32))
    for image, code, (down, right) in zip(images, classes, place, strict=True):
        image[0, 16 * down : 16 * down + 16, 16 * right : 16 * right + 16] += np.sin(1.5 * (columns if code else rows))
    return torch.from_numpy(images).float(), torch.from_numpy(classes), place


def trained() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for step in range(40):
        images, classes, _ = quadrants(32, step)
        optimiser.zero_grad()
        functional.cross_entropy(network(images), classes).backward()
        optimiser.step()
    return network.eval()


def share_inside(maps: np.ndarray, place: np.ndarray) -> np.ndarray:
    halves = maps.reshape(len(maps), 2, 16, 2, 16).sum(axis=(2, 4))
    return halves[np.arange(len(maps)), place[:, 0], place[:, 1]] / halves.sum(axis=(1, 2))


@pytest.mark.slow
def test_maps_highlight_the_object() -> None:
    network = trained()
    images, classes, place = quadrants(24, 1000)
    assert (network(images).argmax(dim=1) == classes).float().mean() > 0.95
    found: FullGradient = full_gradient(network, images, classes.numpy())
    assert share_inside(found.saliency, place).mean() > 0.5
    assert share_inside(found.saliency, place).min() > 0.4
    assert share_inside(grad_cam(network, images, classes.numpy()), place).mean() > 0.5
