"""A page that shows an embedded archive: its vectors, where its samples lie, and what is alike."""
