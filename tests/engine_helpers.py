"""Small networks, batches and a trainer in memory, for the tests of training."""

import torch
import torch.nn.functional as F
from torch import nn

from nets import create_model
from tests.helpers import randomize
from utils.data.labels import IGNORE
from utils.options import train_options
from utils.training.criterion import Criterion
from utils.training.engine import Trainer
from utils.training.optimizers import build_optimizer
from utils.training.recipe import choose_recipe, resolve


def network(family: str = "unet", backbone: str = "test_resnet", **options) -> nn.Module:
    """Return a network of two bands and three classes with random weights, in float64."""
    torch.manual_seed(0)
    if family == "unet":
        options["decoder_channels"] = (8,)
    return randomize(create_model(family, bands=2, num_classes=3, backbone=backbone, **options)).double()


def batch(images: int = 4, side: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose labels are very unequal."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(images, 2, side, side, generator=generator, dtype=torch.float64)
    masks = torch.randint(3, (images, side, side), generator=generator)
    masks[0, 4:] = IGNORE
    return pixels, masks


def trainer(model: nn.Module, iterations: int = 3, **more) -> Trainer:
    """Return a trainer of plain SGD that sees one batch again and again."""
    images, masks = batch(2)
    one = {"image": images.float(), "valid": torch.ones_like(masks, dtype=torch.bool), "mask": masks}
    options = train_options(["--OPTIMIZER_TYPE", "sgd", "--INIT_LR", "0.1"])
    settings, _ = resolve(options, choose_recipe(options), iterations)
    optimizer = build_optimizer(model, settings)
    return Trainer(
        model=model,
        batches=iter([one] * 20),
        criterion=Criterion("ce"),
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
        device=torch.device("cpu"),
        **more,
    )


class Toy(nn.Module):
    """The smallest network that predicts masks: a 1x1 convolution per query, and the queries' classes."""

    size_divisor, min_size, task = 32, 32, "multiclass"

    def __init__(self, bands=1, num_classes=2, queries=3):
        super().__init__()
        self.bands, self.num_classes = bands, num_classes
        self.blueprint = {"name": "fcn", "options": {}}
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("std", torch.ones(bands))
        self.features = nn.Conv2d(bands, queries, 1)
        self.classes = nn.Parameter(torch.randn(queries, num_classes + 1))

    def forward(self, images):
        normal = (images - self.mean[:, None, None]) / self.std[:, None, None]
        masks = F.avg_pool2d(self.features(normal.nan_to_num()), 2)  # (B, Q, h, w)
        classes = self.classes.expand(len(masks), -1, -1)
        scores = torch.einsum("bqhw,bqk->bkhw", masks.sigmoid(), classes.softmax(2)[..., :-1])
        logits = F.interpolate(scores, images.shape[-2:], mode="bilinear")
        return {"logits": logits, "mask_logits": [masks, masks], "class_logits": [classes, classes]}


def scene():
    """One batch of images (2, 1, 40, 50) with a bright object, and ignored rows."""
    mask = torch.zeros(2, 40, 50, dtype=torch.int16)
    mask[0, 10:30, 8:30], mask[1, 20:, 12:40] = 1, 1
    image = mask[:, None] * 4.0 - 2.0
    mask[:, :2] = IGNORE
    return {"image": image, "valid": mask > -9, "mask": mask, "name": ["a", "b"]}
