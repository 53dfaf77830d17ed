"""Mixed precision: what is chosen, and that training in it computes what it says."""

import pytest
import torch
from torch import nn

from nets.errors import UserError
from tests.tiny_dataset import write_dataset
from tests.training_helpers import COMMON
from train import main
from utils.checkpoint import read_checkpoint
from utils.training.criterion import Criterion
from utils.training.engine import Trainer, train_one_epoch
from utils.training.precision import Precision, choose_precision

CPU = torch.device("cpu")


class Spy(nn.Module):
    """A 1x1 network that notes what its convolution computes in."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(2, 3, 1)

    def forward(self, images):
        logits = self.layer(images)
        self.computed_in = logits.dtype
        return {"logits": logits}


def train_a_little(precision: Precision) -> tuple[Spy, float]:
    network = Spy()
    torch.manual_seed(1)
    images, masks = torch.randn(2, 2, 8, 8), torch.randint(3, (2, 8, 8))
    batch = {"image": images, "valid": torch.ones(2, 8, 8, dtype=torch.bool), "mask": masks}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    trainer = Trainer(
        model=network,
        batches=iter([batch] * 3),
        criterion=Criterion("ce"),
        optimizer=optimizer,
        scheduler=scheduler,
        device=CPU,
        precision=precision,
    )
    losses = train_one_epoch(trainer, 3)
    return network, losses["main"]


def test_auto_is_float32_on_the_cpu():
    precision, reason = choose_precision("auto", CPU)
    assert precision.name == "float32" and "cpu" in reason
    assert not precision.scaler.is_enabled()


def test_flags_win():
    assert choose_precision("bf16", CPU)[0].name == "bf16"
    assert choose_precision("off", CPU)[0].name == "float32"
    with pytest.raises(UserError, match="fp16 needs a CUDA GPU, this run is on cpu; use bf16 or off"):
        choose_precision("fp16", CPU)


def test_auto_on_gpus_depends_on_the_generation(monkeypatch):
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.amp, "GradScaler", lambda _device, enabled: enabled)
    for capability, name in (((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _gpu, found=capability: found)
        precision, _ = choose_precision("auto", gpu)
        assert precision.name == name and precision.scaler == (name == "fp16")


def test_the_network_computes_in_it_and_its_weights_stay_float32():
    full, full_loss = train_a_little(Precision())
    half, half_loss = train_a_little(Precision("bf16"))
    assert full.computed_in == torch.float32 and half.computed_in == torch.bfloat16
    assert half.layer.weight.dtype == torch.float32
    assert half_loss == pytest.approx(full_loss, rel=0.02) and half_loss != full_loss
    torch.testing.assert_close(half.layer.weight, full.layer.weight, rtol=0.02, atol=1e-3)


def test_a_run_keeps_its_precision_when_it_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = write_dataset(tmp_path / "data", bands=3, size=48, tiles=4)
    main(["--DATASET_PATH", str(data), *COMMON, "--EPOCHS", "1", "--AMP", "bf16", "--RUN_NAME", "half"])
    assert "bf16" in capsys.readouterr().out
    last = tmp_path / "pth_files" / "half" / "last.pth"
    assert all(tensor.dtype != torch.bfloat16 for tensor in read_checkpoint(last)["state_dict"].values())
    main(["--RESUME", "half", "--EPOCHS", "2"])
    assert read_checkpoint(last)["options"]["AMP"] == "bf16"
