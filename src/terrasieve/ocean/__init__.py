"""The sea surface and how a C-band radar sees it: wind to backscatter, waves, velocity bunching; arrays in and out."""
