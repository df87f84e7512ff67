"""Why an encoder says what it says: maps, neighbours, projections and the bands that carry a class."""
