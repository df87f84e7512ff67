"""The papers behind each method, as BibTeX."""

from __future__ import annotations

from collections.abc import Mapping

_RS_BYOL = """@article{jain2022selfsupervised,
  author  = {Jain, Pallavi and Schoen-Phelan, Bianca and Ross, Robert},
  title   = {Self-Supervised Learning for Invariant Representations From Multi-Spectral and {SAR} Images},
  journal = {IEEE Journal of Selected Topics in Applied Earth Observations and Remote Sensing},
  volume  = {15},
  pages   = {7797--7808},
  year    = {2022},
}"""

_OCEANSAR = """@inproceedings{kerdreux2025efficient,
  author    = {Kerdreux, Thomas and Tuel, Alexandre and Febvre, Quentin and Mouche, Alexis and Chapron, Bertrand},
  title     = {Efficient Self-Supervised Learning for {Earth} Observation via Dynamic Dataset Curation},
  booktitle = {CVPR Workshop MORSE},
  year      = {2025},
  note      = {arXiv:2504.06962},
}"""

_DINO = """@inproceedings{caron2021emerging,
  author    = {Caron, Mathilde and Touvron, Hugo and Misra, Ishan and J{\\'e}gou, Herv{\\'e} and Mairal, Julien and
               Bojanowski, Piotr and Joulin, Armand},
  title     = {Emerging Properties in Self-Supervised Vision Transformers},
  booktitle = {ICCV},
  year      = {2021},
}"""

CITATIONS: Mapping[str, tuple[str, ...]] = {"byol": (_RS_BYOL,), "dino": (_OCEANSAR, _DINO)}
"""By name of the method."""
