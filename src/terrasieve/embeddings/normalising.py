"""By what statistics an archive is standardised before it is embedded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from terrasieve.archive.protocol import Archive
from terrasieve.archive.statistics import statistics_of
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.errors import BandError
from terrasieve.models.export import EncoderCard
from terrasieve.views.normalise import Normaliser

StatisticsOf = Literal["encoder", "archive"]


def normaliser_for(
    origin: StatisticsOf, card: EncoderCard, archive: Archive, inputs: Sequence[EncoderInput]
) -> Normaliser:
    """The normaliser for embedding an archive.

    Args:
        origin: ``encoder`` takes the statistics that the encoder was trained with, so that vectors of several
            archives can be compared; ``archive`` measures those of the archive itself, for products that are
            stretched or calibrated in another way.
        card: The encoder's card.
        archive: What is to be embedded.
        inputs: What the encoder will be shown, resolved against the archive.

    Raises:
        BandError: The encoder was not trained on a sensor or band that it is to be shown.
    """
    if origin == "archive":
        return Normaliser(archive.sensors, statistics_of(archive))
    for one in inputs:
        _check_trained(one, card, archive)
    return Normaliser(archive.sensors, card.statistics)


def _check_trained(wanted: EncoderInput, card: EncoderCard, archive: Archive) -> None:
    product = archive.sensors[wanted.sensor].name
    trained = card.sensors.get(wanted.sensor)
    known = {entry.band for entry in card.statistics.get(wanted.sensor, ())}
    if trained is None or trained.name != product or not known.issuperset(wanted.bands):
        have = ", ".join(f"{key} ({sensor.name}: {', '.join(sensor.names)})" for key, sensor in card.sensors.items())
        raise BandError(
            f"The encoder has no statistics for {wanted} of {product}; it was trained on {have}. Standardise by the "
            "statistics of the archive instead: --statistics archive."
        )
