"""Programs that make, convert and check data sets."""
