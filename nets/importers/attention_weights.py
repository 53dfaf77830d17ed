"""The matrices of `torch.nn.MultiheadAttention` as ours."""

from torch import Tensor


def split_projections(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with each "in_proj_" tensor as "query.", "key." and "value."."""
    split = {}
    for key, value in state_dict.items():
        before, found, kind = key.rpartition("in_proj_")
        if found:
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                split[f"{before}{name}.{kind}"] = part
        else:
            split[key] = value
    return split
