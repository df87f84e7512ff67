"""The main job end to end, and the sample data that it runs on."""
