"""The reader of HDF5 patches by its short name, for programs that import it from here."""

from terrasieve.archive.readers.hdf5 import Hdf5Reader, values_of

__all__ = ["Hdf5Reader", "values_of"]
