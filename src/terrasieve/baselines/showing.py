"""A band shown to an encoder that takes several."""

from __future__ import annotations

from torch import Tensor, nn

from terrasieve.errors import BandError
from terrasieve.models.backbone import Encoder


class Repeated(nn.Module):
    """An encoder of several channels that is shown one band in each of them.

    A single band is copied three times for a baseline of three channels (Jain et al. 2022, section IV). Its first
    convolution stays as it was trained.

    Args:
        encoder: Of ``copies`` channels.
        copies: How often the band is copied.

    Attributes:
        encoder: As given.
        channels: 1.
        features: Length of the vector.

    Raises:
        BandError: The encoder takes another number of channels.
    """

    def __init__(self, encoder: Encoder, copies: int) -> None:
        super().__init__()
        if encoder.channels != copies:
            raise BandError(f"The encoder takes {encoder.channels} channel(s): copy the band {encoder.channels} times.")
        self.encoder = encoder
        self.copies = copies
        self.channels = 1
        self.features = encoder.features

    def forward(self, pixels: Tensor) -> Tensor:
        """Features ``(n, features)`` of normalised pixels ``(n, 1, height, width)``.

        Raises:
            BandError: The pixels have more than one band.
        """
        if pixels.shape[1] != 1:
            raise BandError(f"One band is copied {self.copies} times, but {pixels.shape[1]} were given; give one.")
        features: Tensor = self.encoder(pixels.expand(-1, self.copies, -1, -1))
        return features
