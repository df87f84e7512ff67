"""STAC: item collections read as archives, and archives written as item collections."""
