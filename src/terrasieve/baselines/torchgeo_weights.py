"""Weights that torchgeo lists for Sentinel: architecture, bands in order, training.

All are state dicts under timm's names (torchgeo/models/resnet.py and vit.py). A licence is stated where the page of the
file states one.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from terrasieve.baselines.baseline import RGB, Facts
from terrasieve.errors import CheckpointError, ConfigError, nearest
from terrasieve.sensors import SENSORS

_SSL4EO = "Wang et al. 2023, SSL4EO-S12, arXiv 2211.07044"
_DECUR = "Wang et al. 2023, DeCUR, arXiv 2309.05300"
_FGMAE = "Wang et al. 2023, FG-MAE, arXiv 2310.18653"
_SECO = "Mañas et al. 2021, Seasonal Contrast, arXiv 2103.16607"
_ALL = SENSORS["s2-l1c"].names
_RADAR = ("VV", "VH")
_NETWORKS = {
    "ResNet18_Weights": "resnet18",
    "ResNet50_Weights": "resnet50",
    "ResNet152_Weights": "resnet152",
    "ViTSmall16_Weights": "vit_small_patch16_224",
    "ViTBase16_Weights": "vit_base_patch16_224",
    "ViTLarge16_Weights": "vit_large_patch16_224",
    "ViTHuge14_Weights": "vit_huge_patch14_224",
}


def _ssl4eo(method: str, bands: tuple[str, ...], citation: str, licence: str | None = None) -> Facts:
    return Facts(bands, f"{method} on SSL4EO-S12", citation, licence)


_KNOWN: Mapping[str, Facts] = {
    "ResNet18_Weights.SENTINEL2_ALL_MOCO": _ssl4eo("MoCo", _ALL, _SSL4EO, "CC-BY-4.0"),
    "ResNet18_Weights.SENTINEL2_RGB_MOCO": _ssl4eo("MoCo", RGB, _SSL4EO, "CC-BY-4.0"),
    "ResNet18_Weights.SENTINEL2_RGB_SECO": Facts(RGB, "SeCo on the SeCo dataset", _SECO, "Apache-2.0"),
    "ResNet50_Weights.SENTINEL1_ALL_DECUR": _ssl4eo("DeCUR", _RADAR, _DECUR),
    "ResNet50_Weights.SENTINEL1_ALL_MOCO": _ssl4eo("MoCo", _RADAR, _SSL4EO),
    "ResNet50_Weights.SENTINEL2_ALL_DECUR": _ssl4eo("DeCUR", _ALL, _DECUR),
    "ResNet50_Weights.SENTINEL2_ALL_DINO": _ssl4eo("DINO", _ALL, _SSL4EO),
    "ResNet50_Weights.SENTINEL2_ALL_MOCO": _ssl4eo("MoCo", _ALL, _SSL4EO, "CC-BY-4.0"),
    "ResNet50_Weights.SENTINEL2_RGB_MOCO": _ssl4eo("MoCo", RGB, _SSL4EO, "CC-BY-4.0"),
    "ResNet50_Weights.SENTINEL2_RGB_SECO": Facts(RGB, "SeCo on the SeCo dataset", _SECO, "Apache-2.0"),
    "ViTSmall16_Weights.SENTINEL1_GRD_FGMAE": _ssl4eo("FG-MAE", _RADAR, _FGMAE),
    "ViTSmall16_Weights.SENTINEL2_ALL_DINO": _ssl4eo("DINO", _ALL, _SSL4EO, "CC-BY-4.0"),
    "ViTSmall16_Weights.SENTINEL2_ALL_FGMAE": _ssl4eo("FG-MAE", _ALL, _FGMAE),
    "ViTSmall16_Weights.SENTINEL2_ALL_MOCO": _ssl4eo("MoCo", _ALL, _SSL4EO),
    "ViTBase16_Weights.SENTINEL1_GRD_FGMAE": _ssl4eo("FG-MAE", _RADAR, _FGMAE),
    "ViTBase16_Weights.SENTINEL2_ALL_FGMAE": _ssl4eo("FG-MAE", _ALL, _FGMAE),
}


class TorchgeoWeights(NamedTuple):
    """What is known of weights before their file is opened.

    Attributes:
        network: Name of the timm architecture.
        facts: Bands in order, training, source and licence.
    """

    network: str
    facts: Facts


def known_weights(name: str) -> TorchgeoWeights:
    """What is known of weights without an installed torchgeo.

    Args:
        name: torchgeo's name, for example ``ResNet50_Weights.SENTINEL2_ALL_MOCO``.

    Raises:
        ConfigError: The name is unknown.
    """
    if name not in _KNOWN:
        raise ConfigError(
            f"No weights {name!r} of torchgeo's are known here.{nearest(name, _KNOWN)} "
            "Other files: timm:<timm name>:<file>."
        )
    return TorchgeoWeights(_NETWORKS[name.partition(".")[0]], _KNOWN[name])


def listed_weights(name: str) -> tuple[TorchgeoWeights, Path]:
    """What the installed torchgeo says of weights, and their file, downloaded into torch.hub's folder if absent.

    Args:
        name: torchgeo's name, for example ``ResNet50_Weights.SENTINEL2_ALL_MOCO``.

    Raises:
        ConfigError: torchgeo is not installed, or knows no such weights for a network of timm's.
        CheckpointError: The download failed.
    """
    listed = _look_up(name)
    network, facts = _described(name, listed.meta)
    return TorchgeoWeights(network, facts), _local(listed)


def listed_file(name: str) -> Path:
    """The file of weights, which the installed torchgeo knows, downloaded into torch.hub's folder if absent.

    Args:
        name: torchgeo's name, for example ``DOFABase16_Weights.DOFA_MAE``.

    Raises:
        ConfigError: torchgeo is not installed, or knows no such weights.
        CheckpointError: The download failed.
    """
    return _local(_look_up(name))


def torchgeo_models(name: str, otherwise: str) -> Any:
    """The module of the installed torchgeo that has its networks.

    Args:
        name: Name of the weights that are wanted, for the message.
        otherwise: What else can be done where it is not installed, as the end of a sentence; nothing where nothing can.

    Raises:
        ConfigError: torchgeo is not installed.
    """
    # torchgeo is no dependency: it is asked only where somebody has it.
    try:
        return importlib.import_module("torchgeo.models")
    except ImportError as error:
        raise ConfigError(
            f"torchgeo is not installed, so {name} cannot be looked up. Install torchgeo{otherwise}."
        ) from error


def band_name(name: str) -> str:
    """A Sentinel-2 band of torchgeo's as the product names it: ``B4`` is ``B04``, ``B8a`` is ``B8A``."""
    return re.sub(r"^B(\d)$", r"B0\1", name.upper())


def _look_up(name: str) -> Any:
    models = torchgeo_models(name, f", or download the file and name it: torchgeo:{name}:<file>")
    try:
        return models.get_weight(name)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"torchgeo lists no weights {name!r}.{nearest(name, _KNOWN)}") from error


def _described(name: str, meta: Mapping[str, Any]) -> TorchgeoWeights:
    group = name.partition(".")[0]
    if name in _KNOWN:
        return known_weights(name)
    if group not in _NETWORKS:
        raise ConfigError(f"{name} is not of a timm network that is known here; known are {', '.join(_NETWORKS)}.")
    bands = tuple(band_name(band) for band in meta["bands"]) if "bands" in meta else None
    training = f"{meta.get('ssl_method', 'unknown method')} on {meta.get('dataset', 'unknown data')}"
    return TorchgeoWeights(_NETWORKS[group], Facts(bands, training, str(meta.get("publication", "torchgeo"))))


def _local(listed: Any) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / str(listed.url).rpartition("/")[2]
    if not path.exists():
        _download(str(listed.url), path)
    return path


def _download(url: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path))
    except OSError as error:
        raise CheckpointError(f"Cannot download {url}: {error}. Download it elsewhere and name the file.") from error
