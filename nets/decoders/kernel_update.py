"""The stages of K-Net, in which kernels are updated by what they have found, and classify again.

Paper: Zhang, Pang, Chen, Loy, "K-Net: Towards Unified Image Segmentation", NeurIPS 2021,
https://arxiv.org/abs/2106.14855, section 3.3.
"""

import torch
from torch import Tensor, nn

from nets.layers.attention import Attention, FeedForward
from nets.layers.init import start_uniform
from nets.layers.precision import without_autocast


class KernelUpdate(nn.Module):
    """Gates mix a kernel with the features that it has found (paper, section 3.3, equations 4 to 6).

    Args:
        channels: width.
        gate_norm: layer norm and ReLU on the product before the gates.
        gate_sigmoid: the gates lie between 0 and 1.
        activate_out: ReLU on both sides before they are mixed.
    """

    def __init__(self, channels: int, *, gate_norm: bool, gate_sigmoid: bool, activate_out: bool):
        super().__init__()
        self.gate_sigmoid, self.activate_out = gate_sigmoid, activate_out
        self.found, self.kernel = (nn.Linear(channels, 2 * channels) for _ in range(2))
        self.kernel_gate, self.found_gate = (nn.Linear(channels, channels) for _ in range(2))
        self.found_gate_norm, self.found_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.kernel_gate_norm, self.kernel_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.product_norm = nn.LayerNorm(channels) if gate_norm else None
        self.join, self.join_norm = nn.Linear(channels, channels), nn.LayerNorm(channels)

    def forward(self, found: Tensor, kernels: Tensor) -> Tensor:
        """Map found features (N, D) and kernels (N, D) to kernels (N, D)."""
        found_in, found_out = self.found(found).chunk(2, dim=-1)
        kernel_in, kernel_out = self.kernel(kernels).chunk(2, dim=-1)
        product = kernel_in * found_in
        if self.product_norm is not None:
            product = self.product_norm(product).relu()
        gates = [
            self.found_gate_norm(self.found_gate(product)),
            self.kernel_gate_norm(self.kernel_gate(product)),
        ]
        outs = [self.found_norm(found_out), self.kernel_norm(kernel_out)]
        if self.gate_sigmoid:
            gates = [gate.sigmoid() for gate in gates]
        if self.activate_out:
            outs = [out.relu() for out in outs]
        return self.join_norm(self.join(gates[0] * outs[0] + gates[1] * outs[1])).relu()


class Stage(nn.Module):
    """Features of each kernel's mask update the kernels, which look at each other and make new masks.

    Args:
        channels: width of features and kernels.
        kernel_channels: width of the parts in which a kernel is updated.
        heads: heads of the attention among the kernels.
        feedforward: hidden width behind it; 0 leaves the feed-forward out.
        mask_layers: layers between a kernel and the weights of its mask.
        transform: a 1x1 convolution on the features.
        dropout: rate of dropout in attention and feed-forward.
        update: further arguments of `KernelUpdate`.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_channels: int,
        heads: int,
        feedforward: int,
        mask_layers: int,
        transform: bool,
        dropout: float,
        **update: bool,
    ):
        super().__init__()
        self.kernel_channels = kernel_channels
        self.transform = nn.Conv2d(channels, channels, 1) if transform else nn.Identity()
        self.update = KernelUpdate(kernel_channels, **update)
        self.attention, self.attention_norm = Attention(channels, heads, dropout), nn.LayerNorm(channels)
        self.feedforward = FeedForward(channels, feedforward, dropout) if feedforward else None
        self.feedforward_norm = nn.LayerNorm(channels) if feedforward else None
        self.dropout = nn.Dropout(dropout if feedforward else 0.0)
        self.mask_layers = nn.Sequential()
        for _ in range(mask_layers):
            self.mask_layers.extend(
                [nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU(inplace=True)]
            )
        self.mask_weights = nn.Linear(channels, channels)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
        start_uniform(self)

    def forward(self, x: Tensor, kernels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (B, D, h, w), kernels (B, K, D), logits (B, K, h, w) to new logits and kernels."""
        x = self.transform(x)
        with without_autocast(x):  # a sum over all pixels
            masks = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=1)
            found = torch.einsum("bkhw,bdhw->bkd", masks, x.to(masks.dtype))
        parts = (each.reshape(-1, self.kernel_channels) for each in (found, kernels))
        kernels = self.update(*parts).reshape(kernels.shape)
        kernels = self.attention_norm(kernels + self.attention(kernels, kernels, kernels))
        if self.feedforward is not None:
            kernels = self.feedforward_norm(kernels + self.dropout(self.feedforward(kernels)))
        weights = self.mask_weights(self.mask_layers(kernels))
        return torch.einsum("bkd,bdhw->bkhw", weights, x), kernels
