"""Published splits that come as text files with a name a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from terrasieve.errors import ArchiveError


def read_split_lists(folders: Iterable[Path], names: Mapping[str, str]) -> dict[str, str]:
    """Split by the stem of each listed file.

    Args:
        folders: Where the lists are looked for; the first that has one counts.
        names: File name of the list of each split; a list may be absent.

    Raises:
        ArchiveError: A file is in two splits, or a list cannot be read.
    """
    places = list(folders)
    split_of: dict[str, str] = {}
    for split, name in names.items():
        path = next((place / name for place in places if (place / name).is_file()), None)
        for line in _lines(path) if path else ():
            stem = Path(line).stem
            if split_of.setdefault(stem, split) != split:
                raise ArchiveError(f"{path} lists {stem}, which is already in {split_of[stem]}; correct the lists.")
    return split_of


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{path} cannot be read as text: {error}. Fetch the file again, or remove it.") from error


def split_column(stems: Sequence[str], split_of: Mapping[str, str]) -> list[str | None]:
    """The split of each stem, None where it is not listed."""
    return [split_of.get(stem) for stem in stems]
