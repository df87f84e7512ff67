"""How files and objects on a server come to be, where they may, and what an address is."""
