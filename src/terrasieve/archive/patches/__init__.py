"""Data sets of ready-cut patches: what layouts share in listing and reading them."""
