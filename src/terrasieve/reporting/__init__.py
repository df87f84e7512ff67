"""One self-contained page about one run or several, and the model card."""
