"""An encoder for one input: which bands it is shown, and what is done to their pixels before it sees them."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal, cast

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import torch
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from terrasieve.embeddings.inputs import EncoderInput, resolve_inputs
from terrasieve.errors import ConfigError
from terrasieve.models.backbone import Encoder, patch_size_of
from terrasieve.models.export import EncoderCard
from terrasieve.models.layers import PixelConv2d, replace_modules
from terrasieve.probes.results import default_inputs
from terrasieve.schema import Spec
from terrasieve.sensors import Unit
from terrasieve.views.render import Normaliser, standardise_

PREPROCESSING = "clip(pixel, low, high), minus mean, over std; missing pixels (NaN, infinite or nodata) become 0"


class ChannelMeaning(Spec):
    """What a channel of the input holds, and by which numbers its pixels are standardised.

    Attributes:
        name: Name of the band as the product gives it, for example ``B04``.
        sensor: Name of the sensor and product, for example ``s2-l2a``.
        unit: Unit of the pixels.
        low: Lowest plausible value; what is below is clipped to it.
        high: Highest plausible value; what is above is clipped to it.
        mean: Mean of the band, which is subtracted.
        std: Standard deviation of the band, by which is divided; 1 for a band that does not vary.
        nodata: Value that means "nothing measured here"; null where there is none.
    """

    name: str
    sensor: str
    unit: Unit
    low: float
    high: float
    mean: float
    std: float
    nodata: float | None = None


class ModelInterface(Spec):
    """What an exported model takes and gives, in a form that travels with it.

    Attributes:
        recipe: Name of the recipe that trained the encoder.
        method: Name of the method that trained it.
        backbone: Name of the timm architecture.
        weights_sha256: Hash of the encoder's weights in hexadecimal; null where it is not known.
        bands: What the channels of the input are, in order.
        size: Height and width of the input in pixels.
        features: Length of the vector that it gives.
        parameters: Number of the network's parameters.
        preprocessing: What is done to the pixels, in words.
        applied: ``inside`` where the model does it itself and takes pixels in the unit of the bands; ``before`` where
            whoever calls it has to.
    """

    recipe: str
    method: str
    backbone: str
    weights_sha256: str | None
    bands: tuple[ChannelMeaning, ...]
    size: int = Field(ge=1)
    features: int = Field(ge=1)
    parameters: int = Field(ge=0)
    preprocessing: str = PREPROCESSING
    applied: Literal["inside", "before"]


class PreparedEncoder(nn.Module):
    """A network with its preprocessing inside, from pixels in the unit of the bands to features.

    Args:
        network: A plain timm network without classifier.
        parameters: What :func:`terrasieve.views.render.standardise_` needs, ``(channels, 5)``.
        size: Height and width of the input in pixels.
        features: Length of the vector.
        card: What the encoder is.
        shown: The bands that fill its channels.
    """

    def __init__(
        self, network: nn.Module, parameters: Tensor, size: int, features: int, card: EncoderCard, shown: EncoderInput
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("parameters_of_bands", parameters[:, :, None, None])
        self.size = size
        self.features = features
        self.card = card
        self.shown = shown

    def forward(self, pixels: Tensor) -> Tensor:
        """Features ``(n, features)`` of float32 ``(n, channels, size, size)`` in the unit of the bands."""
        features: Tensor = self.network(self.standardised(pixels))
        return features

    def standardised(self, pixels: Tensor) -> Tensor:
        """What the network itself is shown of the same pixels."""
        return standardise_(pixels.clone(), cast(Tensor, self.parameters_of_bands))

    @property
    def channels(self) -> int:
        """Number of bands that it takes."""
        return self.card.backbone.channels

    def example(self, samples: int) -> Tensor:
        """Made-up pixels in the unit of the bands, some of them missing, the same in every call."""
        shape = (samples, self.channels, self.size, self.size)
        noise = torch.arange(math.prod(shape), dtype=torch.float32).mul_(12.9898).sin_().mul_(2).view(shape)
        parameters = cast(Tensor, self.parameters_of_bands)
        pixels = parameters[:, 0] + noise / parameters[:, 1]
        pixels[:, :, 0, 0] = torch.nan
        return pixels

    def interface(self, applied: Literal["inside", "before"]) -> ModelInterface:
        """What it takes and gives.

        Args:
            applied: Who standardises the pixels.
        """
        sensor = self.card.sensors[self.shown.sensor]
        bands = sensor.select(*self.shown.bands).bands
        statistics = {entry.band: entry for entry in self.card.statistics[self.shown.sensor]}
        return ModelInterface(
            recipe=self.card.recipe,
            method=self.card.method,
            backbone=self.card.backbone.name,
            weights_sha256=self.card.weights_sha256,
            bands=tuple(
                ChannelMeaning(
                    name=band.name,
                    sensor=sensor.name,
                    unit=band.unit,
                    low=band.valid_range[0],
                    high=band.valid_range[1],
                    mean=statistics[band.name].mean,
                    std=statistics[band.name].std or 1.0,
                    nodata=sensor.nodata,
                )
                for band in bands
            ),
            size=self.size,
            features=self.features,
            parameters=sum(one.numel() for one in self.network.parameters()),
            applied=applied,
        )


def prepare_encoder(
    encoder: Encoder, card: EncoderCard, shown: EncoderInput | None = None, size: int | None = None
) -> PreparedEncoder:
    """An encoder with its preprocessing, for one input; the encoder stays as it is.

    Args:
        encoder: The encoder that the card describes.
        card: What it is; its sensors and statistics say how pixels are standardised.
        shown: The bands that fill its channels; the first that fit when None.
        size: Height and width of the input in pixels; those of the views that it was trained on when None.

    Returns:
        A copy on the CPU, in eval mode and without gradients.

    Raises:
        BandError: The encoder was not trained on these bands, or takes another number of them.
        ConfigError: The size does not suit the network, or the card knows no sensor.
    """
    if not card.sensors:
        raise ConfigError(
            f"The encoder {card.recipe} does not say what sensors it was trained on, so nobody knows how its input is "
            "standardised. Export a run of `terrasieve pretrain`."
        )
    (resolved,) = resolve_inputs(
        [shown or default_inputs(card.sensors, encoder.channels)[0]], card.sensors, encoder.channels
    )
    size = size or card.image_size
    patch = patch_size_of(encoder.model)
    if patch is not None and (size % patch[0] or size % patch[1]):
        raise ConfigError(
            f"The network cuts images into patches of {patch[0]} pixels, which do not fill {size}: give a multiple, "
            f"for example --size {max(1, round(size / patch[0])) * patch[0]}."
        )
    network: Any = copy.deepcopy(encoder.model).cpu().eval().requires_grad_(False)
    # How it computes depends on the size of its input in a way that cannot be recorded.
    replace_modules(network, {PixelConv2d: nn.Conv2d})
    # Lays the position embedding out as the network does in every pass. Others, such as Swin, would get other windows.
    if isinstance(network, VisionTransformer):
        network.set_input_size(img_size=(size, size))
    channels = tuple((resolved.sensor, band) for band in resolved.bands)
    parameters = Normaliser(card.sensors, card.statistics).parameters(channels, torch.device("cpu"))
    return PreparedEncoder(network, parameters, size, encoder.features, card, resolved).eval()
