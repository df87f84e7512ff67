"""What to cite, as the method and the data sets that are registered say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from terrasieve.archive.layout import LAYOUTS
from terrasieve.methods.base import METHODS


def citation_section(method: str, layouts: Sequence[str]) -> str:
    """The part of a model's card that says what to cite, as Markdown with BibTeX.

    Args:
        method: Name of the method that trained the model.
        layouts: Names of the layouts of the data that it learnt from.

    Returns:
        Nothing where no paper is known, for example of a method whose plug-in is not installed.
    """
    spec = METHODS.get(method)
    found = [LAYOUTS[layout].data_set for layout in layouts if layout in LAYOUTS]
    parts = [
        _bibtex("The method", spec.citations if spec else ()),
        _bibtex("The data that it learnt from", [one.citation for one in found if one]),
    ]
    return "\n\n".join(["## Citation", *filter(None, parts)]) if any(parts) else ""


def _bibtex(subject: str, entries: Iterable[str]) -> str:
    told = "\n\n".join(dict.fromkeys(filter(None, entries)))
    return f"{subject}:\n\n```bibtex\n{told}\n```" if told else ""
