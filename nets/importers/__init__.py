"""Checkpoints of other projects, translated to our names."""
