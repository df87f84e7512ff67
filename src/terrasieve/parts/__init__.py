"""Work in parts: planned once, claimed part by part from a shared folder by any number of machines, then merged."""
