"""Published accelerators and their numbers beside the chip model's."""
