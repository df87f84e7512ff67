"""Data sets as they ship, one file each; what they share is in the package above."""

from terrasieve.archive.layout import Layout
from terrasieve.archive.layouts import bigearthnet, eurosat

LAYOUTS: tuple[Layout, ...] = (bigearthnet.LAYOUT, eurosat.LAYOUT)
"""Every layout that can be opened and recognised."""
