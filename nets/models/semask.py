"""SeMask: semantic attention behind each stage of Swin, whose scores are trained on the classes themselves.

Paper: Jain et al., "SeMask: Semantically Masked Transformers for Semantic Segmentation", ICCV Workshops 2023,
https://arxiv.org/abs/2112.12782

Deviations: none. As in the authors' code (https://github.com/Picsart-AI-Research/SeMask-Segmentation,
SeMask-FPN) the head of Semantic FPN reads Swin's maps without a feature pyramid in between, and sizes T, S
and L with more than 19 classes have semantic attention all over the map in the two deepest stages, in windows
elsewhere (`global_stages`).
"""

from typing import Literal

from torch import Tensor

from nets.backbones.semask import SeMaskSwin
from nets.decoders.semantic_fpn import LevelSum, add_all, double
from nets.errors import UserError
from nets.registry import register_model
from nets.segmentation_model import SegmentationModel

# timm's names; B and L have the windows of the authors' configurations.
SIZES = {
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window12_384",
    "swin_l": "swin_large_patch4_window12_384",
}
STAGES = 4
# The authors' code goes by the width, which T and S share.
GLOBAL_WIDTHS, GLOBAL_STAGES, MOST_CLASSES_OF_WINDOWS = (96, 192), 2, 19


def usual_global_stages(width: int, num_classes: int) -> int:
    """Return how many of the deepest stages of the authors' network attend all over the map.

    Args:
        width: of the first stage.
        num_classes: number of classes.
    """
    return GLOBAL_STAGES if width in GLOBAL_WIDTHS and num_classes > MOST_CLASSES_OF_WINDOWS else 0


class SeMaskModel(SegmentationModel):
    """A segmentation model whose backbone also scores classes, which is an auxiliary output in training."""

    def decode(self, features: list[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Map the (B, C_i, h_i, w_i), and behind them any scores (B, K, h_i, w_i), to {"logits", "aux"}."""
        outputs = super().decode(features[:STAGES])
        if self.training:
            # The scores of every stage, enlarged step by step and added, as the features are.
            enlarged = [
                double(scores, i, align_corners=self.align_corners)
                for i, scores in enumerate(features[STAGES:])
            ]
            outputs["aux"] = [add_all(enlarged, align_corners=self.align_corners)]
        return outputs


@register_model
def semask(
    *,
    bands: int,
    num_classes: int,
    backbone: Literal["swin_t", "swin_s", "swin_b", "swin_l"] = "swin_t",
    window: int | None = None,
    semantic_window: int | None = None,
    semantic_blocks: tuple[int, ...] = (1, 1, 1, 1),
    global_stages: int | None = None,
    channels: int = 256,
    drop_path: float = 0.3,
    backbone_dropout: float = 0.0,
    attention_dropout: float = 0.0,
    dropout: float = 0.1,
    align_corners: bool = False,
    norm_eps: float = 1e-5,
) -> SegmentationModel:
    """SeMask-FPN.

    Args:
        bands: bands of an image.
        num_classes: number of classes.
        backbone: size of Swin.
        window: side of Swin's windows; None is 7 for T and S, 12 for B and L; the other of the two is allowed
            for B and L.
        semantic_window: side of the windows of the semantic attention; None is Swin's.
        semantic_blocks: semantic attentions behind each of the four stages, at least one.
        global_stages: so many of the deepest stages have semantic attention all over the map, at a cost that
            grows with the square of its pixels; None is the authors' choice: 2 for T, S and L with more than
            19 classes, else 0.
        channels: width of the head.
        drop_path: rate of stochastic depth.
        backbone_dropout: rate of dropout in Swin.
        attention_dropout: rate of dropout on the weights of Swin's attention.
        dropout: rate of the channel dropout before the classifier.
        align_corners: how levels and logits are enlarged.
        norm_eps: epsilon of the head's batch norms.

    Raises:
        UserError: blocks, stages or windows that the network cannot have.
    """
    if len(semantic_blocks) != STAGES or min(semantic_blocks) < 1:
        raise UserError(f"semask: semantic_blocks={semantic_blocks} is given; four numbers from 1 are needed")
    if global_stages is not None and not 0 <= global_stages <= STAGES:
        raise UserError(f"semask: global_stages={global_stages} is given; 0 to {STAGES} is allowed")
    stages = global_stages
    if stages is None:
        stages = usual_global_stages({"swin_b": 128, "swin_l": 192}.get(backbone, 96), num_classes)
    encoder = SeMaskSwin(
        _network(backbone, window),
        bands=bands,
        classes=num_classes,
        blocks=semantic_blocks,
        window=semantic_window,
        global_stages=stages,
        drop_path=drop_path,
        dropout=backbone_dropout,
        attention_dropout=attention_dropout,
    )
    decoder = LevelSum(
        encoder.channels,
        encoder.strides,
        channels=channels,
        norm="batch",
        align_corners=align_corners,
        norm_eps=norm_eps,
    )
    model = SeMaskModel(
        encoder,
        decoder,
        bands=bands,
        num_classes=num_classes,
        dropout=dropout,
        align_corners=align_corners,
    )
    model.decided["global_stages"] = stages
    return model


def _network(backbone: str, window: int | None) -> str:
    """Return timm's name of a Swin with a window of its own."""
    name = SIZES[backbone]
    if window is None or f"window{window}_" in name:
        return name
    if window not in (7, 12) or backbone in ("swin_t", "swin_s"):
        allowed = "7" if backbone in ("swin_t", "swin_s") else "7 and 12"
        raise UserError(f"semask: window={window} is given; {backbone} has windows of {allowed}")
    return name.replace("window12_384", "window7_224")


RECIPE = {
    "plain": {"optimizer": "adam", "lr": 3e-4, "warmup_fraction": 0.05},
    # The authors' configurations: ADE20K, 80k iterations, total batch 16; `aux` is the loss of the stages'
    # scores, their "semantic priors".
    "paper": {
        "optimizer": "adamw",
        "lr": 1e-4,
        "weight_decay": 1e-4,
        "scheduler": "poly",
        "poly_power": 1.0,
        "min_lr": 0.0,
        "warmup_iters": 1500,
        "warmup_factor": 1e-6,
        "no_decay": ("norm", "relative_position_bias_table"),
        "batch_size": 16,
        "loss": "ce",
        "aux_weight": 0.4,
    },
}
