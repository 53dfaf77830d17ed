"""Mixed precision: what the network computes in during training, and the scaling that float16 needs.

Losses, weights and optimiser stay in float32, and so does validation: it predicts as the predict scripts do.
Micikevicius et al., "Mixed Precision Training", ICLR 2018, https://arxiv.org/abs/1710.03740.
"""

import argparse

import torch

from nets.errors import UserError

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """What a network computes in.

    Args:
        name: "float32", "bf16" or "fp16".
        device: where the network is.

    Attributes:
        scaler: keeps float16 gradients from vanishing; does nothing in the other precisions.
    """

    def __init__(self, name: str = "float32", device: torch.device | str = "cpu"):
        self.name = name
        self.device_type = torch.device(device).type
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=name == "fp16")

    def autocast(self) -> torch.autocast:
        """Return the context in which the network runs."""
        return torch.autocast(self.device_type, DTYPES[self.name], enabled=self.name != "float32")


def choose_precision(amp: str, device: torch.device) -> tuple[Precision, str]:
    """Return the precision of the flag AMP ("auto", "bf16", "fp16" or "off") and the reason.

    Raises:
        UserError: float16 was asked for on a device whose networks cannot be trained in it.
    """
    if amp == "auto":
        return Precision(_usual(device), device), f"usual on {device.type}"
    if amp == "fp16" and device.type != "cuda":
        raise UserError(f"--AMP fp16 needs a CUDA GPU, this run is on {device.type}; use bf16 or off")
    return Precision("float32" if amp == "off" else amp, device), "--AMP"


def allow_tf32(options: argparse.Namespace) -> tuple[str, str]:
    """Let GPUs round the factors of float32 products to 10-bit fractions or not; return "on" or "off", why.

    It changes nothing of what is repeatable: the same command gives the same bits with it, other ones than
    without.
    """
    allowed = options.AMP != "off" if options.TF32 == "auto" else options.TF32 == "on"
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    return "on" if allowed else "off", f"--AMP {options.AMP}" if options.TF32 == "auto" else "--TF32"


def _usual(device: torch.device) -> str:
    """Return what is fast and safe: bf16 where the GPU has it in hardware, float32 off GPUs."""
    if device.type != "cuda":
        return "float32"
    # Older GPUs (compute capability below 8) only emulate bf16.
    return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
