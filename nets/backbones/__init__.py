"""Backbones: image to list of feature maps, finest first."""
