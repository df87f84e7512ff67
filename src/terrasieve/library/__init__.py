"""What `import terrasieve` offers: the main job in a few calls, for a notebook."""
