"""What to do when a batch does not fit in memory: take smaller ones."""

from collections.abc import Callable

import torch
from torch import Tensor

from nets.errors import UserError

Predict = Callable[[Tensor], Tensor]

# How PyTorch says on the CPU, and cuDNN and cuBLAS on the GPU, that there is no memory left.
_SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on the GPU or the CPU."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


class BackingOff:
    """Calls a network with smaller batches from the moment on when one did not fit in memory.

    Args:
        predict: images (B, C, h, w) -> probabilities (B, K, h, w).
        tell: called with a line that says which batch fits.
    """

    def __init__(self, predict: Predict, tell: Callable[[str], object]) -> None:
        self.predict, self.tell = predict, tell
        self.limit: int | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Map images (B, C, h, w) to probabilities (B, K, h, w).

        Raises:
            UserError: not even one window fits.
        """
        while True:
            limit = min(self.limit or len(images), len(images))
            try:
                if limit == len(images):
                    return self.predict(images)
                return torch.cat([self.predict(part) for part in images.split(limit)])
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if limit == 1:
                    height, width = images.shape[-2:]
                    raise UserError(
                        f"a window of {height} x {width} pixels does not fit in memory; "
                        "give a smaller --WINDOW or fewer --TTA factors"
                    ) from error
            # Outside of `except`: the error's traceback holds the tensors that did not fit.
            self.limit = limit // 2
            torch.cuda.empty_cache()
            self.tell(f"memory:  {limit} windows at a time do not fit; going on with {self.limit}")
