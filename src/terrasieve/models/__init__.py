"""Backbones from timm, heads, the teacher, and export."""
