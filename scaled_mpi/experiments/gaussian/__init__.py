"""Large Gaussian fields from the exact denoisers of tiles."""
