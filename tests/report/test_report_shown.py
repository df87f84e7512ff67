"""The page shows what was learnt from: samples, their views, and a contact sheet."""

from __future__ import annotations

from pathlib import Path

import made_runs as made
from terrasieve.reporting.page import write_report
from terrasieve.reporting.run import read_runs
from terrasieve.reporting.sections.shown import shown


def test_samples_stand_before_their_views_with_the_bands_that_were_drawn(tmp_path: Path) -> None:
    made.write_views(tmp_path)
    made.write_log(tmp_path, made.log_rows())
    section = shown("k", read_runs([tmp_path])[0])
    assert section.caption.startswith("1 of 1,600 samples")
    (strip,) = section.viewed
    assert [(tile.title, tile.lines) for tile in strip.tiles] == [
        ("s2", ("s2:B04",)),
        ("s1", ("s1:VV",)),
        ("optical", ("s2:B03",)),
        ("radar", ("s1:VH",)),
    ]
    assert [tile.title for tile in section.sheet] == ["tile-0", "tile-0", "tile-1", "tile-1"]
    page = write_report([tmp_path], tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count(made.picture(60)) == 1
    assert "Contact sheet, 4 pictures" in page


def test_a_run_without_pictures_has_no_such_section(tmp_path: Path) -> None:
    made.write_log(tmp_path, made.log_rows())
    assert shown("k", read_runs([tmp_path])[0]) is None
