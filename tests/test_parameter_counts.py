"""Parameter counts of all variants: a stage that goes missing, or a width that changes, shows here.

Three bands and 150 classes. Sources: "published" is the paper's or the authors' figure in millions; "mmseg"
is counted from MMSegmentation 1.2.2's own module, without auxiliary heads unless the variant has them; "smp"
from segmentation_models.pytorch's own module; None where nobody states one: then the number follows from
parts that are held against a reference elsewhere. `test_classics.py` counts FCN-8s, SegNet, ENet and
RefineNet with their papers' numbers of classes.
"""

import pytest
import torch

from nets import create_model

VARIANTS = [
    # family, options, parameters, (source, millions)
    ("unet", {"backbone": "none"}, 31_041_430, ("published", 31.0)),
    ("unet", {"backbone": "vgg11"}, 13_564_214, None),
    ("unet", {"backbone": "vgg16_bn"}, 19_066_870, None),
    ("unet", {"backbone": "vgg19"}, 24_368_118, None),
    ("unet", {"backbone": "resnet18"}, 14_349_814, ("smp", 14.35)),
    ("unet", {"backbone": "resnet34"}, 24_457_974, ("smp", 24.46)),
    ("unet", {"backbone": "resnet50"}, 32_542_710, ("smp", 32.54)),
    ("unet", {"backbone": "resnet101"}, 51_534_838, ("smp", 51.53)),
    ("unet", {"backbone": "resnet152"}, 67_178_486, ("smp", 67.18)),
    ("unet", {"backbone": "s5_d16", "decoder": "fcn"}, 28_996_310, ("mmseg", 29.0)),
    ("unet", {"backbone": "s5_d16", "decoder": "psp"}, 28_974_806, None),
    ("unet", {"backbone": "s5_d16", "decoder": "deeplabv3"}, 28_993_526, None),
    ("deeplab", {"backbone": "resnet18"}, 12_371_782, None),
    ("deeplab", {"backbone": "resnet50"}, 26_729_286, None),
    ("deeplab", {"backbone": "resnet101"}, 45_721_414, None),
    ("deeplab", {"backbone": "resnet18", "version": "v3"}, 15_346_902, None),
    ("deeplab", {"backbone": "resnet50", "version": "v3"}, 39_081_686, None),
    ("deeplab", {"backbone": "resnet101", "version": "v3"}, 58_073_814, None),
    ("deeplab", {"backbone": "xception"}, 41_088_566, ("published", 41.0)),
    ("deeplab", {"backbone": "mobilenet"}, 2_752_966, None),
    ("deeplab", {"backbone": "vggnet"}, 15_919_174, None),
    ("deeplab", {"backbone": "inception"}, 25_003_750, None),
    ("pspnet", {"backbone": "mobilenetv2"}, 4_941_846, None),
    ("pspnet", {"backbone": "resnet18"}, 16_236_246, None),
    ("pspnet", {"backbone": "resnet50"}, 46_658_774, ("mmseg", 46.7)),
    ("pspnet", {"backbone": "resnet101"}, 65_650_902, ("mmseg", 65.7)),
    ("fcn", {"backbone": "resnet18"}, 20_693_718, None),
    ("fcn", {"backbone": "resnet50"}, 47_181_014, ("mmseg", 47.2)),
    ("fcn", {"backbone": "resnet101"}, 66_173_142, ("mmseg", 66.2)),
    ("fcn", {"version": "32s"}, 134_875_094, None),
    ("fcn", {"version": "16s"}, 135_312_044, None),
    ("fcn", {"version": "8s"}, 135_710_594, None),
    ("fcn", {"version": "8s", "backbone": "vgg11_bn"}, 130_221_890, None),
    ("enet", {}, 372_469, ("published", 0.37)),
    ("segnet", {"backbone": "vgg11"}, 18_533_014, None),
    ("segnet", {"backbone": "vgg13"}, 18_902_614, None),
    ("segnet", {"backbone": "vgg16"}, 29_525_846, ("published", 29.46)),
    ("segnet", {"backbone": "vgg19"}, 40_149_078, None),
    ("segnet", {"batch_norm": False}, 29_513_686, None),
    ("refinenet", {"backbone": "resnet18"}, 76_851_670, None),
    ("refinenet", {"backbone": "resnet50"}, 99_357_654, None),
    ("refinenet", {"backbone": "resnet101"}, 118_349_782, None),
    ("refinenet", {"backbone": "resnet152"}, 133_993_430, None),
    ("hrnet", {"backbone": "w18s"}, 3_974_810, ("mmseg", 3.97)),
    ("hrnet", {"backbone": "w18"}, 9_676_350, ("mmseg", 9.68)),
    ("hrnet", {"backbone": "w32"}, 29_609_046, None),
    ("hrnet", {"backbone": "w48"}, 65_953_110, ("mmseg", 66.0)),
    ("hrnet", {"backbone": "w18s", "version": "v1"}, 3_619_562, None),
    ("hrnet", {"backbone": "w18", "version": "v1"}, 9_321_102, None),
    ("hrnet", {"backbone": "w32", "version": "v1"}, 28_541_590, None),
    ("hrnet", {"backbone": "w48", "version": "v1"}, 63_604_662, None),
    ("mask2former", {"backbone": "resnet18"}, 30_972_567, None),
    ("mask2former", {"backbone": "resnet50"}, 44_041_367, ("mmseg", 44.0)),
    ("mask2former", {"backbone": "resnet101"}, 63_033_495, ("mmseg", 63.0)),
    ("mask2former", {"backbone": "swin_t"}, 47_439_633, ("mmseg", 47.4)),
    ("mask2former", {"backbone": "swin_s"}, 68_757_537, ("mmseg", 68.8)),
    ("mask2former", {"backbone": "swin_b"}, 106_786_831, None),
    ("mask2former", {"backbone": "swin_b_384"}, 106_922_191, ("mmseg", 106.9)),
    ("mask2former", {"backbone": "swin_l"}, 215_285_739, None),
    ("mask2former", {"backbone": "swin_l_384"}, 215_488_779, ("mmseg", 215.5)),
    ("ocrnet", {"backbone": "w18s"}, 6_481_200, None),
    ("ocrnet", {"backbone": "w18"}, 12_182_740, ("mmseg", 12.2)),
    ("ocrnet", {"backbone": "w32"}, 33_083_116, None),
    ("ocrnet", {"backbone": "w48"}, 70_533_100, ("mmseg", 70.5)),
    ("ocrnet", {"backbone": "resnet101"}, 57_996_140, None),
    ("segformer", {"backbone": "b0"}, 3_752_694, ("published", 3.8)),
    ("segformer", {"backbone": "b1"}, 13_715_798, ("published", 13.7)),
    ("segformer", {"backbone": "b2"}, 27_461_974, ("published", 27.5)),
    ("segformer", {"backbone": "b3"}, 47_337_814, ("published", 47.3)),
    ("segformer", {"backbone": "b4"}, 64_108_374, ("published", 64.1)),
    ("segformer", {"backbone": "b5"}, 84_708_694, ("published", 84.7)),
    ("segformer", {"backbone": "b0", "decoder": "conv"}, 3_753_718, ("mmseg", 3.75)),
    ("segformer", {"backbone": "b1", "decoder": "conv"}, 13_716_822, ("mmseg", 13.7)),
    ("segformer", {"backbone": "b2", "decoder": "conv"}, 24_761_686, ("mmseg", 24.8)),
    ("segformer", {"backbone": "b3", "decoder": "conv"}, 44_637_526, ("mmseg", 44.6)),
    ("segformer", {"backbone": "b4", "decoder": "conv"}, 61_408_086, ("mmseg", 61.4)),
    ("segformer", {"backbone": "b5", "decoder": "conv"}, 82_008_406, ("mmseg", 82.0)),
    ("segnext", {"backbone": "t"}, 4_263_414, ("mmseg", 4.26)),
    ("segnext", {"backbone": "s"}, 13_932_886, ("mmseg", 13.9)),
    ("segnext", {"backbone": "b"}, 27_636_310, ("mmseg", 27.6)),
    ("segnext", {"backbone": "l"}, 48_926_550, ("mmseg", 48.9)),
    ("setr", {"backbone": "base", "decoder": "naive"}, 86_668_694, None),
    ("setr", {"backbone": "base", "decoder": "pup"}, 90_012_566, None),
    ("setr", {"backbone": "base", "decoder": "mla"}, 91_435_926, None),
    ("setr", {"backbone": "large", "decoder": "naive"}, 304_448_662, ("mmseg", 304.4)),
    ("setr", {"backbone": "large", "decoder": "pup"}, 308_316_822, ("mmseg", 308.3)),
    ("setr", {"backbone": "large", "decoder": "mla"}, 309_414_038, ("mmseg", 309.4)),
    ("upernet", {"backbone": "resnet18"}, 40_855_254, None),
    ("upernet", {"backbone": "swin_t"}, 59_018_064, ("mmseg", 59.0)),
    ("upernet", {"backbone": "swin_s"}, 80_335_968, ("mmseg", 80.3)),
    ("upernet", {"backbone": "swin_b"}, 120_061_006, ("mmseg", 120.1)),
    ("upernet", {"backbone": "swin_l"}, 231_951_402, ("mmseg", 231.9)),
    ("upernet", {"backbone": "swin_t", "aux": True}, 59_941_862, ("mmseg", 59.9)),
    ("upernet", {"backbone": "convnext_t"}, 59_318_838, ("mmseg", 59.3)),
    ("upernet", {"backbone": "convnext_b"}, 120_884_246, ("mmseg", 120.9)),
    ("upernet", {"backbone": "convnext_t", "aux": True}, 60_242_636, ("mmseg", 60.2)),
    ("upernet", {"backbone": "resnet50", "aux": True}, 66_496_876, ("mmseg", 66.5)),
    ("upernet", {"backbone": "resnet101", "aux": True}, 85_489_004, ("mmseg", 85.5)),
]


@pytest.mark.parametrize(
    ("family", "options", "count", "source"),
    VARIANTS,
    ids=["-".join([family, *map(str, options.values())]) for family, options, *_ in VARIANTS],
)
def test_parameters(family, options, count, source):
    with torch.device("meta"):
        network = create_model(family, bands=3, num_classes=150, **options)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    if source is not None:
        # A figure in the literature has two to four digits.
        assert count / 1e6 == pytest.approx(source[1], abs=0.11)
