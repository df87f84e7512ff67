"""Folders of scenes: found, matched to each other, and tiled on the fly."""
