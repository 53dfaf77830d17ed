"""OpenMMLab's FCNHead on HRNet: family hrnet."""

from nets.backbones.hrnet import HRNET_SIZES, HRNetSize
from nets.errors import UserError
from nets.importers.mmseg_config import last_head, norm_eps, take, type_of
from nets.importers.mmseg_heads import aux_options, aux_rules, fcn_head, fcn_rules
from nets.importers.placing import Rules

HEADS = ("FCNHead",)
BACKBONES = ("HRNet",)
BLOCKS = ("BOTTLENECK", "BASIC", "BASIC", "BASIC")


def hrnet_width(backbone: dict) -> str:
    """Return the size of ours ("w18s", "w48", ...) that an OpenMMLab HRNet's configuration describes.

    Raises:
        UserError: none does.
    """
    extra = take(backbone, {"extra": {}, "multiscale_output": True})["extra"]
    stages = [extra.get(f"stage{i}", {}) for i in range(1, 5)]
    described = [
        (
            str(stage.get("block")),
            stage.get("num_modules"),
            tuple(stage.get("num_blocks", ())),
            tuple(stage.get("num_channels", ())),
        )
        for stage in stages
    ]
    for name, size in HRNET_SIZES.items():
        if described == _describe(size):
            return name.removeprefix("hrnet_")
    raise UserError(
        f"{type_of(backbone)} of the checkpoint has stages {described}, which no HRNet here has; "
        f"there are: {', '.join(HRNET_SIZES)}"
    )


def hrnet_rules() -> Rules:
    """Return the rename rules of an HRNet backbone: its tensors have the authors' names here too."""
    return [(r"backbone\.", "backbone.")]


def _describe(size: HRNetSize) -> list[tuple]:
    """Return block, modules, blocks and widths per stage, as OpenMMLab states them."""
    widths = tuple(size.width * 2**i for i in range(4))
    stages = [(BLOCKS[0], 1, (size.first_blocks,), (64,))]
    for i, modules in enumerate(size.modules, start=2):
        stages.append((BLOCKS[i - 1], modules, (size.blocks,) * i, widths[:i]))
    return stages


def translate(model: dict, keys: list[str]) -> tuple[str, dict, Rules]:
    """Return family, builder options and rename rules of a configuration's model."""
    backbone = model["backbone"]
    width = hrnet_width(backbone)
    head = fcn_head(last_head(model))
    index = head.pop("index")
    if index not in ((0,), (0, 1, 2, 3)):
        raise UserError(f"FCNHead uses the maps {index} of HRNet; the first or all four are needed")
    rules = [*fcn_rules("decode_head", "decoder", "classifier"), *aux_rules(model)]
    if index == (0,):
        # The last exchange towards coarser maps, which nobody uses.
        last = HRNET_SIZES[f"hrnet_{width}"].modules[-1] - 1
        rules.append((rf"backbone\.stage4\.{last}\.fuse_layers\.[123]\.", None))
    options = {
        "backbone": width,
        "version": "v1" if index == (0,) else "v2",
        **head,
        "backbone_norm_eps": norm_eps(backbone),
        "aux_heads": aux_options(model),
    }
    return "hrnet", options, [*rules, *hrnet_rules()]
