"""EoMT: a plain Vision Transformer is itself a segmentation network; queries go with the patches.

Paper: Kerssies et al., "Your ViT is Secretly an Image Segmentation Model", CVPR 2025,
https://arxiv.org/abs/2503.19108; the masks in the attention: Cheng et al., "Masked-attention Mask Transformer
for Universal Image Segmentation", CVPR 2022, https://arxiv.org/abs/2112.01527

The queries join the patches before the last blocks. While it learns, each query looks only at the patches
inside the mask that it has found so far; block by block this is taken away until, at the end of the training,
no masks are left, so that none are computed before the last one.

Deviations: semantic segmentation only. A validation sees the network as it will be used, without masks in the
attention (the authors' validation has those that are left). All parameters warm up at once (the
authors' transformer later than the rest). DINOv3's positions are not scaled at random in training. Images are
padded to whole patches on the right and below, and DINOv2's position embedding is resized to them.
"""

import torch
from torch import Tensor, nn

from nets.backbones.timm_backbone import pad_to_multiple
from nets.backbones.tokens import Sizes, TokenChain, find_transformer
from nets.errors import UserError, check_sides
from nets.layers.attention import mask_mlp
from nets.layers.margins import crop, share
from nets.layers.norm import ChannelNorm
from nets.layers.resize import resize
from nets.registry import register_model
from nets.segmentation_model import MaskNetwork

# Blocks that the queries go through, by the part of timm's name that says the size (the authors' configs).
BLOCKS = {"vit_small": 3, "vit_base": 3, "vit_large": 4, "vit_giant": 5}
USUAL_BLOCKS = 4
# Exponent with which a block's masks are taken away.
POWER = 0.9
NORM_EPS = 1e-6


class Enlargement(nn.Sequential):
    """Transposed convolution to twice the size, GELU, depthwise convolution, layer norm."""

    def __init__(self, channels: int):
        super().__init__(
            nn.ConvTranspose2d(channels, channels, 2, stride=2),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            ChannelNorm(channels, eps=NORM_EPS),
        )


class QueryHead(nn.Module):
    """The queries, and what makes of them and of the patches' map classes and masks.

    Args:
        channels: width.
        num_classes: number of classes; one more stands for no object.
        queries: number of queries.
        doublings: how often the patches' map is enlarged by 2.
    """

    def __init__(self, channels: int, num_classes: int, *, queries: int, doublings: int):
        super().__init__()
        self.query_features = nn.Parameter(torch.randn(queries, channels))
        self.classifier = nn.Linear(channels, num_classes + 1)
        self.mask_embedding = mask_mlp(channels, channels, nn.GELU)
        self.enlarge = nn.Sequential(*(Enlargement(channels) for _ in range(doublings)))

    def forward(self, queries: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Map queries (B, Q, D) and patches (B, D, h, w) to (B, Q, K + 1) and masks (B, Q, h', w')."""
        weights = self.mask_embedding(queries)
        return self.classifier(queries), torch.einsum("bqd,bdhw->bqhw", weights, self.enlarge(patches))


class EoMT(MaskNetwork):
    """A chain of tokens, and the queries that join it before its last blocks.

    Args:
        backbone: the chain.
        head: the queries and their predictions.
        blocks: blocks that the queries go through.
        masked_blocks: last blocks with masks in the attention after the training too.
        bands: bands of an image.
        num_classes: number of classes.

    Attributes:
        mask_chances: of each of these blocks, how likely a query is held inside its mask in training.
    """

    def __init__(
        self,
        backbone: TokenChain,
        head: QueryHead,
        *,
        blocks: int,
        masked_blocks: int,
        bands: int,
        num_classes: int,
    ):
        super().__init__(bands, num_classes)
        self.backbone, self.query_decoder = backbone, head
        self.masked_blocks = masked_blocks
        self.register_buffer("mask_chances", torch.ones(blocks))
        queries = len(head.query_features)
        for block in backbone.blocks[-blocks:]:
            if hasattr(block.attn, "num_prefix_tokens"):
                block.attn.num_prefix_tokens += queries  # these have no place, so they are not rotated

    def at_progress(self, share: float) -> None:
        """Take the masks away block by block: block i of n from (i + 1) / (n + 2) of the training on."""
        parts = len(self.mask_chances) + 2
        for i in range(len(self.mask_chances)):
            left = min(max(i + 2 - share * parts, 0.0), 1.0)
            self.mask_chances[i] = left**POWER

    def find(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Map normalised (B, C, H, W) to lists of class logits and of mask logits, the last block's last.

        In training there is one of each before every block that the queries go through.
        """
        size, patch = x.shape[-2:], self.backbone.strides[0]
        tokens, rotation, grid = self.backbone.embed(pad_to_multiple(x, patch))
        count, found = len(self.mask_chances), []
        for block in self.backbone.blocks[:-count]:
            tokens = self.backbone.run(block, tokens, rotation)
        queries = self.query_decoder.query_features.expand(x.shape[0], -1, -1)
        tokens = torch.cat([queries.to(tokens.dtype), tokens], dim=1)  # (B, Q + N, D)
        for i, block in enumerate(self.backbone.blocks[-count:]):
            allowed = None
            if self.training or i >= count - self.masked_blocks:
                found.append(self.predict(tokens, grid))
                allowed = self.look_inside(found[-1][1], grid, tokens.shape[1], self.mask_chances[i])
            tokens = self.backbone.run(block, tokens, rotation, allowed)
        found.append(self.predict(tokens, grid))
        stride = patch // 2 ** len(self.query_decoder.enlarge)
        own = tuple(share(side, stride) for side in size)  # without what covers the padding alone
        return [classes for classes, _ in found], [crop(masks, own) for _, masks in found]

    def predict(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Map tokens (B, Q + N, D) to class logits (B, Q, K + 1) and mask logits (B, Q, h, w)."""
        tokens, queries = self.backbone.body.norm(tokens), len(self.query_decoder.query_features)
        patches = tokens[:, queries + self.backbone.prefix :].transpose(1, 2).unflatten(2, grid)
        return self.query_decoder(tokens[:, :queries], patches)

    @torch.no_grad()
    def look_inside(self, masks: Tensor, grid: tuple[int, int], count: int, chance: Tensor) -> Tensor:
        """Map mask logits (B, Q, h, w) to which of `count` tokens may look at which (B, 1, count, count)."""
        inside = resize(masks, grid).flatten(2) > 0  # (B, Q, patches)
        if self.training:
            inside = inside | (torch.rand(inside.shape[:2], device=inside.device) > chance)[..., None]
        b, queries, patches = inside.shape
        others = inside.new_ones(b, queries, count - patches)
        rest = inside.new_ones(b, count - queries, count)
        return torch.cat([torch.cat([others, inside], dim=2), rest], dim=1)[:, None]


@register_model
def eomt(
    *,
    bands: int,
    num_classes: int,
    backbone: Sizes | str = "dinov2_large",
    queries: int = 100,
    blocks: int | None = None,
    masked_blocks: int = 0,
    patch: int = 16,
    image_size: tuple[int, ...] = (512, 512),
    doublings: int | None = None,
    drop_path: float = 0.0,
    norm_eps: float | None = None,
    backbone_options: dict | None = None,
) -> EoMT:
    """EoMT on a DINOv2 with registers or a DINOv3.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: dinov2_small/base/large/giant, dinov3_small/base/large, or timm's name of another such.
        queries: number of queries.
        blocks: last blocks that the queries go through; None is 3 of small and base, 4 of large, 5 of giant.
        masked_blocks: last blocks that keep the masks in the attention after the training; the paper's have
            none.
        patch: side of a patch in pixels.
        image_size: height and width in pixels the position embedding is made for; it is resized to others.
        doublings: how often the patches' map is enlarged by 2; None is to a stride of 4 to 7 pixels.
        drop_path: rate of stochastic depth.
        norm_eps: epsilon of the transformer's layer norms; None is timm's.
        backbone_options: further arguments of timm's constructor.

    Raises:
        UserError: another backbone, or more blocks than it has.
    """
    check_sides("eomt", "image_size", image_size)
    name = find_transformer(backbone)
    chain = TokenChain(
        name,
        bands=bands,
        image_size=image_size,
        patch=patch,
        drop_path=drop_path,
        norm_eps=norm_eps,
        arguments=backbone_options,
    )
    if blocks is None:
        usual = next((n for start, n in BLOCKS.items() if name.startswith(start)), USUAL_BLOCKS)
        blocks = min(usual, len(chain.blocks))
    if not 1 <= blocks <= len(chain.blocks) or not 0 <= masked_blocks <= blocks:
        raise UserError(
            f"eomt: blocks={blocks}, masked_blocks={masked_blocks} is given; {backbone} has "
            f"{len(chain.blocks)} blocks: 1 to that many, and at most as many of them with masks"
        )
    if doublings is None:
        doublings = max(1, patch.bit_length() - 3)
    head = QueryHead(chain.channels[0], num_classes, queries=queries, doublings=doublings)
    return EoMT(chain, head, blocks=blocks, masked_blocks=masked_blocks, bands=bands, num_classes=num_classes)


# The authors' configs/dinov2/ade20k/semantic: 31 epochs of 16 images. They warm the queries up for 500
# iterations, and then the transformer for 1000.
DINOV2 = {
    "optimizer": "adamw",
    "lr": 1e-4,
    "weight_decay": 0.05,
    "layer_decay": 0.8,
    "layer_count": 23,
    "clip_grad": 0.01,
    "scheduler": "poly",
    "poly_power": 0.9,
    "min_lr": 0.0,
    "warmup_iters": 1500,
    "warmup_factor": 1e-6,
    "batch_size": 16,
    "loss": "mask",
}
DINOV3 = {"lr": 2e-4, "backbone_lr_factor": 0.1, "layer_decay": 1.0, "warmup_iters": 5000}
# The last block has the whole rate, the stem one step less than theirs.
COUNTS = {"dinov2_small": 11, "dinov2_base": 11, "dinov2_giant": 39}
RECIPE = {
    "plain": {
        "optimizer": "adamw",
        "lr": 1e-4,
        "weight_decay": 0.05,
        "layer_decay": 0.8,
        "warmup_fraction": 0.1,
        "clip_grad": 0.1,
        "loss": "mask",
    },
    "paper": DINOV2,
    "paper_where": [
        *(({"backbone": name}, {"layer_count": count}) for name, count in COUNTS.items()),
        *(({"backbone": f"dinov3_{size}"}, DINOV3) for size in ("small", "base", "large")),
    ],
}
