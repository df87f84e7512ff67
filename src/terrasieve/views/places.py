"""Temporal partners: other acquisitions of a sample's place, as further samples of the archive.

Another season of a place is a view of it that no augmentation makes (Mañas et al. 2021, arXiv 2103.16607). An archive
says which of its samples show one place by equal entries in the column ``location`` of its table.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.protocol import Archive, source_place
from terrasieve.errors import ArchiveError
from terrasieve.views.recipe import Time


class Places:
    """Which samples show one place.

    Args:
        samples: Archive indices ``(n,)`` of the samples that may be shown, each once.
        locations: Of each the place that it shows, shape ``(n,)``; samples of one place have equal ones.
    """

    def __init__(self, samples: NDArray[np.int64], locations: NDArray[np.generic]) -> None:
        _, places, counts = np.unique(locations, return_inverse=True, return_counts=True)
        order = np.argsort(places, kind="stable")
        # The samples of each place, one after the other; of each sample the first of its place, and how many there are.
        self._members = samples[order]
        self._rows = np.full(int(samples.max()) + 1, -1, dtype=np.int64)
        self._rows[self._members] = np.arange(len(samples))
        self._first = np.repeat(np.cumsum(counts) - counts, counts)
        self._counts = np.repeat(counts, counts)

    @classmethod
    def of(cls, archive: Archive, samples: NDArray[np.int64]) -> Self:
        """The places of an archive, by the column ``location`` of its table.

        Args:
            archive: The archive whose samples are shown; a sample whose location is null is a place of its own.
            samples: Archive indices ``(n,)`` of the samples that may be shown, each once.

        Raises:
            ArchiveError: The table has no such column, or no two of the samples have an entry in common.
        """
        table, where = archive.table(), source_place(archive.source)
        if "location" not in table.column_names:
            raise ArchiveError(
                f"{where} does not say which samples show one place at another time: its table has no column "
                "'location', by which views with a time find their partners. Add it to a plain table, or set "
                "views.branches.*.time=null."
            )
        encoded = table["location"].combine_chunks().dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
        numbers = np.where(codes < 0, len(encoded.dictionary) + np.arange(len(codes)), codes)
        places = cls(samples, numbers[samples])
        if places._counts.max() < 2:
            raise ArchiveError(
                f"{where} has no place with two of the {len(samples)} samples, so that no view can show another time "
                "of one. Train on more samples, or set views.branches.*.time=null."
            )
        return places

    def choose(self, indices: NDArray[np.int64], time: Time, draws: NDArray[np.float64]) -> NDArray[np.int64]:
        """Another acquisition of each sample's place, each as likely.

        Args:
            indices: Archive indices ``(n,)``, which are among the samples.
            time: ``any`` chooses among all acquisitions of the place, ``other`` among all but the sample itself; a
                sample that is the only one of its place is chosen in either case.
            draws: Which of them, ``(n,)``, from 0 up to but not including 1.

        Returns:
            Archive indices ``(n,)``.
        """
        rows = self._rows[indices]
        first, counts = self._first[rows], self._counts[rows]
        if time == "any":
            places = (draws * counts).astype(np.int64)
        else:
            # On from the sample itself, around the place's end: never all the way, but where there is no other.
            places = (rows - first + 1 + (draws * (counts - 1)).astype(np.int64)) % counts
        chosen: NDArray[np.int64] = self._members[first + places]
        return chosen
