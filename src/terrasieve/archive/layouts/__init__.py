"""Data sets as they ship, one file each; what they share is in the package above."""
