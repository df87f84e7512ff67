"""Work in parts: planned once, claimed part by part by any number of machines, then merged."""
