"""The backbones of the catalogue as plain data: listing them imports no library and builds no network.

`tests/test_backbones.py` builds every row and holds it against the strides and dilations stated here.
"""

from dataclasses import dataclass, field

PYRAMID = (2, 4, 8, 16, 32)
FROM_FOUR = (4, 8, 16, 32)

PAPERS = {
    "resnet": "He et al., Deep Residual Learning, CVPR 2016, https://arxiv.org/abs/1512.03385",
    "resnext": "Xie et al., Aggregated Residual Transformations, CVPR 2017, https://arxiv.org/abs/1611.05431",
    "se_resnet": "Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, https://arxiv.org/abs/1709.01507",
    "resnest": "Zhang et al., ResNeSt, CVPRW 2022, https://arxiv.org/abs/2004.08955",
    "eca_resnet": "Wang et al., ECA-Net, CVPR 2020, https://arxiv.org/abs/1910.03151",
    "cbam_resnet": "Woo et al., CBAM, ECCV 2018, https://arxiv.org/abs/1807.06521",
    "mobilenet_v1": "Howard et al., MobileNets, 2017, https://arxiv.org/abs/1704.04861",
    "mobilenet_v2": "Sandler et al., MobileNetV2, CVPR 2018, https://arxiv.org/abs/1801.04381",
    "mobilenet_v3": "Howard et al., Searching for MobileNetV3, ICCV 2019, https://arxiv.org/abs/1905.02244",
    "mobilenet_v4": "Qin et al., MobileNetV4, ECCV 2024, https://arxiv.org/abs/2404.10518",
    "inception_v1": "Szegedy et al., Going Deeper with Convolutions, CVPR 2015, https://arxiv.org/abs/1409.4842",
    "inception_v2": "Ioffe, Szegedy, Batch Normalization, ICML 2015, https://arxiv.org/abs/1502.03167",
    "inception_v3": "Szegedy et al., Rethinking Inception, CVPR 2016, https://arxiv.org/abs/1512.00567",
    "inception_v4": "Szegedy et al., Inception-v4, AAAI 2017, https://arxiv.org/abs/1602.07261",
    "densenet": "Huang et al., Densely Connected Networks, CVPR 2017, https://arxiv.org/abs/1608.06993",
    "efficientnet": "Tan, Le, EfficientNet, ICML 2019, https://arxiv.org/abs/1905.11946",
    "shufflenet_v1": "Zhang et al., ShuffleNet, CVPR 2018, https://arxiv.org/abs/1707.01083",
    "shufflenet_v2": "Ma et al., ShuffleNet V2, ECCV 2018, https://arxiv.org/abs/1807.11164",
    "xception": "Chollet, Xception, CVPR 2017, https://arxiv.org/abs/1610.02357, as DeepLab v3+ changes it, "
    "https://arxiv.org/abs/1802.02611",
    "vgg": "Simonyan, Zisserman, Very Deep Networks, ICLR 2015, https://arxiv.org/abs/1409.1556",
    "swin": "Liu et al., Swin Transformer, ICCV 2021, https://arxiv.org/abs/2103.14030",
    "convnext": "Liu et al., A ConvNet for the 2020s, CVPR 2022, https://arxiv.org/abs/2201.03545",
    "poolformer": "Yu et al., MetaFormer Is Actually What You Need, CVPR 2022, "
    "https://arxiv.org/abs/2111.11418",
    "twins": "Chu et al., Twins, NeurIPS 2021, https://arxiv.org/abs/2104.13840",
    "mit": "Xie et al., SegFormer, NeurIPS 2021, https://arxiv.org/abs/2105.15203",
    "mscan": "Guo et al., SegNeXt, NeurIPS 2022, https://arxiv.org/abs/2209.08575",
    "vit": "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, https://arxiv.org/abs/2010.11929",
    "deit": "Touvron et al., Data-efficient Image Transformers, ICML 2021, https://arxiv.org/abs/2012.12877",
    "mae": "He et al., Masked Autoencoders, CVPR 2022, https://arxiv.org/abs/2111.06377",
    "beit": "Bao et al., BEiT, ICLR 2022, https://arxiv.org/abs/2106.08254",
    "hrnet": "Wang et al., Deep High-Resolution Representation Learning, TPAMI 2020, "
    "https://arxiv.org/abs/1908.07919",
}


@dataclass(frozen=True)
class Entry:
    """One backbone.

    Attributes:
        name: the catalogue's spelling.
        family: key of `PAPERS`.
        library: where the network comes from: "timm", "torchvision" or "own".
        network: its name there.
        strides: of the feature maps in pixels, finest first.
        dilates: whether output strides 8 and 16 can be asked for.
        weights: where its ImageNet weights come from ("timm", "torchvision"), None where nobody offers any.
        drop_path: whether it has stochastic depth.
        arguments: further arguments of the library's constructor.
        pretrained_name: network whose weights fit, where that is not `network`.
    """

    name: str
    family: str
    library: str
    network: str
    strides: tuple[int, ...] = PYRAMID
    dilates: bool = False
    weights: str | None = "timm"
    drop_path: bool = False
    arguments: dict = field(default_factory=dict)
    pretrained_name: str = ""

    @property
    def canonical(self) -> str:
        """The name that a blueprint keeps: the library's own where that says everything."""
        return self.network if self.library == "timm" and not self.arguments else self.name


def _timm(
    family: str, names: dict[str, str], *, unweighted: tuple[str, ...] = (), **common: object
) -> list[Entry]:
    """Rows for networks of timm; `unweighted` are those that have no weights there."""
    return [
        Entry(name, family, "timm", network, weights=None if name in unweighted else "timm", **common)
        for name, network in names.items()
    ]


def _own(family: str, names: list[str], weights: str | None = None, **common: object) -> list[Entry]:
    """Rows for networks that are written here."""
    return [Entry(name, family, "own", name, weights=weights, **common) for name in names]


def _residual() -> list[Entry]:
    residual = {"dilates": True, "drop_path": True}
    rows = _timm("resnet", {f"resnet{d}": f"resnet{d}" for d in (18, 34, 50, 101, 152)}, **residual)
    rows += _timm(
        "resnext",
        {
            "resnext50": "resnext50_32x4d",
            "resnext101": "resnext101_32x4d",
            "resnext101_64x4d": "resnext101_64x4d",
        },
        **residual,
    )
    rows += _timm(
        "se_resnet",
        {f"se_resnet{d}": f"seresnet{d}" for d in (18, 34, 50, 101, 152)},
        unweighted=("se_resnet18", "se_resnet34", "se_resnet101", "se_resnet152"),
        **residual,
    )
    resnest = {"resnest50": "resnest50d", "resnest101": "resnest101e", "resnest200": "resnest200e"}
    rows += _timm("resnest", resnest, **residual)
    for attention in ("eca", "cbam"):
        names = {f"{attention}_resnet{d}": f"resnet{d}" for d in (18, 34, 50, 101, 152)}
        rows += _timm(
            f"{attention}_resnet",
            names,
            unweighted=tuple(names),
            arguments={"block_args": {"attn_layer": attention}},
            **residual,
        )
    return rows


def _convolutional() -> list[Entry]:
    dilated = {"dilates": True, "drop_path": True}
    rows = [
        *_timm("mobilenet_v1", {"mobilenet_v1": "mobilenetv1_100"}, **dilated),
        *_timm("mobilenet_v2", {"mobilenet_v2": "mobilenetv2_100"}, **dilated),
        *_timm(
            "mobilenet_v3",
            {"mobilenet_v3": "mobilenetv3_large_100", "mobilenet_v3_small": "mobilenetv3_small_100"},
            **dilated,
        ),
        *_timm(
            "mobilenet_v4",
            {
                "mobilenet_v4": "mobilenetv4_conv_medium",
                "mobilenet_v4_small": "mobilenetv4_conv_small",
                "mobilenet_v4_large": "mobilenetv4_conv_large",
            },
            **dilated,
        ),
        Entry("inception_v1", "inception_v1", "torchvision", "googlenet", weights="torchvision"),
        Entry("inception_v2", "inception_v2", "own", "inception_v2", weights=None),
        Entry("inception_v3", "inception_v3", "timm", "inception_v3"),
        Entry("inception_v4", "inception_v4", "timm", "inception_v4"),
        *_timm("densenet", {f"densenet{d}": f"densenet{d}" for d in (121, 161, 169, 201)}),
        *_timm(
            "efficientnet",
            {f"efficientnet_b{i}": f"efficientnet_b{i}" for i in range(8)},
            unweighted=("efficientnet_b6", "efficientnet_b7"),
            **dilated,
        ),
        Entry("shufflenet_v1", "shufflenet_v1", "own", "shufflenet_v1", weights=None),
    ]
    for name, width in (("", "x1_0"), ("_x0_5", "x0_5"), ("_x1_5", "x1_5"), ("_x2_0", "x2_0")):
        network = f"shufflenet_v2_{width}"
        rows.append(
            Entry(f"shufflenet_v2{name}", "shufflenet_v2", "torchvision", network, weights="torchvision")
        )
    rows += _timm("xception", {f"xception{d}": f"xception{d}" for d in (41, 65, 71)}, dilates=True)
    vgg = {f"vgg{d}{norm}": f"vgg{d}{norm}" for norm in ("", "_bn") for d in (11, 13, 16, 19)}
    return rows + _timm("vgg", vgg, strides=(1, *PYRAMID))


def _transformers() -> list[Entry]:
    rows = _timm(
        "swin",
        {
            "swin_t": "swin_tiny_patch4_window7_224",
            "swin_s": "swin_small_patch4_window7_224",
            "swin_b": "swin_base_patch4_window7_224",
            "swin_l": "swin_large_patch4_window7_224",
            "swin_b_384": "swin_base_patch4_window12_384",
            "swin_l_384": "swin_large_patch4_window12_384",
        },
        strides=FROM_FOUR,
        drop_path=True,
    )
    sizes = {"t": "tiny", "s": "small", "b": "base", "l": "large", "xl": "xlarge"}
    rows += _timm(
        "convnext",
        {f"convnext_{short}": f"convnext_{size}" for short, size in sizes.items()},
        strides=FROM_FOUR,
        drop_path=True,
        dilates=True,
    )
    poolformer = {f"poolformer_{size}": f"poolformer_{size}" for size in ("s12", "s24", "s36", "m36", "m48")}
    rows += _timm("poolformer", poolformer, strides=FROM_FOUR, drop_path=True)
    twins = {
        f"twins_{kind}_{size[0]}": f"twins_{kind}_{size}"
        for kind in ("pcpvt", "svt")
        for size in ("small", "base", "large")
    }
    rows += _timm("twins", twins, strides=FROM_FOUR, drop_path=True)
    rows += _own("mit", [f"mit_b{i}" for i in range(6)], strides=FROM_FOUR, drop_path=True)
    rows += _own("mscan", [f"mscan_{size}" for size in "tsbl"], strides=FROM_FOUR, drop_path=True)
    plain = {"strides": (4, 8, 16, 16), "drop_path": True}
    sizes = ("tiny", "small", "base", "large")
    rows += _timm("vit", {f"vit_{size}": f"vit_{size}_patch16_224" for size in sizes}, **plain)
    rows += _timm("deit", {f"deit_{size[0]}": f"deit_{size}_patch16_224" for size in sizes[:3]}, **plain)
    for kind, network in (("mae", "vit_{}_patch16_224.mae"), ("beit", "beit_{}_patch16_224")):
        for size in ("base", "large"):
            donor = {"pretrained_name": network.format(size)}
            rows += _own(kind, [f"{kind}_{size[0]}"], "timm", strides=FROM_FOUR, drop_path=True, **donor)
    small = {"pretrained_name": "hrnet_w18_small_v2"}
    rows += _own("hrnet", ["hrnet_w18s"], "timm", strides=FROM_FOUR, **small)
    widths = (18, 30, 32, 40, 44, 48, 64)
    return rows + _own("hrnet", [f"hrnet_w{width}" for width in widths], "timm", strides=FROM_FOUR)


ENTRIES: dict[str, Entry] = {
    entry.name: entry for entry in [*_residual(), *_convolutional(), *_transformers()]
}

# What short names and other people's spellings mean.
SHORT_NAMES = {
    "resnet": "resnet50",
    "resnext": "resnext50",
    "se_resnet": "se_resnet50",
    "resnest": "resnest50",
    "eca_resnet": "eca_resnet50",
    "cbam_resnet": "cbam_resnet50",
    "mobilenet": "mobilenet_v2",
    "mobilenet_v3_large": "mobilenet_v3",
    "mobilenet_v4_medium": "mobilenet_v4",
    "inception": "inception_v3",
    "googlenet": "inception_v1",
    "bn_inception": "inception_v2",
    "densenet": "densenet121",
    "efficientnet": "efficientnet_b0",
    "shufflenet": "shufflenet_v2",
    "xception": "xception65",
    "vgg": "vgg16",
    "vggnet": "vgg16",
    "swin": "swin_t",
    "swin_tiny": "swin_t",
    "swin_small": "swin_s",
    "swin_base": "swin_b",
    "swin_large": "swin_l",
    "swin_b_w12": "swin_b_384",
    "swin_l_w12": "swin_l_384",
    "convnext": "convnext_t",
    "poolformer": "poolformer_s12",
    "twins": "twins_svt_s",
    "mit": "mit_b0",
    "mscan": "mscan_t",
    "vit": "vit_base",
    "vit_t": "vit_tiny",
    "vit_s": "vit_small",
    "vit_b": "vit_base",
    "vit_l": "vit_large",
    "deit": "deit_s",
    "deit_tiny": "deit_t",
    "deit_small": "deit_s",
    "deit_base": "deit_b",
    "mae": "mae_b",
    "mae_base": "mae_b",
    "mae_large": "mae_l",
    "beit": "beit_b",
    "beit_base": "beit_b",
    "beit_large": "beit_l",
    "hrnet": "hrnet_w18",
    "hrnet_w18_small_v2": "hrnet_w18s",
}


def describe_backbones() -> list[dict]:
    """Return what `Structure.py --LIST` prints of each backbone, in the order of the catalogue.

    Keys: name, family, library, network, strides, output_strides (what may be asked for besides its own),
    pretrained (library or None), short_names, paper.
    """
    return [
        {
            "name": entry.name,
            "family": entry.family,
            "library": entry.library,
            "network": entry.network,
            "strides": list(entry.strides),
            "output_strides": [8, 16] if entry.dilates else [],
            "pretrained": entry.weights,
            "short_names": [short for short, long in SHORT_NAMES.items() if long == entry.name],
            "paper": PAPERS[entry.family],
        }
        for entry in ENTRIES.values()
    ]
