"""Tables in the form of the two papers, filled cell by cell."""
