"""Inference: whole images, windows, blending, writing of rasters."""
