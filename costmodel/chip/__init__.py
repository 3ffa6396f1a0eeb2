"""What a chip makes of a network: loop nests, the traffic behind an on-chip buffer, its bounds, and fusion."""
