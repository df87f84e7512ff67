"""Sentinel-1 Wave Mode products: from the files of a `.SAFE` folder to calibrated vignettes on a grid of 50 m."""
