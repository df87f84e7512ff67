"""Recipes: YAML files that terrasieve lists beside its own."""
