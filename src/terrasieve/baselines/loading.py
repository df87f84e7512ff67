"""From a baseline's name to an encoder that can be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import timm
import torch
from torch import Tensor

from terrasieve.baselines import state_dicts as keys
from terrasieve.baselines.baseline import RGB, Baseline, BaselineSpec, Facts, Source, parse_baseline
from terrasieve.baselines.hugging_face import CONFIG, WEIGHTS, build_resnet, find_weights, read_config, timm_network
from terrasieve.baselines.timm_files import load_timm_file, published_weights
from terrasieve.baselines.torchgeo_networks import NETWORKS, load_network
from terrasieve.baselines.torchgeo_weights import known_weights, listed_file, listed_weights
from terrasieve.baselines.weights import fill, find_entry, naming, read_weights
from terrasieve.errors import CheckpointError, ConfigError
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.layers import spare_padding

BYOL_IMAGENET = Facts(
    RGB, "BYOL on ImageNet (ILSVRC 2012)", "Grill et al. 2020, arXiv 2006.07733; github.com/yaox12/BYOL-PyTorch"
)
SECO = Facts(
    RGB,
    "SeCo on Sentinel-2 patches of several seasons",
    "Mañas et al. 2021, arXiv 2103.16607; zenodo.org/record/4728033",
)
COCO_OUTPUT_STRIDE = 8
"""Pixels of the image to one of the last feature map (Chen et al. 2017, arXiv 1706.05587, section 4.1)."""

COCO = Facts(
    RGB,
    "supervised segmentation, MS-COCO images with the classes of Pascal VOC",
    "Chen et al. 2017, arXiv 1706.05587; weights of torchvision",
    "BSD-3-Clause",
)
OCEANSAR = Facts(
    ("VV",),
    "DINO with dynamic curation on Sentinel-1 Wave Mode, about 12 M vignettes",
    "Kerdreux et al. 2025, arXiv 2504.06962; huggingface.co/galeio-research/OceanSAR-1",
    "Apache-2.0",
)


def load_baseline(spec: BaselineSpec | str) -> Baseline:
    """Load a baseline, on the CPU and in eval mode.

    Args:
        spec: The baseline's specification, or its text form (:func:`terrasieve.baselines.baseline.parse_baseline`).
            Only ``imagenet`` and ``torchgeo`` without a file, and ``hub`` with a repository, use the network.

    Raises:
        ConfigError: There is no such baseline, its name or file is missing, or torchgeo is not installed.
        CheckpointError: The file cannot be downloaded or read, or is not what the baseline's name says.
    """
    if isinstance(spec, str):
        spec = parse_baseline(spec)
    baseline = _LOADERS[spec.source](spec)
    baseline.encoder.eval()
    return baseline


def _imagenet(spec: BaselineSpec) -> Baseline:
    found = published_weights(spec.need_name())
    path = spec.file
    if path is None and found.repository is None:
        raise CheckpointError(f"timm publishes no weights of {found.name}; name a file: imagenet:{found.name}:<file>.")
    path = path or _fetch(str(found.repository), WEIGHTS[0], f"imagenet:{found.name}:<file>")
    loaded = load_timm_file(found.network, path, None)
    # A file of one's own may hold other weights than those that timm states a licence of.
    licence = found.licence if spec.file is None else None
    facts = Facts(RGB, found.training, found.citation, licence, found.scaling)
    return Baseline(f"imagenet {found.name}", loaded.encoder, facts, loaded.sha256, loaded.notes)


def _fetch(repository: str, file: str, instead: str) -> Path:
    # A dependency of timm, and slow to import.
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"Cannot download {file} of huggingface.co/{repository}: {error} "
            f"Download it elsewhere and name it: {instead}."
        ) from error


def _timm(spec: BaselineSpec) -> Baseline:
    path = spec.need_file()
    loaded = load_timm_file(spec.need_name(), path, spec.entry)
    facts = Facts(None, "unknown: a local state dict", str(path))
    return Baseline(f"timm {spec.name} {path.stem}", loaded.encoder, facts, loaded.sha256, loaded.notes)


def _torchgeo(spec: BaselineSpec) -> Baseline:
    name = spec.need_name()
    if name in NETWORKS:
        made = load_network(name, spec.file or listed_file(name), spec.bands)
        return Baseline(f"torchgeo {name}", made.encoder, made.facts, made.sha256, made.notes)
    if spec.bands is not None:
        raise ConfigError(f"Which bands {name} takes is fixed: leave out @{spec.bands}.")
    if spec.file is None:
        (network, facts), path = listed_weights(name)
    else:
        (network, facts), path = known_weights(name), spec.file
    loaded = load_timm_file(network, path, None)
    _check_bands(path, loaded.encoder, facts)
    return Baseline(f"torchgeo {name}", loaded.encoder, facts, loaded.sha256, loaded.notes)


def _check_bands(path: Path, encoder: Encoder, facts: Facts) -> None:
    if facts.bands is not None and len(facts.bands) != encoder.channels:
        raise CheckpointError(
            f"{path} takes {encoder.channels} channel(s), but weights of that name take {len(facts.bands)} "
            f"({', '.join(facts.bands)}). Name the weights that the file holds."
        )


def _byol_tensors(content: Any) -> tuple[dict[str, Tensor], str]:
    # The entry tells the file that the authors published from one that their present code writes.
    if isinstance(content, Mapping) and "online_backbone" in content:
        found = find_entry(content, "online_backbone")
        return keys.byol_imagenet_legacy_keys(found.tensors), "online network, from the entry 'online_backbone'"
    found = find_entry(content, "model")
    return keys.byol_imagenet_keys(found.tensors), "online network, from the entry 'model'"


def _seco_tensors(content: Any) -> tuple[dict[str, Tensor], str]:
    return keys.seco_keys(find_entry(content, "state_dict").tensors), "query encoder, from the entry 'state_dict'"


def _resnet(
    spec: BaselineSpec, name: str, facts: Facts, tensors_of: Callable[[Any], tuple[dict[str, Tensor], str]]
) -> Baseline:
    """A plain ResNet for three channels, whose depth the file decides."""
    path = spec.need_file()
    file = read_weights(path)
    with naming(path):
        tensors, note = tensors_of(file.content)
        network = keys.resnet_of(tensors)
        encoder = build_encoder(BackboneSpec(name=network, channels=3), seed=0)
        fill(encoder.model, tensors, network)
    return Baseline(f"{name} {network}", encoder, facts, file.sha256, (note,))


def _coco_deeplabv3(spec: BaselineSpec) -> Baseline:
    path = spec.need_file()
    file = read_weights(path)
    with _generator_untouched(), naming(path):
        # Its last two stages are dilated instead of strided.
        model = timm.create_model("resnet50", num_classes=0, output_stride=COCO_OUTPUT_STRIDE)
        spare_padding(model)
        features: Any = model.head_hidden_size  # an int, but nn.Module types its attributes as tensors and modules
        encoder = Encoder(model, 3, features)
        fill(encoder.model, keys.deeplabv3_backbone_keys(find_entry(file.content, None).tensors), "a ResNet-50")
    note = "backbone only, dilated to an output stride of 8 as it was trained; both classifiers left out"
    return Baseline("coco-deeplabv3 resnet50", encoder, COCO, file.sha256, (note,))


def _oceansar(spec: BaselineSpec) -> Baseline:
    baseline = _hugging_face_resnet(spec.need_file(), "oceansar-1", OCEANSAR)
    _check_bands(spec.need_file(), baseline.encoder, OCEANSAR)
    return baseline


def _hub(spec: BaselineSpec) -> Baseline:
    name = spec.need_name()
    if Path(name).is_dir():
        folder, tag, citation = Path(name), None, name
    else:
        _fetch(name, WEIGHTS[0], "hub:<folder>")
        folder = _fetch(name, CONFIG, "hub:<folder>").parent
        # Who else publishes a timm network need not have trained it on photographs.
        tag, citation = name.removeprefix("timm/") if name.startswith("timm/") else None, f"huggingface.co/{name}"
    network, facts = timm_network(folder), Facts(None, "unknown: a model of others", citation)
    if tag is not None:
        found = published_weights(tag)
        facts = Facts(RGB, found.training, found.citation, found.licence, found.scaling)
    if network is None:
        return _hugging_face_resnet(folder, f"hub {name}", facts)
    loaded = load_timm_file(network, find_weights(folder), None)
    return Baseline(f"hub {name}", loaded.encoder, facts, loaded.sha256, loaded.notes)


def _hugging_face_resnet(folder: Path, name: str, facts: Facts) -> Baseline:
    config, path = read_config(folder), find_weights(folder)
    file = read_weights(path)
    with _generator_untouched(), naming(path):
        model = build_resnet(config)
        fill(model, keys.hugging_face_resnet_keys(find_entry(file.content, None).tensors), "the network of config.json")
    spare_padding(model)
    encoder = Encoder(model, config.num_channels, config.hidden_sizes[-1])
    return Baseline(name, encoder, facts, file.sha256, ("pooled features; a classifier is left out",))


def _random(spec: BaselineSpec) -> Baseline:
    name = spec.need_name()
    encoder = build_encoder(BackboneSpec(name=name, channels=spec.channels), spec.seed)
    facts = Facts(None, f"not at all; seed {spec.seed}", f"timm {timm.__version__}")
    return Baseline(f"random init {name}", encoder, facts)


_LOADERS: Mapping[Source, Callable[[BaselineSpec], Baseline]] = {
    "imagenet": _imagenet,
    "byol-imagenet": partial(_resnet, name="byol-imagenet", facts=BYOL_IMAGENET, tensors_of=_byol_tensors),
    "seco": partial(_resnet, name="seco", facts=SECO, tensors_of=_seco_tensors),
    "torchgeo": _torchgeo,
    "coco-deeplabv3": _coco_deeplabv3,
    "oceansar-1": _oceansar,
    "timm": _timm,
    "hub": _hub,
    "random": _random,
}


def _generator_untouched() -> AbstractContextManager[None]:
    # timm draws initial weights, which are all replaced, from torch's global generator.
    return torch.random.fork_rng(devices=[])
