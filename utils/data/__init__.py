"""Data sets: layouts, rasters, labels, augmentation, statistics."""
