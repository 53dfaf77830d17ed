"""K-Net: the classifier's kernels, one per class, are updated by what they have found, and classify again.

Paper: Zhang, Pang, Chen, Loy, "K-Net: Towards Unified Image Segmentation", NeurIPS 2021,
https://arxiv.org/abs/2106.14855, sections 3.2 and 3.3

Deviations: semantic segmentation only. As in the authors' code the masks that assemble a kernel's features
are a softmax over the classes, the gates are as wide as a part of the kernel (256 of 512 channels, so a
kernel is updated in two parts), and a 1x1 convolution lies before each stage. The decoders are those of the
families `fcn`, `pspnet`, `deeplab` (v3) and `upernet`, 512 channels wide as in the paper; the ResNet is
timm's (MMSegmentation's has a deep stem: `backbone_options`).
"""

from typing import Literal

from torch import Tensor, nn

from nets.backbones.catalogue import can_dilate
from nets.decoders.kernel_update import Stage
from nets.errors import UserError, check_divisible
from nets.layers.resize import resize
from nets.recipes import WITH_AUX
from nets.registry import get_builder, register_model
from nets.segmentation_model import SegmentationModel

# Decoder -> family, and its options that the paper's networks have.
DECODERS = {
    "fcn": ("fcn", {}),
    "pspnet": ("pspnet", {"pool_channels": 512}),
    "deeplabv3": ("deeplab", {"version": "v3", "join_kernel": 3}),
    "upernet": ("upernet", {}),
}


class KNet(SegmentationModel):
    """A network of another family, and stages behind its classifier.

    Args:
        base: gives backbone, decoder and auxiliary heads.
        stages: number of stages.
        dropout: rate of the channel dropout before the classifier.
        stage: arguments of `Stage`.
    """

    def __init__(self, base: SegmentationModel, stages: int, *, dropout: float, stage: dict):
        super().__init__(
            base.backbone,
            base.decoder,
            bands=base.bands,
            num_classes=base.num_classes,
            dropout=dropout,
            align_corners=base.align_corners,
            aux_heads=base.aux_heads,
        )
        self.stages = nn.ModuleList(Stage(base.decoder.out_channels, **stage) for _ in range(stages))

    def forward(self, images: Tensor) -> dict[str, Tensor | list[Tensor]]:
        """Map (B, C, H, W) in data units to {"logits": (B, K, H, W)}.

        Training adds "stage_logits", those of the classifier and of each stage but the last, and may add the
        list "aux".
        """
        outputs = super().forward(images)
        if "stage_logits" in outputs:
            size, aligned = images.shape[-2:], self.align_corners
            outputs["stage_logits"] = [
                resize(x, size, align_corners=aligned) for x in outputs["stage_logits"]
            ]
        return outputs

    def decode(self, features: list[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Map the (B, C_i, h_i, w_i) to {"logits": (B, K, h, w)} and those before them in training."""
        x = self.decoder(features)
        logits = self.classifier(self.dropout(x))
        kernels = self.classifier.weight.flatten(1).expand(x.shape[0], -1, -1)  # (B, K, D)
        found = [logits]
        for stage in self.stages:
            logits, kernels = stage(x, kernels, logits)
            found.append(logits)
        *earlier, last = found
        return {"logits": last, "stage_logits": earlier} if self.training else {"logits": last}


@register_model
def knet(
    *,
    bands: int,
    num_classes: int,
    backbone: str = "resnet50",
    decoder: Literal["fcn", "pspnet", "deeplabv3", "upernet"] = "fcn",
    output_stride: Literal[8, 16, 32] | None = None,
    channels: int = 512,
    stages: int = 3,
    kernel_channels: int = 256,
    heads: int = 8,
    feedforward: int = 2048,
    mask_layers: int = 1,
    transform: bool = True,
    gate_norm: bool = False,
    gate_sigmoid: bool = True,
    activate_out: bool = False,
    stage_dropout: float = 0.0,
    drop_path: float | None = None,
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
    aux: bool = False,
    aux_heads: tuple[dict, ...] = (),
    decoder_options: dict | None = None,
    backbone_options: dict | None = None,
) -> KNet:
    """K-Net on the decoder of another family, with any backbone that it takes.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: resnet50/101, with upernet swin_t/s/b/l, any catalogue backbone.
        decoder: whose features and classifier the stages start from.
        output_stride: all but upernet: in pixels; None is 8 where the backbone can be dilated, else its own.
        channels: width of decoder and kernels.
        stages: number of stages.
        kernel_channels: width of the parts in which a kernel is updated.
        heads: heads of the attention among the kernels.
        feedforward: hidden width behind it; 0 leaves the feed-forward out.
        mask_layers: layers between a kernel and the weights of its mask.
        transform: a 1x1 convolution on the features before each stage.
        gate_norm: layer norm and ReLU before the gates.
        gate_sigmoid: the gates lie between 0 and 1.
        activate_out: ReLU on what the gates mix.
        stage_dropout: rate of dropout in the stages.
        drop_path: upernet: rate of stochastic depth; None is the family's.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how maps and logits are enlarged.
        norm_eps: epsilon of the decoder's batch norms.
        aux: build the usual auxiliary FCN head on the last map but one.
        aux_heads: arguments of `FCNHead` for each auxiliary head instead of the usual one.
        decoder_options: further options of the decoder's family.
        backbone_options: arguments of the backbone's class instead of its defaults.

    Raises:
        UserError: widths that cannot be divided, no stage, or an option that belongs to other decoders.
    """
    if stages < 1:
        raise UserError(f"knet: stages={stages} is given; at least 1 is needed")
    check_divisible("knet", "channels", channels, {"kernel_channels": kernel_channels, "heads": heads})
    family, own = DECODERS[decoder]
    base = get_builder(family)(
        bands=bands,
        num_classes=num_classes,
        backbone=backbone,
        channels=channels,
        align_corners=align_corners,
        norm_eps=norm_eps,
        aux=aux,
        aux_heads=aux_heads,
        backbone_options=backbone_options,
        **_reach(decoder, backbone, output_stride, drop_path, backbone_options),
        **own | (decoder_options or {}),
    )
    stage = {
        "kernel_channels": kernel_channels,
        "heads": heads,
        "feedforward": feedforward,
        "mask_layers": mask_layers,
        "transform": transform,
        "dropout": stage_dropout,
        "gate_norm": gate_norm,
        "gate_sigmoid": gate_sigmoid,
        "activate_out": activate_out,
    }
    return KNet(base, stages, dropout=dropout, stage=stage)


def _reach(
    decoder: str, backbone: str, output_stride: int | None, drop_path: float | None, options: dict | None
) -> dict:
    """Return what a decoder's family is told of the backbone's stride or depth."""
    if decoder == "upernet":
        if output_stride is not None:
            raise UserError(
                f"knet: output_stride={output_stride} is given with decoder=upernet, which needs maps of "
                "several sizes; leave it out or take another decoder"
            )
        return {"drop_path": drop_path}
    if drop_path is not None:
        raise UserError(
            f"knet: drop_path={drop_path} is given with decoder={decoder}; it belongs to decoder=upernet"
        )
    if output_stride is None and not options and can_dilate(backbone):
        output_stride = 8
    return {"output_stride": output_stride}


# MMSegmentation configs/knet, the authors' own: ADE20K, batch 16, 80000 iterations. The losses of all stages
# weigh 1, and the auxiliary head's 0.4.
STAGES = {"extra_losses": {"stage_logits": "ce"}}
RECIPE = {
    "plain": {"optimizer": "adamw", "lr": 2e-4, "warmup_fraction": 0.05, "clip_grad": 1.0, **STAGES},
    "paper": {
        "optimizer": "adamw",
        "lr": 1e-4,
        "weight_decay": 5e-4,
        "scheduler": "step",
        "step_ratio": 0.1,
        "step_at": (0.75, 0.9),
        "warmup_iters": 1000,
        "warmup_factor": 1e-3,
        "clip_grad": 1.0,
        "batch_size": 16,
        "loss": "ce",
        **WITH_AUX,
        **STAGES,
    },
    "paper_where": [
        (
            {"backbone": "swin_"},
            {"lr": 6e-5, "no_decay": ("norm", "absolute_pos_embed", "relative_position_bias_table")},
        ),
        ({"backbone": "swin_large"}, {"model_options": {"drop_path": 0.4}}),
    ],
}
