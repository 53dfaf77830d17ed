"""The knobs of the loop: each does what it says, and nothing else."""

import copy

import pytest
import torch
from torch import nn

from nets import create_model
from nets.errors import UserError
from tests.helpers import randomize
from tests.test_criterion import Toy, scene
from tests.tiny_dataset import write_dataset
from tests.training_helpers import COMMON
from train import main
from utils.checkpoint import read_checkpoint
from utils.data.labels import IGNORE
from utils.options import train_options
from utils.training.accumulate import Parts, is_mean_over_pixels
from utils.training.criterion import Criterion
from utils.training.engine import Trainer, train_one_epoch
from utils.training.freeze import freeze
from utils.training.mask_loss import MaskCriterion
from utils.training.memory import advice_on_memory
from utils.training.optimizer_names import find_optimizer
from utils.training.optimizers import build_optimizer, fused
from utils.training.precision import Precision, allow_tf32
from utils.training.recipe import choose_accumulation, choose_recipe, resolve
from utils.training.recompute import find_blocks, recompute_backbone
from utils.training.setup import check_training_step

CPU = torch.device("cpu")


def network(family: str = "unet", backbone: str = "test_resnet", **options) -> nn.Module:
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


def gradients(model: nn.Module, criterion, sizes: list[int], *, weighted: bool) -> tuple[list, float]:
    """Return the gradients of a batch in parts of these sizes, and its loss."""
    images, masks = batch()
    parts = list(zip(images.split(sizes), masks.split(sizes), strict=True))
    total = 0.0
    model.zero_grad()
    whole = Parts(model, criterion, parts, Precision(), weighted=weighted)
    for part, labels in whole:
        loss, main = whole.criterion(model(part), labels)
        loss.backward()
        total += main.item()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None], total


WEIGHTS = [0.5, 2.0, 1.0]


@pytest.mark.parametrize(("loss", "weighted"), [("ce", True), ("ce", False), ("focal", True)])
def test_parts_of_a_batch_have_the_gradients_of_the_whole(loss, weighted):
    model, criterion = network().eval(), Criterion(loss, WEIGHTS).double()
    expected, total = gradients(model, criterion, [4], weighted=weighted)
    for sizes in ([1, 3], [1, 1, 1, 1]):
        own, own_total = gradients(model, criterion, sizes, weighted=weighted)
        assert own_total == pytest.approx(total, rel=1e-6)
        for one, other in zip(own, expected, strict=True):
            assert (one - other).abs().max() < 1e-6 * other.abs().max() + 1e-12


def test_parts_of_a_batch_have_the_gradients_of_a_loss_of_sets_of_masks():
    model, one = Toy().double(), scene()
    images, masks = one["image"].double(), one["mask"].long()

    def step(size: int) -> tuple[list, float]:
        torch.manual_seed(2)  # of the points
        parts = list(zip(images.split(size), masks.split(size), strict=True))
        whole = Parts(model, MaskCriterion(points=64), parts, Precision(), weighted=False)
        model.zero_grad()
        losses = []
        for part, labels in whole:
            loss, _ = whole.criterion(model(part), labels)
            loss.backward()
            losses.append(loss.item())
        return [parameter.grad.clone() for parameter in model.parameters()], sum(losses)

    (expected, loss), (own, own_loss) = step(2), step(1)
    assert own_loss == pytest.approx(loss)
    torch.testing.assert_close(own, expected)


def test_parts_computed_twice_count_once_in_batch_norms_and_draw_the_same_dropout():
    class OfSquares(nn.Module):
        """A loss that is no mean over pixels."""

        def forward(self, outputs, masks):
            loss = outputs["logits"].square().mean().sqrt()
            return loss, loss

    model = network(dropout=0.5).train()
    once, twice = copy.deepcopy(model), copy.deepcopy(model)
    torch.manual_seed(5)
    images, _ = batch()
    outputs = torch.cat([once(part)["logits"] for part in images.split(2)])
    outputs.square().mean().sqrt().backward()
    torch.manual_seed(5)
    gradients(twice, OfSquares(), [2, 2], weighted=False)
    torch.testing.assert_close(dict(twice.named_buffers()), dict(once.named_buffers()))
    for one, other in zip(once.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_which_losses_are_means_over_pixels():
    def settings(*words):
        options = train_options(list(words))
        return resolve(options, choose_recipe(options), 10)[0]

    assert is_mean_over_pixels(settings()) and is_mean_over_pixels(settings("--LOSS_TYPE", "focal"))
    assert not is_mean_over_pixels(settings("--MODEL_TYPE", "mask2former"))
    assert settings("--CLIP_GRAD", "0.5").clip_grad == 0.5


@pytest.mark.parametrize(
    ("family", "backbone"), [("unet", "test_resnet"), ("segformer", "b0"), ("unet", "convnext_atto")]
)
def test_recomputed_blocks_have_the_same_gradients_and_statistics(family, backbone):
    kept = network(family, backbone).train()
    again = copy.deepcopy(kept)
    assert recompute_backbone(again) >= 2

    def step(model: nn.Module) -> tuple[int, torch.Tensor]:
        sizes = []

        def note(tensor):
            sizes.append(tensor.numel())
            return tensor

        torch.manual_seed(7)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model(batch(2, 64)[0])["logits"].square().mean()
        loss.backward()
        return sum(sizes), loss.detach()

    (memory, loss), (less, same_loss) = step(kept), step(again)
    assert less < 0.8 * memory and torch.equal(loss, same_loss)
    torch.testing.assert_close(dict(again.named_buffers()), dict(kept.named_buffers()))
    for one, other in zip(kept.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert again.state_dict().keys() == kept.state_dict().keys()


def test_recomputed_blocks_can_be_compiled():
    kept = network().train()
    again = copy.deepcopy(kept)
    recompute_backbone(again)
    again.compile(backend="eager")  # the tracing, without the compiler
    for model in (kept, again):
        model(batch(2, 64)[0])["logits"].square().mean().backward()
    for one, other in zip(kept.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_a_backbone_without_blocks_is_named():
    with pytest.raises(UserError, match="--GRAD_CHECKPOINT is given; this backbone has no blocks"):
        recompute_backbone(network(backbone="vgg11"))
    assert not find_blocks(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()))


def trainer(model: nn.Module, iterations: int = 3, **more) -> Trainer:
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
        device=CPU,
        **more,
    )


def test_frozen_parts_stay_and_their_batch_norms_keep_their_statistics():
    model = network().float()
    norms = freeze(model, "backbone, decoder.*.norm")
    before = copy.deepcopy(model.state_dict())
    train_one_epoch(trainer(model, frozen=norms), 2)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and not any(name.startswith("backbone") for name in changed)
    assert any(name.startswith("classifier") for name in changed)
    model = network()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert set(freeze(model, "batch_norm")) == set(norms) and model.classifier.weight.requires_grad
    for names, message in (
        ("backbon", "no part of this network has that name; nearest: backbone"),
        ("*", "nothing is left to be trained"),
    ):
        with pytest.raises(UserError, match=message):
            freeze(network(), names)


def test_a_batch_of_one_needs_frozen_batch_norms():
    model = create_model("pspnet", bands=2, num_classes=3, backbone="test_resnet")
    with pytest.raises(UserError, match=r"one value per channel at 1 image.*or --FREEZE batch_norm"):
        check_training_step(model, 1, (64, 64))
    check_training_step(model, 1, (64, 64), "batch_norm")
    check_training_step(model, 2, (64, 64), "backbone")
    assert all(parameter.requires_grad for parameter in model.parameters()) and model.training


def test_the_average_of_the_weights():
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model = network().float()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.75), use_buffers=True)
    seen = []
    run = trainer(model, ema=average)
    for _ in range(3):
        train_one_epoch(run, 1)
        seen.append(copy.deepcopy(model.state_dict()))
    for name, value in average.module.state_dict().items():
        if value.is_floating_point():
            expected = 0.75 * (0.75 * seen[0][name] + 0.25 * seen[1][name]) + 0.25 * seen[2][name]
            torch.testing.assert_close(value, expected)


def test_channels_last_images_and_the_same_losses():
    plain, last = network().float(), network().float().to(memory_format=torch.channels_last)
    images, _ = trainer(last, memory_format=torch.channels_last).next_batch()
    assert images.is_contiguous(memory_format=torch.channels_last)
    losses = train_one_epoch(trainer(last, memory_format=torch.channels_last), 2)
    assert losses["main"] == pytest.approx(train_one_epoch(trainer(plain), 2)["main"], rel=1e-4)


def test_tf32(monkeypatch):
    for words, expected in (
        ([], ("on", "--AMP auto")),
        (["--AMP", "off"], ("off", "--AMP off")),
        (["--AMP", "off", "--TF32", "on"], ("on", "--TF32")),
    ):
        assert allow_tf32(train_options(words)) == expected
        assert torch.backends.cudnn.allow_tf32 == (expected[0] == "on")
    torch.set_float32_matmul_precision("highest")
    assert fused(find_optimizer("adamw"), "cuda:0") == {"fused": True}
    assert fused(find_optimizer("sgd"), "cpu") == fused(find_optimizer("rprop"), "cuda:0") == {}


def test_too_little_memory_is_one_line(monkeypatch):
    gib = 2**30
    properties = type("Properties", (), {"total_memory": 24 * gib})
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 23.5 * gib)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    options = train_options(["--BATCH_SIZE", "8", "--GRAD_CHECKPOINT", "--AMP", "off"])
    message = (
        r"GPU 1 has 24.0 GiB, and --BATCH_SIZE 8 with crops of 512x384 needed more than 23.5 GiB; "
        r"try --AMP auto, --BATCH_SIZE 4 --ACCUMULATE 6, --PARALLEL fsdp on several GPUs, "
        r"a smaller --CROP_SIZE"
    )
    with (
        pytest.raises(UserError, match=message),
        advice_on_memory(options, (512, 384), torch.device("cuda", 1), 3),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize(
    ("words", "batches", "lr", "reason"),
    [
        (["--BATCH_SIZE", "4"], 4, 0.01, "paper recipe"),
        (["--BATCH_SIZE", "16"], 1, 0.01, "paper recipe"),
        (["--BATCH_SIZE", "6"], 1, 0.00375, "paper recipe: 0.01 at batch 16, scaled to 6"),
        (["--BATCH_SIZE", "32"], 1, 0.02, "paper recipe: 0.01 at batch 16, scaled to 32"),
        (["--SCALE_LR", "on"], 1, 0.0025, "paper recipe: 0.01 at batch 16, scaled to 4"),
        (["--SCALE_LR", "on", "--ACCUMULATE", "2"], 2, 0.005, "paper recipe: 0.01 at batch 16, scaled to 8"),
        (
            ["--SCALE_LR", "off"],
            1,
            0.01,
            "paper recipe: for batch 16, not scaled to 4 (--SCALE_LR off)",
        ),
    ],
)
def test_a_recipe_knows_its_batch(words, batches, lr, reason):
    options = train_options(["--MODEL_TYPE", "pspnet", "--RECIPE", "paper", *words])
    recipe = choose_recipe(options)
    settings, decisions = resolve(options, recipe, 1000)
    assert choose_accumulation(options, recipe)[0] == batches and settings.lr == pytest.approx(lr)
    assert {name: why for name, _, why in decisions}["lr"] == reason


def run(folder, *words: str) -> dict:
    """Train as train.py does and return the last checkpoint of the run "knobs"."""
    main(["--DATASET_PATH", str(folder / "data"), *COMMON, *words])
    return read_checkpoint(folder / "pth_files" / "knobs" / "last.pth")


def test_a_run_with_all_of_them_goes_on_as_if_it_had_not_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "data", bands=3, size=48, tiles=8)
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    words = ["--EMA", "0.6", "--ACCUMULATE", "2", "--FREEZE", "backbone.body.conv1", "--CLIP_GRAD", "1"]
    words += ["--GRAD_CHECKPOINT", "--CHANNELS_LAST", "--COMPILE", "--RUN_NAME", "knobs"]
    words += ["--LR_SCHEDULER", "step", "--LR_STEP", "9"]
    whole = run(tmp_path, *words, "--EPOCHS", "2")
    assert compiled == ["SegmentationModel"]
    text = capsys.readouterr().out
    assert "2 x 2 images per step" in text and "of 2 iterations of 4 crops" in text
    (tmp_path / "pth_files" / "knobs").rename(tmp_path / "pth_files" / "whole")
    run(tmp_path, *words, "--EPOCHS", "1")
    parts = run(tmp_path, "--RESUME", "knobs", "--EPOCHS", "2")
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(parts["state_dict"][name], tensor), name
    live = whole["training"]["ema"]["network"]
    assert all(torch.equal(parts["training"]["ema"]["network"][name], live[name]) for name in live)
    assert not all(torch.equal(live[name], whole["state_dict"][name]) for name in live)
    assert parts["training"]["ema"]["count"] == 4
