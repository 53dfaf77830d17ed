"""OpenMMLab's UNet with FCNHead, PSPHead or ASPPHead: family unet, backbone s5_d16."""

from functools import partial

from nets.errors import UserError
from nets.importers.mmseg_config import last_head, norm_eps, take, type_of
from nets.importers.mmseg_heads import (
    aspp_head,
    aspp_rules,
    aux_options,
    aux_rules,
    conv_rules,
    fcn_head,
    fcn_rules,
    pooled_branch_last,
    psp_head,
    psp_rules,
)
from nets.importers.placing import Rules

HEADS = ("FCNHead", "PSPHead", "ASPPHead")
BACKBONES = ("UNet",)

# What our builder takes beside `decoder_options`.
_OUTSIDE = ("dropout", "align_corners", "in_index", "index")


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    options, rules = unet(model["backbone"])
    head = last_head(model)
    kind = type_of(head)
    convert = []
    if kind == "FCNHead":
        own = fcn_head(head)
        decoder, own_rules = "fcn", fcn_rules("decode_head", "decoder", "classifier")
    elif kind == "PSPHead":
        own = psp_head(head)
        decoder, own_rules = "psp", psp_rules("decoder")
    else:
        own = aspp_head(head, {})
        decoder, own_rules = "deeplabv3", aspp_rules("decoder", own["dilations"], separable=False)
        convert = [partial(pooled_branch_last, channels=own["channels"])]
    levels = model["backbone"].get("num_stages", 5)
    index = own["index"] if "index" in own else (own["in_index"],)
    finest_first = tuple(_finest_first(i, levels) for i in index)
    decoder_options = {key: value for key, value in own.items() if key not in _OUTSIDE}
    decoder_options["index"] = finest_first if kind == "FCNHead" else finest_first[0]
    if "pool_scales" in decoder_options:
        decoder_options["scales"] = decoder_options.pop("pool_scales")
    decoder_options["align_corners"] = own["align_corners"]
    aux = tuple(
        {**each, "index": tuple(_finest_first(i, levels) for i in each["index"])}
        for each in aux_options(model)
    )
    builder = {
        "backbone": "s5_d16",
        "decoder": decoder,
        "decoder_options": decoder_options,
        "dropout": own["dropout"],
        "align_corners": own["align_corners"],
        "aux_heads": aux,
        "backbone_options": options,
    }
    return "unet", builder, [*own_rules, *aux_rules(model), *rules], *convert


def _finest_first(index: int, levels: int) -> int:
    """Return our number of a map; OpenMMLab counts from the deepest."""
    return levels - 1 - index if index >= 0 else -1 - index


def unet(backbone: dict) -> tuple[dict, Rules]:
    """Return the arguments of our `UNetBackbone` and the rename rules of the backbone."""
    o = take(
        backbone,
        {
            "base_channels": 64, "num_stages": 5, "strides": (1,) * 5, "enc_num_convs": (2,) * 5,
            "dec_num_convs": (2,) * 4, "downsamples": (True,) * 4, "enc_dilations": (1,) * 5,
            "dec_dilations": (1,) * 4, "upsample_cfg": {"type": "InterpConv"}, "act_cfg": {"type": "ReLU"},
        },
    )  # fmt: skip
    up = dict(o["upsample_cfg"])
    kind = up.pop("type").rsplit(".", 1)[-1]
    scaling = {"scale_factor": 2, "mode": "bilinear", "align_corners": False}
    scaling |= up.pop("upsample_cfg", {})
    usual = {"kernel_size": 4, "scale_factor": 2} if kind == "DeconvModule" else {"kernel_size": 1}
    usual |= {"stride": 1, "padding": 0, "conv_first": False}
    if (
        kind not in ("InterpConv", "DeconvModule")
        or any(usual.get(key) != value for key, value in up.items())
        or (scaling["scale_factor"], scaling["mode"]) != (2, "bilinear")
        or o["act_cfg"].get("type") != "ReLU"
    ):
        raise UserError(
            f"UNet has upsample_cfg={o['upsample_cfg']}, act_cfg={o['act_cfg']}; not available here"
        )
    stages = o["num_stages"]
    options = {
        "base_channels": o["base_channels"],
        "encoder_convs": tuple(o["enc_num_convs"][:stages]),
        "decoder_convs": tuple(o["dec_num_convs"][: stages - 1]),
        "strides": tuple(o["strides"][:stages]),
        "downsamples": tuple(o["downsamples"][: stages - 1]),
        "encoder_dilations": tuple(o["enc_dilations"][:stages]),
        "decoder_dilations": tuple(o["dec_dilations"][: stages - 1]),
        "up": "deconv" if kind == "DeconvModule" else "interpolate",
        "norm": True,
        "align_corners": bool(scaling["align_corners"]),
        "norm_eps": norm_eps(backbone),
    }
    # Behind a max pooling the convolutions are the second item of their stage.
    rules = conv_rules(r"backbone\.encoder\.(\d+)\.[01]\.convs\.(\d+)", r"backbone.encoder.\1.\2")
    rules += conv_rules(r"backbone\.decoder\.(\d+)\.conv_block\.convs\.(\d+)", r"backbone.decoder.\1.\2")
    rules += conv_rules(
        r"backbone\.decoder\.(\d+)\.upsample\.interp_upsample\.\d+", r"backbone.ups.\1.project"
    )
    rules += conv_rules(r"backbone\.decoder\.(\d+)\.upsample", r"backbone.ups.\1.project")
    rules.append((r"backbone\.decoder\.(\d+)\.upsample\.deconv_upsamping\.", r"backbone.ups.\1.enlarge."))
    return options, rules
