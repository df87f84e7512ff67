"""CROMA, DOFA and Panopticon: small ones of torchgeo's own classes, whose files have the true keys.

What is compared is float32 on the CPU; networks, and the files that they are read from, differ in nothing but size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import pytest
import timm
import torch
from torch import Tensor, nn

from terrasieve.baselines.baseline import Baseline, parse_baseline
from terrasieve.baselines.loading import load_baseline
from terrasieve.baselines.starting import start_from
from terrasieve.baselines.torchgeo_networks import NETWORKS, named_bands
from terrasieve.embeddings.stream import inference_copies
from terrasieve.errors import BandError, CheckpointError, ConfigError
from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.models.export import EncoderCard
from terrasieve.sensors import SENSORS

models: Any = pytest.importorskip("torchgeo.models", reason="torchgeo, whose classes these are, is not installed")

CROMA = "CROMABase_Weights.CROMA_VIT"
DOFA = "DOFABase16_Weights.DOFA_MAE"
PANOPTICON = "Panopticon_Weights.VIT_BASE14"


class Published:
    """What torchgeo's functions take for weights: they load them as they load the published files."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def get_state_dict(self, progress: bool) -> Any:
        return self.content


def shaken(model: nn.Module) -> nn.Module:
    """Every parameter its own, so that none can be left as it was or exchanged unseen."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchgeo's functions make networks of a few layers and features."""
    croma, dofa = models.croma.CROMA, models.dofa.DOFA
    few = {"encoder_dim": 32, "encoder_depth": 2, "image_size": 16}
    monkeypatch.setattr(models.croma, "CROMA", lambda **own: croma(**own | few))
    narrow = {"embed_dim": 32, "depth": 2, "num_heads": 2}
    monkeypatch.setattr(models.dofa, "DOFA", lambda **own: dofa(**own | narrow))
    # Its transformer of 768 features is timm's; one layer of twelve, and narrower attention over channels.
    one_layer = SimpleNamespace(create_model=partial(timm.create_model, depth=1))
    monkeypatch.setattr(models.panopticon, "timm", one_layer)
    monkeypatch.setattr(models, "panopticon_vitb14", partial(models.panopticon_vitb14, attn_dim=96))


def pixels(channels: int, size: int) -> Tensor:
    return torch.randn((2, channels, size, size), generator=torch.Generator().manual_seed(1))


def features(baseline: Baseline, shown: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = baseline.encoder(shown)
    assert found.shape == (len(shown), baseline.encoder.features)
    return found


@pytest.fixture
def croma_file(small: None, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A dictionary of state dicts of both sensors and their joint encoder, as it is published."""
    model = shaken(models.croma_base())
    parts = ("s1_encoder", "s1_GAP_FFN", "s2_encoder", "s2_GAP_FFN", "joint_encoder")
    content = {part: dict(getattr(model, part).state_dict()) for part in parts}
    torch.save(content, tmp_path / "croma.pt")
    return tmp_path / "croma.pt", content


@pytest.mark.parametrize(
    ("bands", "modality", "names"), [("", "optical", SENSORS["s2-l2a"].names), ("@s1", "sar", ("VV", "VH"))]
)
def test_croma_is_torchgeos_on_pixels_that_are_scaled_as_its_authors_did(
    croma_file: tuple[Path, dict[str, Any]], bands: str, modality: str, names: tuple[str, ...]
) -> None:
    path, content = croma_file
    baseline = load_baseline(f"torchgeo:{CROMA}{bands}:{path}")
    theirs = models.croma_base(weights=Published(content), modalities=[modality]).eval()
    standardised = pixels(len(names), 16)
    # Standardised, the mean is 0 and two standard deviations about it are -2 and 2.
    scaled = ((standardised - -2) / (2 - -2)).clip(0, 1)
    with torch.no_grad():
        expected = theirs(**{f"x_{modality}": scaled})[f"{modality}_GAP"]
    torch.testing.assert_close(features(baseline, standardised), expected, rtol=0, atol=1e-6)
    assert baseline.bands == names
    assert "0 to 1" in baseline.describe()


def test_croma_takes_its_own_bands_alone(croma_file: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(BandError, match=r"and no other bands \(B04, B03, B02\)"):
        load_baseline(f"torchgeo:{CROMA}@B04,B03,B02:{croma_file[0]}")


@pytest.fixture
def dofa_file(small: None, tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A state dict without the last normalisation and the classifier, as it is published."""
    tensors = shaken(models.dofa_base_patch16_224()).state_dict()
    content = {key: tensor for key, tensor in tensors.items() if not key.startswith(("fc_norm.", "head."))}
    torch.save(content, tmp_path / "dofa.pth")
    return tmp_path / "dofa.pth", content


@pytest.mark.parametrize(
    ("bands", "wavelengths"),
    [("B04,B03,B8A", [0.665, 0.56, 0.865]), ("s1", [5.405, 5.405]), ("rgb", [0.665, 0.56, 0.49])],
)
def test_dofa_is_torchgeos_for_the_wavelengths_of_the_bands(
    dofa_file: tuple[Path, dict[str, Tensor]], bands: str, wavelengths: list[float]
) -> None:
    path, content = dofa_file
    baseline = load_baseline(f"torchgeo:{DOFA}@{bands}:{path}")
    theirs = models.dofa_base_patch16_224(weights=Published(content)).eval()
    shown = pixels(len(wavelengths), 224)
    with torch.no_grad():
        expected = theirs.forward_features(shown, wavelengths)
    torch.testing.assert_close(features(baseline, shown), expected, rtol=0, atol=1e-6)
    assert "last normalisation" in baseline.describe()


def test_other_sizes_are_resized_to_that_of_the_training(dofa_file: tuple[Path, dict[str, Tensor]]) -> None:
    baseline = load_baseline(f"torchgeo:{DOFA}@s1:{dofa_file[0]}")
    smooth = torch.linspace(-1, 1, 32).expand(2, 2, 32, 32)
    at_size = nn.functional.interpolate(smooth, size=(224, 224), mode="bilinear", antialias=True)
    assert torch.equal(features(baseline, smooth), features(baseline, at_size))
    assert "pixels are resized to 224x224" in baseline.describe()


@pytest.fixture
def panopticon_file(small: None, tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """The state dict of the inner network, with the positions of 518 px and a mask token, as it is published."""
    content = dict(shaken(models.panopticon_vitb14(img_size=518)).model.state_dict())
    content["mask_token"] = torch.ones(1, 768)
    torch.save(content, tmp_path / "panopticon.pth")
    return tmp_path / "panopticon.pth", content


@pytest.mark.parametrize(("bands", "channels"), [("B02,B12,B08", [490.0, 2190.0, 833.0]), ("VH,VV", [-2.0, -1.0])])
def test_panopticon_is_torchgeos_for_the_channels_of_the_bands(
    panopticon_file: tuple[Path, dict[str, Tensor]], bands: str, channels: list[float]
) -> None:
    path, content = panopticon_file
    baseline = load_baseline(f"torchgeo:{PANOPTICON}@{bands}:{path}")
    theirs = models.panopticon_vitb14(weights=Published(dict(content))).eval()
    shown = pixels(len(channels), 224)
    with torch.no_grad():
        expected = theirs({"imgs": shown, "chn_ids": torch.tensor(channels).repeat(2, 1)})
    torch.testing.assert_close(features(baseline, shown), expected, rtol=0, atol=1e-5)
    # What it is shown is left as it is: a second time gives the same.
    assert torch.equal(features(baseline, shown), features(baseline, shown))
    assert "37x37 patches interpolated to 16x16" in baseline.describe()


def in_bfloat16(baseline: Baseline, shown: Tensor) -> Tensor:
    """Features as a probe computes them where bfloat16 is fast."""
    (frozen,) = inference_copies([baseline.encoder], "bf16")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found: Tensor = frozen(shown)
    return found.float()


def test_bfloat16_rounds_what_is_computed_and_no_wavelength(
    croma_file: tuple[Path, Any], dofa_file: tuple[Path, Any], panopticon_file: tuple[Path, Any]
) -> None:
    for text, shown in (
        (f"{CROMA}:{croma_file[0]}", pixels(12, 16)),
        (f"{DOFA}@B12,B8A:{dofa_file[0]}", pixels(2, 224)),
        (f"{PANOPTICON}@B12,VV:{panopticon_file[0]}", pixels(2, 224)),
    ):
        baseline = load_baseline(f"torchgeo:{text}")
        exact = features(baseline, shown)
        # A significand of 8 bits: about 0.4 % an operation.
        assert (in_bfloat16(baseline, shown) - exact).norm() < 0.02 * exact.norm()


# --------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", [DOFA, PANOPTICON])
def test_which_bands_has_to_be_said(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"takes any bands: say which, for example torchgeo:{name}@s2-l2a"):
        load_baseline(f"torchgeo:{name}:/nowhere.pth")


@pytest.mark.parametrize(
    ("text", "said"),
    [("B4x", "No wavelength or polarisation is known of 'B4x'"), ("B04,B04", "named twice"), ("", "is known of ''")],
)
def test_bands_that_mean_nothing_are_refused(text: str, said: str) -> None:
    with pytest.raises(BandError, match=said):
        named_bands(text)


def test_bands_of_a_network_that_has_its_own_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Which bands ResNet18_Weights\.SENTINEL2_ALL_MOCO takes is fixed"):
        load_baseline("torchgeo:ResNet18_Weights.SENTINEL2_ALL_MOCO@s1:x.pth")


@pytest.mark.parametrize("change", [lambda d: d.pop("cls_token"), lambda d: d.update(decoder=torch.ones(1))])
def test_a_key_more_or_less_is_an_error(
    dofa_file: tuple[Path, dict[str, Tensor]], change: Callable[[dict[str, Tensor]], Any]
) -> None:
    path, content = dofa_file
    change(content)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"dofa\.pth: The weights are not those of torchgeo's dofa_base"):
        load_baseline(f"torchgeo:{DOFA}@s1:{path}")


def test_without_torchgeo_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchgeo.models", None)
    with pytest.raises(ConfigError, match=r"torchgeo is not installed, .* Install torchgeo\."):
        load_baseline(f"torchgeo:{DOFA}@s1:{tmp_path / 'dofa.pth'}")


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_torchgeo_lists_the_weights_and_makes_the_network(name: str) -> None:
    assert str(models.get_weight(name).url).startswith("https://")
    assert callable(getattr(models, NETWORKS[name][1]))


@pytest.mark.parametrize(("name", "package"), [("terramind", "terratorch"), ("olmoearth", "olmoearth_pretrain")])
def test_what_no_library_has_a_class_of_is_said(name: str, package: str) -> None:
    with pytest.raises(ConfigError, match=f"is a class of {package} and of none of timm, torchgeo and transformers"):
        parse_baseline(f"{name}:weights.pt")


def test_a_run_does_not_start_from_it(dofa_file: tuple[Path, dict[str, Tensor]]) -> None:
    spec = BackboneSpec(name="test_resnet", channels=2)
    card = EncoderCard(
        backbone=spec, method="byol", recipe="r", image_size=32, sensors={}, view_bands=(), statistics={}
    )
    with pytest.raises(ConfigError, match="is no network of timm's"):
        start_from(build_encoder(spec, 0), f"torchgeo:{DOFA}@s1:{dofa_file[0]}", card)
