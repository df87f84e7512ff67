"""Data sets as they ship, one file each; what they share is in the package above."""

from terrasieve.archive.layout import Layout
from terrasieve.archive.layouts import (
    bigearthnet,
    dfc2020,
    eurosat,
    major_tom,
    plain_table,
    resisc45,
    sen12ms,
    so2sat,
    ssl4eo_s12,
    ssl4eo_s12_v11,
    stac,
    tengeop_sarwv,
    terramesh_sites,
    uc_merced,
    wave_mode,
)

LAYOUTS: tuple[Layout, ...] = (
    bigearthnet.LAYOUT,
    dfc2020.LAYOUT,
    eurosat.LAYOUT,
    major_tom.LAYOUT,
    plain_table.LAYOUT,
    resisc45.LAYOUT,
    sen12ms.LAYOUT,
    so2sat.LAYOUT,
    ssl4eo_s12.LAYOUT,
    ssl4eo_s12_v11.LAYOUT,
    stac.LAYOUT,
    tengeop_sarwv.LAYOUT,
    terramesh_sites.LAYOUT,
    uc_merced.LAYOUT,
    wave_mode.LAYOUT,
)
"""Every layout that can be opened and recognised."""
