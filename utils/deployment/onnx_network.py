"""An ONNX file in place of a network: for prediction and evaluation, without the network's code."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from nets.errors import UserError
from utils.deployment.formats import require_onnx
from utils.deployment.metadata import FORMAT, KEY

# Where PyTorch has the images -> where ONNX Runtime computes, if it was built for it.
_PROVIDERS = {"cuda": "CUDAExecutionProvider"}


class OnnxNetwork(nn.Module):
    """Has what prediction and evaluation use of a network; neither layers nor parameters.

    Args:
        path: a file that export.py wrote.

    Attributes:
        about, bands, num_classes, min_size, size_divisor, task: as the network had them.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._sessions: dict[torch.device, object] = {}
        session = self._session(torch.device("cpu"))
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise UserError(f"{path} does not say what its classes and bands are; use a file of export.py")
        said = json.loads(text)
        if said["format"] > FORMAT:
            raise UserError(
                f"{path} has metadata of format {said['format']}, this version reads {FORMAT}; update it"
            )
        self.about, self.task = said["about"], said["task"]
        self.bands, self.num_classes = said["num_bands"], said["num_classes"]
        self.min_size, self.size_divisor = said["min_size"], said["size_divisor"]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map (B, C, H, W) in data units to {"logits": (B, K, H, W)}, which are probabilities already."""
        session = self._session(images.device)
        try:
            found = session.run(None, {"images": images.float().cpu().numpy()})[0]
        except Exception as error:
            if "allocate memory" in str(error):  # said in a kind of exception of its own
                raise MemoryError(str(error)) from error
            raise
        return {"logits": torch.from_numpy(found).to(images.device)}

    def probabilities(self, outputs: dict[str, Tensor]) -> Tensor:
        """Map the outputs of `forward` to class probabilities (B, K, H, W)."""
        return outputs["logits"]

    def _session(self, device: torch.device) -> object:
        """Return ONNX Runtime's session for images on a device."""
        if device not in self._sessions:
            self._sessions[device] = _open(self.path, device)
        return self._sessions[device]


def _open(path: Path, device: torch.device) -> object:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    providers: list = ["CPUExecutionProvider"]
    wanted = _PROVIDERS.get(device.type)
    if wanted in onnxruntime.get_available_providers():
        providers.insert(0, (wanted, {"device_id": device.index or 0}))
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # a dozen kinds, one for each thing a file can lack
        reason = str(error).strip().splitlines()[0][:160].rstrip(".")
        raise UserError(f"{path} cannot be opened ({reason}); use a file of export.py") from error


def load_onnx(path: str | Path) -> OnnxNetwork:
    """Return the network that an ONNX file stands for.

    Raises:
        UserError: no such file, damaged, not of export.py, or ONNX Runtime is missing.
    """
    require_onnx("onnxruntime")
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a file that export.py wrote")
    return OnnxNetwork(path).eval()
