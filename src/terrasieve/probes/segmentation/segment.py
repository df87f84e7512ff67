"""The usual comparison in one call: an encoder, its own backbone untrained, and the pixels themselves."""

from __future__ import annotations

from collections.abc import Sequence

from terrasieve.archive.protocol import Archive
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.embeddings.stream import EmbedSettings, device_of
from terrasieve.errors import ConfigError, nearest
from terrasieve.models.backbone import Encoder, build_encoder
from terrasieve.models.export import EncoderCard
from terrasieve.probes.candidates import RANDOM_INIT, Candidate
from terrasieve.probes.rows import ProbeRow, default_inputs
from terrasieve.probes.segmentation.deeplab import DeepLabProbe
from terrasieve.probes.segmentation.evaluate import evaluate_segmentation
from terrasieve.probes.segmentation.folds import make_folds
from terrasieve.probes.segmentation.maps import PixelValues
from terrasieve.probes.segmentation.patch import PatchLinear
from terrasieve.probes.segmentation.protocol import SegmentationProbe
from terrasieve.probes.segmentation.task import prepare_segmentation
from terrasieve.sensors import find_sensor

PER_PIXEL = "per-pixel"
"""The floor that sees nothing but the bands of the pixel itself."""

_PROBES = {"patch": PatchLinear, "deeplab": DeepLabProbe}


def segment(
    encoder: Encoder,
    card: EncoderCard,
    archive: Archive,
    label_sensor: str,
    inputs: Sequence[EncoderInput] | None = None,
    probes: Sequence[SegmentationProbe] | None = None,
    group: str | None = None,
    ignore: Sequence[int] = (),
    settings: EmbedSettings | None = None,
    seed: int = 0,
) -> list[ProbeRow]:
    """Probe an encoder and, always beside it, its own backbone untrained and the pixels themselves.

    Args:
        encoder: Runs on the device that it is on; left exactly as it is.
        card: The encoder's card.
        archive: Has a sensor of kind ``map``.
        label_sensor: That sensor, by key, name or kind.
        inputs: What is shown, a line each; everything that the archive offers when None, as in
            :func:`terrasieve.probes.evaluate.evaluate`.
        probes: What to fit; :class:`PatchLinear` when None.
        group: Column of the archive's table whose equal values are one site; see
            :func:`terrasieve.probes.segmentation.folds.make_folds`.
        ignore: Values of the label map that do not count.
        settings: Size, batch size and precision; the defaults when None.
        seed: Of the floor's weights and of everything drawn.

    Returns:
        Rows ordered by model (the encoder, then the floors), input and probe.

    Raises:
        ArchiveError: The labels or groups do not allow a comparison.
        BandError: A sensor or input does not exist, or an input does not fit the encoder.
        ConfigError: There is no such group column, or the encoder gives no feature maps.
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    offered = inputs or default_inputs(archive.sensors, encoder.channels)
    key = find_sensor(archive.sensors, label_sensor)
    folds = make_folds(archive.table(), key, group, seed)
    task = prepare_segmentation(archive, key, folds, probes, ignore, settings=settings, seed=seed)
    return evaluate_segmentation(with_pixel_floor(encoder, card, seed), offered, task)


def with_pixel_floor(encoder: Encoder, card: EncoderCard, seed: int) -> tuple[Candidate, ...]:
    """A trained encoder, its own backbone untrained, and the pixels, whose bands are always joined."""
    untrained = build_encoder(card.backbone, seed).to(device_of(encoder))
    return (
        Candidate(card.recipe, encoder, encoder.channels),
        Candidate(RANDOM_INIT, untrained, encoder.channels),
        Candidate(PER_PIXEL, PixelValues(), 1),
    )


def segmentation_probes_named(names: Sequence[str], seed: int = 0) -> tuple[SegmentationProbe, ...]:
    """Probes with their defaults by name, ``patch`` or ``deeplab``; ``patch`` where none is named.

    Raises:
        ConfigError: There is no such probe.
    """
    for name in names:
        if name.lower() not in _PROBES:
            raise ConfigError(f"There is no segmentation probe {name!r}.{nearest(name, _PROBES)}")
    return tuple(_PROBES[name](seed=seed) for name in dict.fromkeys(name.lower() for name in names or ("patch",)))
