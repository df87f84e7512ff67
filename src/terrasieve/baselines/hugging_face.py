"""A Hugging Face folder as the timm network that computes the same, without transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import timm
from pydantic import BaseModel, Field, ValidationError
from torch import nn

from terrasieve.errors import CheckpointError

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class ResNetConfig(BaseModel):
    """The settings of transformers' ``ResNetConfig`` that decide what is computed, with its defaults.

    Attributes:
        model_type: Name of the architecture, which tells a ResNet's settings from those of other networks.
        num_channels: Number of bands that the network takes.
        embedding_size: Channels of the stem; timm's ResNet has 64.
        hidden_sizes: Channels that each of the four stages gives.
        depths: Number of blocks in each of the four stages.
        layer_type: Kind of block: ``basic`` as in ResNet-18 and 34, ``bottleneck`` as in ResNet-50.
        hidden_act: Activation; timm's ResNet has ReLU.
        downsample_in_first_stage: Whether the first stage halves the resolution; not in timm.
        downsample_in_bottleneck: Whether the first instead of the second convolution of a block does; not in timm.
    """

    model_type: Literal["resnet"]
    num_channels: int = Field(default=3, ge=1)
    embedding_size: Literal[64] = 64
    hidden_sizes: tuple[int, int, int, int] = (256, 512, 1024, 2048)
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    layer_type: Literal["basic", "bottleneck"] = "bottleneck"
    hidden_act: Literal["relu"] = "relu"
    downsample_in_first_stage: Literal[False] = False
    downsample_in_bottleneck: Literal[False] = False


class TimmConfig(BaseModel):
    """The settings of a repository of timm's that decide what is computed.

    Attributes:
        architecture: Name of the timm architecture; null in repositories of other libraries.
    """

    architecture: str | None = None


def read_config(folder: Path) -> ResNetConfig:
    """The ``config.json`` of a folder.

    Args:
        folder: Folder with the files of one model, as they lie in its repository.

    Raises:
        CheckpointError: There is none, or it describes a network that timm's ResNet cannot reproduce.
    """
    path = folder / CONFIG
    try:
        return ResNetConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise _no_config(path, error) from error
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CheckpointError(
            f"{path} describes a network that timm's ResNet cannot reproduce ({reasons}). "
            "Only ResNets without these settings can be loaded."
        ) from error


def timm_network(folder: Path) -> str | None:
    """Name of the timm architecture that the ``config.json`` of a folder states; None where it is of another library.

    Args:
        folder: Folder with the files of one model, as they lie in its repository.

    Raises:
        CheckpointError: There is no ``config.json``, or it is not JSON.
    """
    path = folder / CONFIG
    try:
        stated = TimmConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise _no_config(path, error) from error
    except ValidationError as error:
        raise CheckpointError(f"{path} is not the description of a model: {error}. Download it again.") from error
    return stated.architecture


def find_weights(folder: Path) -> Path:
    """The weights of a folder; safetensors are preferred.

    Args:
        folder: Folder with the files of one model, as they lie in its repository.

    Raises:
        CheckpointError: There are none.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} holds neither {' nor '.join(WEIGHTS)}. Download the weights beside {CONFIG}.")


def build_resnet(config: ResNetConfig) -> nn.Module:
    """The timm ResNet that computes what the configuration says; its weights are still to be filled in.

    Raises:
        CheckpointError: A bottleneck's width is not a multiple of four.
    """
    # transformers state the channels that a stage gives, timm those within its blocks, which bottlenecks multiply.
    expansion = 4 if config.layer_type == "bottleneck" else 1
    if any(size % expansion for size in config.hidden_sizes):
        raise CheckpointError(
            f"hidden_sizes {config.hidden_sizes} of bottlenecks are not multiples of 4; check {CONFIG}."
        )
    model: nn.Module = timm.create_model(
        "resnet50" if config.layer_type == "bottleneck" else "resnet18",
        in_chans=config.num_channels,
        num_classes=0,
        layers=config.depths,
        channels=tuple(size // expansion for size in config.hidden_sizes),
    )
    return model


def _no_config(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"Cannot read {path}: {error}. Name the folder that holds {CONFIG} and {WEIGHTS[0]} of one model."
    )
