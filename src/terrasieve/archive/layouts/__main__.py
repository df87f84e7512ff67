"""Print the table of data sets for ``docs/datasets/README.md``: ``python -m terrasieve.archive.layouts``."""

from terrasieve.archive.layout import data_set_table

print(data_set_table())
