"""Trained networks for other programs: written, checked, read back."""
