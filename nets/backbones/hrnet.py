"""HRNet: branches of four resolutions side by side, which exchange their maps again and again.

Paper: Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", TPAMI 2020,
https://arxiv.org/abs/1908.07919, section 3. Tensor names are those of the authors' code, so timm's weights
fit.

Deviations: coarse maps are enlarged to the finer map's own size, so any image size fits; bilinear as in the
paper and the authors' segmentation code (their classification code, and timm, take the nearest neighbour).
"""

from dataclasses import dataclass

from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from nets.errors import UserError
from nets.layers.conv import set_norm_eps
from nets.layers.init import init_weights
from nets.layers.resize import resize


@dataclass(frozen=True)
class HRNetSize:
    """Width of the finest branch, blocks per branch and module, modules of stages 2 to 4."""

    width: int
    first_blocks: int = 4
    blocks: int = 4
    modules: tuple[int, int, int] = (1, 4, 3)


HRNET_SIZES = {
    "hrnet_w18s": HRNetSize(18, first_blocks=2, blocks=2, modules=(1, 3, 2)),
    **{f"hrnet_w{width}": HRNetSize(width) for width in (18, 30, 32, 40, 44, 48, 64)},
}
STEM_WIDTH = 64
STRIDES = [4, 8, 16, 32]


def _conv(
    in_channels: int, out_channels: int, kernel: int = 3, *, stride: int = 1, act: bool = True
) -> nn.Sequential:
    layers = [
        nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if act else nn.Sequential(*layers)


def _path(widths: list[int], source: int, target: int) -> nn.Module:
    """Return what brings branch `source` to the width of `target` and, when finer, to its resolution."""
    if source == target:
        return nn.Identity()
    if source > target:
        return _conv(widths[source], widths[target], 1, act=False)
    halvings = [_conv(widths[source], widths[source], stride=2) for _ in range(target - source - 1)]
    return nn.Sequential(*halvings, _conv(widths[source], widths[target], stride=2, act=False))


class HighResolutionModule(nn.Module):
    """Blocks in each branch, then each of the branches `targets` becomes the sum of all."""

    def __init__(self, widths: list[int], blocks: int, targets: list[int]):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width) for _ in range(blocks))) for width in widths
        )
        self.fuse_layers = nn.ModuleDict(
            {str(i): nn.ModuleList(_path(widths, j, i) for j in range(len(widths))) for i in targets}
        )
        self.act = nn.ReLU()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map one (B, C_i, h_i, w_i) per branch to one per target."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for target, paths in self.fuse_layers.items():
            size = maps[int(target)].shape[-2:]
            fused.append(self.act(sum(resize(path(x), size) for path, x in zip(paths, maps, strict=True))))
        return fused


class HRNet(nn.Module):
    """HRNet without a classification head.

    Args:
        name: key of `HRNET_SIZES`.
        bands: bands of an image.
        stages: number of feature maps, counted from the coarsest.
        highest: give the finest map alone (HRNetV1); the exchange that nobody would use is left out.
        norm_eps: epsilon of the batch norms.

    Attributes:
        channels, strides: per feature map, finest first (strides 4, 8, 16, 32).

    Raises:
        UserError: more maps than there are.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        stages: int | None = None,
        highest: bool = False,
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        if not 1 <= (stages or 4) <= 4:
            raise UserError(
                f"backbone {name} has 4 feature maps, {stages} are asked for; use another backbone"
            )
        size = HRNET_SIZES[name]
        widths = [size.width * 2**i for i in range(4)]
        targets = [0] if highest else list(range(4))[-(stages or 4) :]
        self.name = name
        self.channels, self.strides = [widths[i] for i in targets], [STRIDES[i] for i in targets]
        self.conv1 = nn.Conv2d(bands, STEM_WIDTH, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_WIDTH)
        self.conv2 = nn.Conv2d(STEM_WIDTH, STEM_WIDTH, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(STEM_WIDTH)
        self.act = nn.ReLU(inplace=True)
        deep = STEM_WIDTH * Bottleneck.expansion
        shortcut = _conv(STEM_WIDTH, deep, 1, act=False)
        self.layer1 = nn.Sequential(
            Bottleneck(STEM_WIDTH, STEM_WIDTH, downsample=shortcut),
            *(Bottleneck(deep, STEM_WIDTH) for _ in range(size.first_blocks - 1)),
        )
        self.transition1 = nn.ModuleList(
            [_conv(deep, widths[0]), nn.Sequential(_conv(deep, widths[1], stride=2))]
        )
        self.transition2 = self._new_branch(widths, 2)
        self.transition3 = self._new_branch(widths, 3)
        self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(
                *(
                    HighResolutionModule(
                        widths[:branches],
                        size.blocks,
                        targets if branches == 4 and k == modules - 1 else list(range(branches)),
                    )
                    for k in range(modules)
                )
            )
            for branches, modules in zip((2, 3, 4), size.modules, strict=True)
        )
        init_weights(self)
        set_norm_eps(self, norm_eps)

    @staticmethod
    def _new_branch(widths: list[int], i: int) -> nn.ModuleList:
        """Return the transition that keeps all branches and adds one of half the coarsest resolution."""
        added = nn.Sequential(_conv(widths[i - 1], widths[i], stride=2))
        return nn.ModuleList([*(nn.Identity() for _ in range(i)), added])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to the maps (B, D_i, h_i, w_i), finest first."""
        x = self.act(self.bn1(self.conv1(x)))  # (B, 64, H / 2, W / 2)
        x = self.layer1(self.act(self.bn2(self.conv2(x))))  # (B, 256, H / 4, W / 4)
        maps = self.stage2([layer(x) for layer in self.transition1])
        maps = self.stage3([*maps, self.transition2[-1](maps[-1])])
        return self.stage4([*maps, self.transition3[-1](maps[-1])])
