"""What chapters without a template share."""
