"""The model card: front matter that a hub can read, a snippet that runs, and nothing that no file says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import made_runs as made
from terrasieve.errors import ArchiveError, ConfigError
from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.models.export import save_encoder
from terrasieve.probes.row_tables import write_json
from terrasieve.reporting.card import write_card
from terrasieve.runs import Provenance


def front_of(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("---\n")
    front: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return front


def test_front_matter_holds_licence_library_and_results(whole_run: Path) -> None:
    path = write_card(whole_run)
    assert path == whole_run / "encoder" / "README.md"
    front = front_of(path)
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "timm"
    assert front["pipeline_tag"] == "image-feature-extraction"
    assert front["datasets"] == ["eurosat"]
    assert {"byol", "optical", "earth-observation"} <= set(front["tags"])
    results = front["model-index"][0]["results"]
    row = made.comparison_rows()[1]
    assert results[0]["dataset"] == {
        "type": "eurosat",
        "name": "eurosat, label",
        "config": "s2:B04+B03+B02",
        "split": "test",
    }
    assert results[0]["metrics"][0] == {
        "type": "accuracy",
        "name": "accuracy",
        "value": round(row.metrics["accuracy"], 6),
        "args": {"ci95": [round(bound, 6) for bound in row.ci95["accuracy"]]},
        "verified": False,
    }
    # Floors are there to be beaten, they are no results of this model.
    assert len(results) == 2
    assert [metric["type"] for metric in results[1]["metrics"]] == ["rmse", "bias", "scatter_index"]


def test_the_body_says_what_the_files_say(whole_run: Path) -> None:
    text = write_card(whole_run).read_text(encoding="utf-8")
    row = made.comparison_rows()[0]
    assert f"{100 * row.metrics['accuracy']:.1f}" in text
    assert "- kNN v1: cosine similarity, k = 20" in text
    assert "| s2:B04 | reflectance" in text
    assert "| 1234.5 | 321.25 |" in text
    assert "- Samples: 16,000" in text
    assert "- Simulated: no" in text
    assert "eurosat eurosat\\_rgb" in text
    assert "/somewhere" not in text.split("## Evaluation")[0]
    assert "ab" * 32 in text
    assert "Pallavi" in text
    assert "Caron" not in text


def test_dino_cites_its_own_papers(tmp_path: Path) -> None:
    made.write_encoder(tmp_path, made.encoder_card().model_copy(update={"method": "dino"}))
    text = write_card(tmp_path).read_text(encoding="utf-8")
    assert "Kerdreux" in text
    assert "Caron" in text
    assert "Pallavi" not in text


def test_the_teachers_memory_and_the_differences_from_the_source_are_told(tmp_path: Path) -> None:
    config = {"differs": ["The paper *rotates* views; here they turn.", "The paper blurs."]}
    card = made.encoder_card(config=config).model_copy(update={"teacher_memory": 0.0123})
    made.write_encoder(tmp_path, card)
    text = write_card(tmp_path).read_text(encoding="utf-8")
    assert "The teacher held 1.2\u00a0% of its initial weights at the end." in text
    assert "- The paper \\*rotates\\* views; here they turn.\n- The paper blurs." in text


def test_what_no_file_says_is_not_said(tmp_path: Path) -> None:
    card = made.encoder_card().model_copy(update={"provenance": Provenance(), "weights_sha256": None, "method": "own"})
    made.write_encoder(tmp_path, card)
    path = write_card(tmp_path, tmp_path / "CARD.md", license="mit")
    front, text = front_of(path), path.read_text(encoding="utf-8")
    assert front["license"] == "mit"
    assert not {"datasets", "model-index"} & set(front)
    assert "Not evaluated" in text
    assert "Source: not recorded" in text
    assert "Simulated" not in text
    assert "Citation" not in text


def test_a_packed_archive_is_traced_to_its_source(tmp_path: Path) -> None:
    source = {"layout": "packed", "root": "/a/b.zarr", "packed_from": {"layout": "eurosat", "root": "/a/eurosat"}}
    made.write_encoder(tmp_path, made.encoder_card(data=source))
    path = write_card(tmp_path)
    assert front_of(path)["datasets"] == ["eurosat"]
    assert "Source: packed b.zarr, made from eurosat eurosat" in path.read_text(encoding="utf-8")


def test_simulated_data_are_named_and_no_dataset_is_claimed(tmp_path: Path) -> None:
    made.write_encoder(tmp_path, made.encoder_card(data={"layout": "simulated", "simulated": True}))
    path = write_card(tmp_path)
    assert "datasets" not in front_of(path)
    assert "- Simulated: yes, SIMULATED data" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "spec",
    [BackboneSpec(name="resnet18"), BackboneSpec(name="test_vit", image_size=32, patch_size=8, registers=4)],
    ids=["resnet", "vit"],
)
def test_the_snippet_loads_the_weights(spec: BackboneSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_encoder(spec, seed=3).eval()
    save_encoder(tmp_path / "encoder", encoder, made.encoder_card().model_copy(update={"backbone": spec}))
    text = write_card(tmp_path).read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path / "encoder")
    pixels = torch.randn(2, 1, 32, 32)
    names: dict[str, Any] = {"pixels": pixels}
    exec(code[1], names)
    with torch.no_grad():
        assert torch.allclose(names["features"], encoder(pixels), atol=1e-6)


def test_hostile_text_does_not_become_markup(tmp_path: Path) -> None:
    hostile = "<img src=x>|`a`\n# big"
    card = made.encoder_card().model_copy(update={"recipe": hostile})
    made.write_encoder(tmp_path, card)
    write_json(made.comparison_rows(data=hostile, protocol=hostile), tmp_path / "probe.json")
    body = write_card(tmp_path).read_text(encoding="utf-8").split("---\n", 2)[2]
    assert not re.search(r"(?<!\\)<img", body)
    assert not re.search(r"^# big", body, re.MULTILINE)
    assert front_of(tmp_path / "encoder" / "README.md")["model-index"][0]["name"] == hostile


def test_without_an_encoder_there_is_no_card(tmp_path: Path) -> None:
    write_json(made.comparison_rows(), tmp_path / "probe.json")
    with pytest.raises(ArchiveError, match=r"encoder/encoder\.json"):
        write_card(tmp_path)


def test_a_licence_is_an_identifier(whole_run: Path) -> None:
    with pytest.raises(ConfigError, match="apache-2"):
        write_card(whole_run, license="My own\nlicense: x")
