"""Any timm network as a backbone (https://github.com/huggingface/pytorch-image-models, Apache-2.0)."""

import timm
import torch.nn.functional as F
from timm.layers import PatchEmbed
from torch import Tensor, nn

from nets.backbones.swin import pad_before_shift
from nets.errors import UserError


class TimmBackbone(nn.Module):
    """The last `stages` feature maps of a timm network.

    Args:
        name: timm's own name.
        bands: bands of an image.
        stages: number of feature maps, counted from the deepest; None is all the network has.
        output_stride: stride of the deepest map, in pixels; below the network's own it is dilated.
        drop_path: rate of stochastic depth, 0 for networks that have none.

    Attributes:
        channels, strides: per feature map, finest first.

    Raises:
        UserError: the network cannot give feature maps or cannot be dilated.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        stages: int | None = None,
        output_stride: int | None = None,
        drop_path: float = 0.0,
    ):
        super().__init__()
        extra = _size_arguments(name)
        if output_stride is not None and output_stride != 32:
            extra["output_stride"] = output_stride
        if stages is not None:
            extra["out_indices"] = tuple(range(-stages, 0))
        if drop_path:
            extra["drop_path_rate"] = drop_path
        try:
            self.body = timm.create_model(
                name,
                pretrained=False,
                features_only=True,
                in_chans=bands,
                **extra,
            )
        except (NotImplementedError, AssertionError) as error:
            raise UserError(
                f"backbone {name} cannot be dilated to output stride {output_stride}; leave output_stride out"
            ) from error
        except (TypeError, RuntimeError, IndexError) as error:
            raise UserError(
                f"backbone {name} cannot give {stages} feature maps ({error}); choose another"
            ) from error
        pad_before_shift(self.body)
        self.name = name
        self.channels = list(self.body.feature_info.channels())
        self.strides = list(self.body.feature_info.reduction())
        embed = next((m for m in self.body.modules() if isinstance(m, PatchEmbed)), None)
        self.patch = embed.patch_size[0] if embed is not None else 1
        self.channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to feature maps (B, C_i, h_i, w_i), finest first."""
        # Patch embeddings refuse other sizes; the added rows and columns are the band means.
        x = F.pad(x, (0, -x.shape[-1] % self.patch, 0, -x.shape[-2] % self.patch)) if self.patch > 1 else x
        features = self.body(x)
        if self.channels_last:
            return [feature.permute(0, 3, 1, 2).contiguous() for feature in features]
        return features


def _size_arguments(name: str) -> dict:
    """Return what a family of timm needs in order to accept images of any size."""
    if name.startswith("swin"):
        # Without always_partition a small build size silently loses the shift and the window.
        return {"strict_img_size": False, "always_partition": True}
    if name.startswith(("vit_", "deit", "beit", "eva")):
        return {"dynamic_img_size": True}
    return {}
