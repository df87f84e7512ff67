"""Where pixels come from: folders of GeoTIFF, public layouts, the packed store, the simulated archive."""
