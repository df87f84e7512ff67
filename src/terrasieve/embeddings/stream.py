"""From samples to vectors, batch by batch, in constant memory.

A thread reads ahead while the encoder works, so that the forward pass never waits for pixels. Pixels are standardised
by the statistics of the archive that the encoder was trained on, or of the one that is embedded.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from terrasieve.archive.protocol import Archive
from terrasieve.archive.statistics import statistics_of
from terrasieve.console import track
from terrasieve.device import Precision, resolve_precision
from terrasieve.embeddings.inputs import EncoderInput, bands_by_sensor
from terrasieve.errors import BandError, SampleError
from terrasieve.models.calibration import CALIBRATION_BATCH, CALIBRATION_SAMPLES, Network, batch_norms, calibrated_each
from terrasieve.models.export import EncoderCard
from terrasieve.processes.parallel import read_ahead
from terrasieve.schema import Spec
from terrasieve.streams import Stream, generator
from terrasieve.views.render import Normaliser

BATCHES_AHEAD = 2
"""Batches that wait, already read, while the encoder works: enough to bridge a slow one, few enough for memory."""


class EmbedSettings(Spec):
    """How samples pass through an encoder.

    Attributes:
        size: Height and width in pixels that every sample is resized to (bicubic, antialiased);
            the samples' own size when None.
        batch_size: Samples per forward pass.
        precision: ``bf16`` is bfloat16 autocast, ``32`` is float32; ``auto`` is ``bf16`` where the device has fast
            instructions for it, else ``32``.
    """

    size: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=256, ge=1)
    precision: Precision = "auto"

    def on(self, device: torch.device) -> EmbedSettings:
        """These settings with the precision that they mean on a device."""
        return self.model_copy(update={"precision": resolve_precision(self.precision, device)})


@dataclass(frozen=True)
class RawBatch:
    """Samples as read.

    Attributes:
        indices: Indices of the samples in the archive, shape ``(n,)``.
        pixels: By sensor key, runs of samples of equal shape, each ``(m, bands, height, width)`` float32 in the units
            of the product; together they have n samples in the order of ``indices``.
    """

    indices: NDArray[np.int64]
    pixels: Mapping[str, tuple[NDArray[np.float32], ...]]


def inference_copy(encoder: nn.Module, precision: Precision) -> nn.Module:
    """A copy in eval mode, without gradients and in channels-last layout.

    The encoder itself is left as it is: mode, memory layout, parameters and buffers. For bfloat16 the
    weights that autocast would convert in every forward pass are converted here, once.

    Args:
        encoder: Any encoder, on the device that it is to run on.
        precision: ``bf16``, ``32``, or ``auto`` for what the device is fast at.
    """
    frozen = copy.deepcopy(encoder).eval().requires_grad_(False)
    for tensor in (*frozen.parameters(), *frozen.buffers()):
        # Not by the module's own method, which stops at kernels of three dimensions.
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    if resolve_precision(precision, device_of(frozen)) == "bf16":
        for module in frozen.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.to(torch.bfloat16)
    return frozen


def inference_copies(encoders: Sequence[nn.Module], precision: Precision) -> list[nn.Module]:
    """Of each encoder what :func:`inference_copy` gives; one that occurs again is copied once."""
    copies = {one: inference_copy(one, precision) for one in dict.fromkeys(encoders)}
    return [copies[one] for one in encoders]


def calibrated_encoders(
    encoder: Network,
    archive: Archive,
    inputs: Sequence[EncoderInput],
    normaliser: Normaliser,
    settings: EmbedSettings,
    indices: NDArray[np.int64],
    seed: int,
) -> tuple[Network, ...]:
    """An encoder for each input, whose batch normalisation has the statistics of that input's pixels.

    Up to :data:`terrasieve.models.calibration.CALIBRATION_SAMPLES` samples are measured. An encoder without batch
    normalisation is given back for every input, and nothing is read.

    Args:
        encoder: Any encoder, on the device that it is to run on; it stays as it is.
        archive: Archive that the samples are read from.
        inputs: Resolved inputs; each fills the encoder's channels.
        normaliser: Standardises each band by its statistics before the encoder sees it.
        settings: Size and precision; the batch size does not matter here.
        indices: Samples to draw from, whose labels do not matter; fewer than two measure nothing.
        seed: Seed of the draw, 0 or more.

    Raises:
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    if not batch_norms(encoder) or len(indices) < 2:
        return (encoder,) * len(inputs)
    # In an order of no meaning: batches of one class each would not have the variance of all.
    drawn = generator(Stream.CALIBRATION, seed).permutation(indices)[:CALIBRATION_SAMPLES]
    sized = settings.model_copy(update={"batch_size": calibration_batch(len(drawn))})
    return calibrated_on(encoder, read_batches(archive, inputs, drawn, sized), inputs, normaliser, settings)


def calibrated_on(
    encoder: Network,
    batches: Iterable[RawBatch],
    inputs: Sequence[EncoderInput],
    normaliser: Normaliser,
    settings: EmbedSettings,
) -> tuple[Network, ...]:
    """Like :func:`calibrated_encoders`, on samples that are read already.

    Args:
        encoder: Any encoder, on the device that it is to run on; it stays as it is.
        batches: At least one, of samples in an order of no meaning; those shorter than the first are left out, because
            every batch counts the same.
        inputs: The inputs that the batches were read for.
        normaliser: Standardises each band by its statistics before the encoder sees it.
        settings: Size that pixels are resized to, and precision in which they pass.
    """
    device = device_of(encoder)
    prepared = (prepare_batch(batch, inputs, normaliser, settings.size, device) for batch in _as_long(batches))
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.on(device).precision == "bf16"):
        return calibrated_each(encoder, prepared, len(inputs))


def calibration_batch(samples: int) -> int:
    """Length of equal batches of so many samples, which leave out less than a sample a batch; at least 1."""
    return max(1, samples // max(1, -(-samples // CALIBRATION_BATCH)))


def _as_long(batches: Iterable[RawBatch]) -> Iterator[RawBatch]:
    """The batches that are as long as the first."""
    length: int | None = None
    for batch in batches:
        length = length or len(batch.indices)
        if len(batch.indices) == length:
            yield batch


def embed_batches(
    encoder: nn.Module | Sequence[nn.Module],
    archive: Archive,
    inputs: Sequence[EncoderInput],
    normaliser: Normaliser,
    settings: EmbedSettings | None = None,
    indices: NDArray[np.int64] | None = None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Embed samples in order; each sample is read once, whatever the number of inputs.

    Args:
        encoder: Maps ``(n, channels, height, width)`` to ``(n, features)``; runs on the device it is on. One for all
            inputs, or one for each, as :func:`calibrated_encoders` gives them.
        archive: Archive that the samples are read from.
        inputs: Resolved inputs; each fills the encoder's channels.
        normaliser: Standardises each band by its statistics before the encoder sees it.
        settings: Size, batch size and precision; the defaults when None.
        indices: Samples to embed, in this order; all when None.

    Yields:
        Indices ``(n,)`` and their vectors ``(n, inputs, features)`` in float32.

    Raises:
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    settings = settings or EmbedSettings()
    order = np.arange(len(archive)) if indices is None else np.asarray(indices, dtype=np.int64)
    frozen = inference_copies(
        [encoder] * len(inputs) if isinstance(encoder, nn.Module) else encoder, settings.precision
    )
    yield from embed_frozen(frozen, archive, inputs, normaliser, settings, order)


def embed_frozen(
    frozen: Sequence[nn.Module],
    archive: Archive,
    inputs: Sequence[EncoderInput],
    normaliser: Normaliser,
    settings: EmbedSettings,
    indices: NDArray[np.int64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Like :func:`embed_batches`, by encoders for each input as :func:`inference_copies` gives them."""
    for batch in read_ahead(read_batches(archive, inputs, indices, settings), depth=BATCHES_AHEAD):
        yield batch.indices, embed_batch(frozen, batch, inputs, normaliser, settings)


def embed_vectors(
    encoder: nn.Module | Sequence[nn.Module],
    archive: Archive,
    inputs: Sequence[EncoderInput],
    normaliser: Normaliser,
    settings: EmbedSettings,
    indices: NDArray[np.int64],
    description: str,
) -> NDArray[np.float32]:
    """Vectors ``(n, inputs, features)`` of samples, all in memory, with a progress bar; see :func:`embed_batches`."""
    batches = embed_batches(encoder, archive, inputs, normaliser, settings, indices)
    shown = track(batches, f"{description} (batches)", total=-(-len(indices) // settings.batch_size))
    return np.concatenate([vectors for _, vectors in shown])


def device_of(encoder: nn.Module) -> torch.device:
    """Where an encoder's parameters are; the CPU for one without parameters."""
    parameter = next(encoder.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


@torch.inference_mode()
def embed_batch(
    frozen: Sequence[nn.Module],
    batch: RawBatch,
    inputs: Sequence[EncoderInput],
    normaliser: Normaliser,
    settings: EmbedSettings,
) -> NDArray[np.float32]:
    """Vectors ``(n, inputs, features)`` of samples that were read for these inputs.

    Args:
        frozen: For each input an encoder as :func:`inference_copies` gives them. What it gives beside features, such as
            rows and columns, comes after them.
        batch: Samples as :func:`read_batches` gives them.
        inputs: Resolved inputs; each fills the encoder's channels.
        normaliser: Standardises each band by its statistics before the encoder sees it.
        settings: Size that pixels are resized to, and precision; the batch size does not matter here.
    """
    device = device_of(frozen[0])
    prepared = prepare_batch(batch, inputs, normaliser, settings.size, device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.on(device).precision == "bf16"):
        vectors = [
            encoder(pixels.contiguous(memory_format=torch.channels_last)).float()
            for encoder, pixels in zip(frozen, prepared, strict=True)
        ]
    return np.asarray(torch.stack(vectors, dim=1).cpu().numpy(), dtype=np.float32)


def resize(pixels: Tensor, size: int | None) -> Tensor:
    """Bicubic, antialiased resampling of ``(n, channels, height, width)`` to ``size`` squared; None leaves it."""
    if size is None or pixels.shape[-2:] == (size, size):
        return pixels
    return functional.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True)


def read_batches(
    archive: Archive, inputs: Sequence[EncoderInput], order: NDArray[np.int64], settings: EmbedSettings
) -> Iterator[RawBatch]:
    """Read the bands that the inputs need, each once a sample.

    Args:
        archive: Archive that the samples are read from.
        inputs: Inputs resolved against the archive.
        order: Indices of the samples, in the order to read them, shape ``(n,)``.
        settings: Batch size, and the size by which samples of several shapes are allowed.

    Yields:
        Batches of ``settings.batch_size`` samples; the last may have fewer.

    Raises:
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    needed = bands_by_sensor(inputs)
    for start in range(0, len(order), settings.batch_size):
        indices = order[start : start + settings.batch_size]
        samples = [_read_sample(archive, int(index), needed) for index in indices]
        yield RawBatch(
            indices, {sensor: _stack([sample[sensor] for sample in samples], settings.size) for sensor in needed}
        )


def prepare_batch(
    batch: RawBatch,
    inputs: Sequence[EncoderInput],
    normaliser: Normaliser,
    size: int | None,
    device: torch.device,
) -> list[Tensor]:
    """What an encoder is shown: for each input, standardised and resized pixels ``(n, channels, height, width)``.

    Args:
        batch: Samples as :func:`read_batches` gives them.
        inputs: The inputs that the batch was read for.
        normaliser: Standardises each band by its statistics before the encoder sees it.
        size: Height and width in pixels of the result; the samples' own when None.
        device: Device that the result is on.
    """
    needed = bands_by_sensor(inputs)
    pixels: dict[str, Tensor] = {}
    for sensor, runs in batch.pixels.items():
        channels = [(sensor, band) for band in needed[sensor]]
        # Standardised before they are resized: resampling would mix the nodata value into its neighbours.
        standardised = (normaliser(torch.from_numpy(run).to(device), channels) for run in runs)
        pixels[sensor] = torch.cat([resize(run, size) for run in standardised])
    return [pixels[one.sensor][:, [needed[one.sensor].index(band) for band in one.bands]] for one in inputs]


def _read_sample(archive: Archive, index: int, needed: Mapping[str, Sequence[str]]) -> dict[str, NDArray[np.generic]]:
    try:
        return {sensor: archive.read(index, sensor, bands) for sensor, bands in needed.items()}
    except SampleError as error:
        raise SampleError(
            f"Sample {archive.ids[index]!s} cannot be read: {error} "
            "Run `terrasieve index` and embed the catalogue that it writes; it leaves such samples out."
        ) from error


def _stack(arrays: list[NDArray[np.generic]], size: int | None) -> tuple[NDArray[np.float32], ...]:
    shapes = {array.shape for array in arrays}
    if len(shapes) == 1:
        return (np.stack(arrays, dtype=np.float32, casting="unsafe"),)
    if size is None:
        low, high = min(shapes), max(shapes)
        raise SampleError(
            f"Samples of one batch differ in size, for example {low[1]}x{low[2]} and {high[1]}x{high[2]} pixels; "
            "set a size that all are resized to."
        )
    return tuple(array[None].astype(np.float32) for array in arrays)


# ----------------------------------------------------------------- normalising

StatisticsOf = Literal["encoder", "archive"]


def normaliser_for(
    origin: StatisticsOf, card: EncoderCard, archive: Archive, inputs: Sequence[EncoderInput]
) -> Normaliser:
    """The normaliser for embedding an archive.

    Args:
        origin: ``encoder`` takes the statistics that the encoder was trained with, so that vectors of several
            archives can be compared; ``archive`` measures those of the archive itself, for products that are
            stretched or calibrated in another way.
        card: What the encoder was trained with, its statistics among it.
        archive: Archive that is to be embedded.
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
