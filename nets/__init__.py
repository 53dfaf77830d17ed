"""Networks: nothing here knows of data sets, image files, optimisers or command-line flags."""

from nets.registry import create_model, list_models

__all__ = ["create_model", "list_models"]
