"""Convolution with normalisation and activation."""

from torch import nn


class ConvNormAct(nn.Sequential):
    """Convolution -> batch norm -> ReLU, padded so that stride 1 keeps the size.

    `norm=False` and `act=False` leave a part out; without a norm the convolution has a bias unless `bias`
    says otherwise.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: bool = True,
        act: bool = True,
        bias: bool | None = None,
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=groups,
            bias=not norm if bias is None else bias,
        )
        if norm:
            self.norm = nn.BatchNorm2d(out_channels)
        if act:
            self.act = nn.ReLU(inplace=True)


class ConvGroupNorm(nn.Sequential):
    """Convolution -> group norm -> ReLU, the last one optional, padded so that the size stays."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        norm_groups: int = 32,
        act: bool = True,
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.GroupNorm(norm_groups, out_channels)
        if act:
            self.act = nn.ReLU(inplace=True)


class NormActConv(nn.Sequential):
    """Batch norm -> ReLU -> convolution without bias, padded so that the size stays."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, groups: int = 1):
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.act = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=False
        )


class SeparableConv(nn.Sequential):
    """Depthwise then pointwise convolution, each with batch norm and ReLU (Chollet, Xception, CVPR 2017).

    `norm_between=False` leaves norm and ReLU between the two out, `act_between=False` the ReLU alone; `norm`
    and `act` are those behind the second.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        norm_between: bool = True,
        act_between: bool = True,
        norm: bool = True,
        act: bool = True,
    ):
        super().__init__()
        self.depthwise = ConvNormAct(
            in_channels,
            in_channels,
            kernel_size,
            stride=stride,
            dilation=dilation,
            groups=in_channels,
            norm=norm_between,
            act=norm_between and act_between,
            bias=False,
        )
        self.pointwise = ConvNormAct(in_channels, out_channels, 1, norm=norm, act=act)


def norm_prelu(channels: int, eps: float = 1e-5) -> nn.Sequential:
    """Return batch norm -> PReLU with one slope per channel."""
    return nn.Sequential(nn.BatchNorm2d(channels, eps=eps), nn.PReLU(channels))


def set_norm_eps(module: nn.Module, eps: float) -> None:
    """Set the epsilon of every batch norm and group norm in a module."""
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm)):
            layer.eps = eps


def set_norm_momentum(module: nn.Module, momentum: float) -> None:
    """Set the share of a new batch in the running statistics of every batch norm in a module."""
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.momentum = momentum
