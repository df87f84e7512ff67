"""Products as agencies deliver them: recognised by their look, read with what their own metadata states."""
