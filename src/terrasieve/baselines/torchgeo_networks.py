"""CROMA, DOFA and Panopticon: networks of torchgeo's own classes, from the files that torchgeo lists.

They are no timm networks, so torchgeo has to be installed. What its classes take besides pixels (which sensor, or the
wavelength of each channel) is decided once, by the bands that a baseline is loaded for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from terrasieve.baselines.baseline import KNOWN_BANDS, RGB, Facts
from terrasieve.baselines.torchgeo_weights import torchgeo_models
from terrasieve.baselines.weights import fill, find_entry, naming, read_weights
from terrasieve.errors import BandError, ConfigError, nearest
from terrasieve.models.backbone import Encoder
from terrasieve.sensors import SENSORS

_CROMA_BANDS: Mapping[str, tuple[str, ...]] = {"optical": SENSORS["s2-l2a"].names, "sar": SENSORS["s1"].names}
"""By torchgeo's word for the sensor, the channels in order (github.com/antofuller/CROMA): Sentinel-2 without B10."""

_RADAR_WAVELENGTH = 5.405
"""What DOFA was trained to take for Sentinel-1's wavelength (github.com/zhu-xlab/DOFA, its demonstration)."""
_POLARISATIONS = {"VV": -1, "VH": -2, "HH": -3, "HV": -4}
"""Panopticon's numbers of radar channels where nobody says whether the orbit ascends or descends."""
_PANOPTICON_GRID = 37
"""Patches along a side of the 518 px that the positions in Panopticon's file are laid out for."""


class LoadedNetwork(NamedTuple):
    """A network with the weights of a file.

    Attributes:
        encoder: The encoder, on the CPU.
        facts: Bands, training, source.
        sha256: Hash of the file's bytes, in hexadecimal.
        notes: What was left out or added, a line each.
    """

    encoder: Encoder
    facts: Facts
    sha256: str
    notes: tuple[str, ...]


class _Made(NamedTuple):
    """A network that is still to be filled, what a file fills it with, and how it is then shown pixels."""

    network: Any
    features: int
    tensors: dict[str, Tensor]
    notes: tuple[str, ...]
    show: Callable[[Any], _Shown]


# ------------------------------------------------------------------- networks


class _Shown(nn.Module):
    """A network of torchgeo's that takes nothing but pixels; other sizes are resized to that of its training.

    Args:
        network: The network, which is not copied.
        size: Height and width in pixels that it was trained on.
    """

    def __init__(self, network: Any, size: int) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, pixels: Tensor) -> Tensor:
        """Features ``(n, features)`` of standardised pixels ``(n, channels, height, width)``."""
        size = (self.size, self.size)
        if pixels.shape[-2:] != size:
            pixels = functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)
        return self.features(pixels)

    def features(self, pixels: Tensor) -> Tensor:
        """The same of pixels that have its size."""
        raise NotImplementedError


class Croma(_Shown):
    """One of CROMA's two encoders, with the pooling of its training.

    Its pixels were cut at two standard deviations from the mean of their band and laid from 0 to 1.
    """

    def __init__(self, network: Any, modality: str) -> None:
        super().__init__(network, network.image_size)
        self.modality = modality

    def features(self, pixels: Tensor) -> Tensor:
        """The pooled features of the sensor."""
        scaled = ((pixels + 2) / 4).clamp(0, 1)
        pooled: Tensor = self.network(**{f"x_{self.modality}": scaled})[f"{self.modality}_GAP"]
        return pooled


class _FixedPatches(nn.Module):
    """DOFA's first layer with the kernels that it generates for some wavelengths, which are the same for every image.

    They are sines of wavelengths in nanometres, passed through a transformer. In half precision three digits of a
    wavelength would be left, so they are computed here, once, in float32.

    Args:
        embedding: torchgeo's ``DOFAEmbedding`` with its weights.
        positions: torchgeo's function from wavelengths to sines.
        wavelengths: Of the bands in order, in micrometres.
    """

    def __init__(self, embedding: Any, positions: Any, wavelengths: Sequence[float]) -> None:
        super().__init__()
        side, width = embedding.kernel_size, embedding.embed_dim
        with torch.no_grad():
            sines = positions(embedding.dynamic_embed_dim, torch.tensor(wavelengths) * 1000)
            kernels, bias = embedding.weight_generator(embedding.fclayer(sines))
            self.convolution = nn.Conv2d(len(wavelengths), width, side, stride=side, padding=1)
            kernels = kernels.view(len(wavelengths), side, side, width).permute(3, 0, 1, 2)
            self.convolution.weight.copy_(kernels * embedding.scaler)
            self.convolution.bias.copy_(bias.view(width) * embedding.scaler)  # type: ignore[union-attr]  # has one

    def forward(self, pixels: Tensor, wavelengths: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``(n, patches, features)``; the wavelengths are those that it was made for."""
        return self.convolution(pixels).flatten(2).transpose(1, 2), wavelengths


class Dofa(_Shown):
    """DOFA whose first layer is made for some bands."""

    def __init__(self, network: Any, patches: _FixedPatches) -> None:
        super().__init__(network, network.img_size)
        network.patch_embed = patches

    def features(self, pixels: Tensor) -> Tensor:
        """The mean of its patch tokens, normalised."""
        pooled: Tensor = self.network.forward_features(pixels, [])
        return pooled


class Panopticon(_Shown):
    """Panopticon for some channels: wavelengths in nanometres, negative numbers of polarisations."""

    channels: Tensor

    def __init__(self, network: Any, channels: Sequence[float]) -> None:
        super().__init__(network, network.model.patch_embed.img_size[0])
        self.register_buffer("channels", torch.tensor(channels, dtype=torch.float32), persistent=False)

    def features(self, pixels: Tensor) -> Tensor:
        """Its class token."""
        # A copy: the network rounds them in place.
        channels = self.channels.repeat(len(pixels), 1)
        token: Tensor = self.network({"imgs": pixels, "chn_ids": channels})
        return token


# -------------------------------------------------------------------- loading


def _croma(models: Any, factory: str, content: Any, bands: tuple[str, ...]) -> _Made:
    modality = next((name for name, own in _CROMA_BANDS.items() if own == bands), None)
    if modality is None:
        takes = " or ".join(", ".join(own) for own in _CROMA_BANDS.values())
        raise BandError(f"CROMA takes {takes}, and no other bands ({', '.join(bands)}); write @s2-l2a or @s1.")
    network = getattr(models, factory)(modalities=[modality])
    parts = ("s2_encoder", "s2_GAP_FFN") if modality == "optical" else ("s1_encoder", "s1_GAP_FFN")
    # A bias by distance, which is computed and is in no file.
    tensors = {"attn_bias": network.attn_bias}
    for part in parts:
        tensors |= {f"{part}.{key}": tensor for key, tensor in find_entry(content, part).tensors.items()}
    note = f"{' and '.join(parts)} of the file; the other sensor's and the joint encoder are left out"
    return _Made(network, network.encoder_dim, tensors, (note,), lambda filled: Croma(filled, modality))


def _dofa(models: Any, factory: str, content: Any, bands: tuple[str, ...]) -> _Made:
    wavelengths = [_RADAR_WAVELENGTH if name in _POLARISATIONS else _wavelength(name) for name in bands]
    network = getattr(models, factory)(num_classes=0)
    found = find_entry(content, None).tensors
    notes = ["pooled features; a classifier is left out"] if any(key.startswith("head.") for key in found) else []
    tensors = {key: tensor for key, tensor in found.items() if not key.startswith("head.")}
    norm = {key: value for key, value in network.state_dict().items() if key.startswith("fc_norm.")}
    if not set(norm) & set(tensors):
        # As torchgeo has it: the file ends before the last normalisation, which pre-training did not have.
        tensors |= norm
        notes.append("the last normalisation is not in the file and scales by 1")

    def show(filled: Any) -> Dofa:
        return Dofa(filled, _FixedPatches(filled.patch_embed, models.dofa.position_embedding, wavelengths))

    return _Made(network, network.embed_dim, tensors, tuple(notes), show)


def _panopticon(models: Any, factory: str, content: Any, bands: tuple[str, ...]) -> _Made:
    channels = [_POLARISATIONS[name] if name in _POLARISATIONS else 1000 * _wavelength(name) for name in bands]
    network = getattr(models, factory)()
    found = find_entry(content, None).tensors
    tensors = {f"model.{key}": tensor for key, tensor in found.items() if key != "mask_token"}
    positions, grid = tensors.get("model.pos_embed"), network.model.patch_embed.grid_size[0]
    notes: tuple[str, ...] = ()
    if positions is not None and positions.shape[1] == 1 + _PANOPTICON_GRID**2:
        resize = models.panopticon.resize_abs_pos_embed
        tensors["model.pos_embed"] = resize(positions, grid, _PANOPTICON_GRID)
        notes = (f"positions of {_PANOPTICON_GRID}x{_PANOPTICON_GRID} patches interpolated to {grid}x{grid}",)
    return _Made(network, network.model.num_features, tensors, notes, lambda filled: Panopticon(filled, channels))


def _wavelength(name: str) -> float:
    found = KNOWN_BANDS[name].wavelength_um
    if found is None:
        # Cameras do not say theirs: red, green and blue are those of Sentinel-2.
        alike = (band for band in SENSORS["s2-l1c"].bands if band.common_name == KNOWN_BANDS[name].common_name)
        found = next(alike).wavelength_um
    assert found is not None, "every band of Sentinel-2 has a wavelength"
    return found


class _Family(NamedTuple):
    """What networks of one kind have in common; a licence where torchgeo's page of the file states one."""

    make: Callable[[Any, str, Any, tuple[str, ...]], _Made]
    training: str
    citation: str
    scaling: str
    licence: str | None = None
    usual: str | None = None


_CROMA = _Family(
    _croma,
    "CROMA on SSL4EO-S12",
    "Fuller et al. 2023, CROMA, arXiv 2311.00566",
    "two standard deviations about the mean of each band laid from 0 to 1 and cut there; done to standardised pixels",
    licence="MIT",
    usual="s2-l2a",
)
_DOFA = _Family(
    _dofa,
    "DOFA (MAE) on SatlasPretrain, Five-Billion-Pixels and HySpecNet-11k",
    "Xiong et al. 2024, DOFA, arXiv 2403.15356",
    "mean 0 and standard deviation 1 for each band of a sensor, as pixels are standardised here",
    licence="CC-BY-4.0",
)
_PANOPTICON = _Family(
    _panopticon,
    "Panopticon (DINOv2 with spectral progressive pre-training) on several sensors",
    "Waldmann et al. 2025, Panopticon, arXiv 2503.10845",
    "mean 0 and standard deviation 1 for each band of a sensor, as pixels are standardised here",
)

NETWORKS: Mapping[str, tuple[_Family, str]] = {
    "CROMABase_Weights.CROMA_VIT": (_CROMA, "croma_base"),
    "CROMALarge_Weights.CROMA_VIT": (_CROMA, "croma_large"),
    "DOFABase16_Weights.DOFA_MAE": (_DOFA, "dofa_base_patch16_224"),
    "DOFALarge16_Weights.DOFA_MAE": (_DOFA, "dofa_large_patch16_224"),
    "Panopticon_Weights.VIT_BASE14": (_PANOPTICON, "panopticon_vitb14"),
}
"""By torchgeo's name of the weights, what is known of them, and torchgeo's function that makes the network."""


def load_network(name: str, path: Path, bands: str | None) -> LoadedNetwork:
    """Load a network for some bands.

    Args:
        name: A key of :data:`NETWORKS`.
        path: The file that torchgeo lists under that name.
        bands: What it is to be shown, as :func:`named_bands` reads it; None where the network takes only one set.

    Raises:
        ConfigError: torchgeo is not installed, or nothing says which bands.
        BandError: The network cannot be shown these bands.
        CheckpointError: The file cannot be read, or holds other weights.
    """
    family, factory = NETWORKS[name]
    wanted = bands or family.usual
    if wanted is None:
        raise ConfigError(f"{name} takes any bands: say which, for example torchgeo:{name}@s2-l2a or @B04,B03,B02.")
    names = named_bands(wanted)
    models = torchgeo_models(name, "")
    file = read_weights(path)
    with torch.random.fork_rng(devices=[]), naming(path):
        # Initial weights, which are all replaced, come from torch's global generator.
        made = family.make(models, factory, file.content, names)
        fill(made.network, made.tensors, f"torchgeo's {factory}")
        # DOFA's generator of kernels would drop out values in training.
        shown = made.show(made.network.eval())
    facts = Facts(names, family.training, family.citation, family.licence, family.scaling)
    size = f"pixels are resized to {shown.size}x{shown.size}"
    encoder = Encoder(shown, len(names), made.features)
    return LoadedNetwork(encoder, facts, file.sha256, (*made.notes, size))


def named_bands(text: str) -> tuple[str, ...]:
    """The bands that a text means, in order.

    Args:
        text: The name of a built-in sensor of Sentinel, ``rgb``, or names of bands with commas between them.

    Raises:
        BandError: A band or sensor is unknown.
    """
    if text == "rgb":
        return RGB
    names = SENSORS[text].names if text in SENSORS else tuple(text.split(","))
    for name in names:
        if name not in KNOWN_BANDS:
            raise BandError(
                f"No wavelength or polarisation is known of {name!r} in {text!r}."
                f"{nearest(name, [*KNOWN_BANDS, 's2-l2a', 's2-l1c', 's1', 'rgb'])} "
                "Name a sensor (s2-l2a, s1), rgb, or bands such as B04,B03,B02."
            )
    if len(set(names)) < len(names):
        raise BandError(f"A band is named twice in {text!r}; name each once.")
    return names
