"""The hardware itself: what it really reaches (`calibrate`) and how long networks really take on it (`measure`)."""
