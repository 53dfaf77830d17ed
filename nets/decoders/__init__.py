"""Decoders that two or more networks share."""
