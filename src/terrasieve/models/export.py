"""Encoders on disk: weights that plain timm loads, and a card that says what they are.

``config.json`` is timm's own description, by which it loads the folder; see :mod:`terrasieve.models.hub_config`::

    model = timm.create_model("local-dir:FOLDER", pretrained=True)

``encoder.safetensors`` holds the network under timm's own names::

    model = timm.create_model(name, in_chans=channels, num_classes=0, img_size=image_size)
    model.load_state_dict(safetensors.torch.load_file("encoder.safetensors"))

with ``name``, ``channels`` and ``image_size`` as under ``backbone`` in ``encoder.json``. Where ``patch_size`` and
``registers`` are not null there, they are timm's ``patch_size`` and ``reg_tokens``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from terrasieve.errors import CheckpointError
from terrasieve.files.writing import write_together
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.hub_config import CONFIG, hub_config
from terrasieve.runs import CARD, WEIGHTS, Provenance, RunFolder
from terrasieve.schema import Spec
from terrasieve.sensors import BandStatistics, Sensor


class EncoderCard(Spec):
    """What an encoder is, and what it must be given.

    Attributes:
        backbone: Architecture and number of bands, from which the network is built again.
        method: Name of the method that trained it, for example ``byol``.
        recipe: Name of the recipe that it was trained by.
        image_size: Height and width, in pixels, of the views that it was trained on.
        sensors: Sensors of the archive that it was trained on, by key.
        view_bands: Of each view, the bands that could fill its channels, as ``sensor:band``.
        statistics: Mean, deviation and range of each sensor's bands, by which its pixels were normalised.
        teacher_memory: Share of its initial weights that the teacher held when the encoder was written, 0 to 1; null
            where there was no teacher, or nobody said.
        calibrated_on: What the statistics of batch normalisation were measured on, ``training crops``; null where they
            are the running ones of training, or there are none.
        provenance: Where it comes from: data, configuration, step, versions, hardware.
        weights_sha256: SHA-256 of the weights file in hexadecimal; null before it is written.
    """

    backbone: BackboneSpec
    method: str
    recipe: str
    image_size: int = Field(ge=1)
    sensors: Mapping[str, Sensor]
    view_bands: tuple[tuple[str, ...], ...]
    statistics: Mapping[str, tuple[BandStatistics, ...]]
    teacher_memory: float | None = Field(default=None, ge=0, le=1)
    calibrated_on: Literal["training crops"] | None = None
    provenance: Provenance = Field(default_factory=Provenance)
    weights_sha256: str | None = None


def save_encoder(folder: Path, encoder: Encoder, card: EncoderCard) -> EncoderCard:
    """Write weights, timm's description and card, each under a temporary name that is then renamed; the card last.

    Args:
        folder: Where ``encoder.safetensors``, ``config.json`` and ``encoder.json`` go; made if absent.
        encoder: The network to write, which stays as it is, on its device.
        card: What it is; the card that is written says the hash of the weights too.

    Returns:
        The card as written.

    Raises:
        WriteError: The system refused it; an encoder that was there is untouched.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.model.state_dict().items()}
    weights = save(tensors, metadata={"format": "pt"})
    card = card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    described = hub_config(encoder, card.backbone, card.image_size)
    written = {WEIGHTS: weights, CONFIG: described, CARD: card.model_dump_json(indent=1).encode()}
    write_together({folder / name: content for name, content in written.items()})
    return card


def load_encoder(folder: Path) -> tuple[Encoder, EncoderCard]:
    """Read an encoder back, on the CPU and in eval mode.

    Args:
        folder: The folder that :func:`save_encoder` wrote, or a run folder that holds it as ``encoder``.

    Raises:
        CheckpointError: There is none, or a file is damaged, foreign or of another network.
        ConfigError: The installed timm does not know the network.
    """
    folder = _find(folder)
    card = read_card(folder / CARD)
    tensors = _read_weights(folder / WEIGHTS, card.weights_sha256)
    encoder = build_encoder(card.backbone, seed=0)
    try:
        encoder.model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder / WEIGHTS} does not hold the weights of {card.backbone.name} that {CARD} describes: {error} "
            "Use the two files of one export together."
        ) from error
    return encoder.eval(), card


def encoder_files(folder: Path) -> dict[str, bytes]:
    """The content of an encoder's files by name, the weights first: what another folder or a repository needs.

    Args:
        folder: As for :func:`load_encoder`. Where an earlier version wrote it without ``config.json``, that is made.

    Raises:
        CheckpointError: There is no encoder, or a file is damaged, foreign or of another network.
        ConfigError: The installed timm does not know the network.
    """
    encoder, card = load_encoder(folder)
    found = _find(folder)
    described = hub_config(encoder, card.backbone, card.image_size)
    return {WEIGHTS: (found / WEIGHTS).read_bytes(), CONFIG: described, CARD: (found / CARD).read_bytes()}


def _find(folder: Path) -> Path:
    found = RunFolder(folder).exported()
    if found is None:
        raise CheckpointError(
            f"No encoder in {folder}: neither {CARD} nor encoder/{CARD} is there. "
            "Name the folder of a run, or the encoder folder inside it."
        )
    return found


def read_card(path: Path) -> EncoderCard:
    """Read a card alone.

    Args:
        path: The file ``encoder.json``.

    Raises:
        CheckpointError: It is absent, damaged or of another version.
    """
    try:
        return EncoderCard.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        said = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            said = f"{'.'.join(map(str, first['loc']))}: {first['msg']}, not {str(first['input'])[:60]}."
        raise CheckpointError(
            f"{path} is not an encoder card of this version: {said} Export the encoder again."
        ) from error


def _read_weights(path: Path, sha256: str | None) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise CheckpointError(
                f"{path} has the hash {found}, but {CARD} beside it says {sha256}: it was damaged, exchanged or half "
                "replaced. Copy both files again, or resume the run to export anew."
            )
        tensors: dict[str, Tensor] = load(content)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}. Export the encoder again.") from error
    return tensors
