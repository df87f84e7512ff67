"""Self-supervised methods: views in, loss out."""
