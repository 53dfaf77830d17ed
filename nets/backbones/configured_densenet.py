"""DenseNet whose maps pass the norms of its transitions, as on their way to the next dense block."""

import timm
from torch import Tensor, nn


class ConfiguredDenseNet(nn.Module):
    """DenseNet of timm that gives the normed maps.

    Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, https://arxiv.org/abs/1608.06993.

    Args:
        name: timm's name.
        bands: bands of an image.
        out_stages: stages whose maps are given, in order: 0 is the stem, then come the four dense blocks;
            deeper ones are not built. The maps have ReLU behind the norm, but for the last block's.

    Attributes:
        channels, strides: per feature map, finest first.
    """

    def __init__(self, name: str, *, bands: int, out_stages: tuple[int, ...] = (0, 1, 2, 3, 4)):
        super().__init__()
        self.name, self.out_stages = name, tuple(out_stages)
        self.body, channels = nn.ModuleDict(), []
        body = timm.create_model(name, pretrained=False, features_only=True, in_chans=bands)
        for key, module in body.named_children():
            norm = module.norm if "transition" in key else module if "norm" in key else None
            last = norm is not None and len(channels) == max(self.out_stages)
            self.body[key] = nn.ModuleDict({"norm": norm}) if last and norm is not module else module
            if norm is not None:
                channels.append(norm.num_features)
            if last:
                break
        if "features_norm5" in self.body:
            self.body["features_norm5"].act = nn.Identity()
        self.channels = [channels[i] for i in self.out_stages]
        self.strides = [2 << i for i in self.out_stages]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to feature maps (B, C_i, h_i, w_i), finest first."""
        features = []
        for key, module in self.body.items():
            if "transition" in key:
                x = module["norm"](x) if isinstance(module, nn.ModuleDict) else module.norm(x)
                features.append(x)
                if not isinstance(module, nn.ModuleDict):
                    x = module.pool(module.conv(x))
            else:
                x = module(x)
                if "norm" in key:
                    features.append(x)
        return [features[i] for i in self.out_stages]
