"""Files of pixels: the only places that open what others wrote."""
