"""Recipes shipped as YAML: one file per published variant."""
