"""A checkpoint back to its network: `load_network(path)`; as a program it prints the network.

python Structure.py --WEIGHTS pth_files/unet_resnet50/best.pth
python Structure.py --LIST
"""

import sys
from pathlib import Path

from nets.errors import UserError
from utils.options import structure_options
from utils.program import run_program


def load_network(path: str | Path):
    """Return the network of a checkpoint in eval mode on the CPU; nothing but the file is needed.

    Networks of other projects are recognised by the file's content: OpenMMLab's from the configuration
    inside, Hugging Face's from their folder, torchvision's and segmentation_models.pytorch's from the names
    of their tensors.

    Args:
        path: a file that train.py wrote, one of these projects' files (.pth, .safetensors), a folder of
            Hugging Face, or an ONNX file that export.py wrote, which can predict and has no layers.

    Returns:
        The network; `network.about` has everything the file knows but tensors: blueprint, classes, bands,
        crop_size, metrics, epoch, options.

    Raises:
        UserError: no such file, damaged, or of a kind that cannot be rebuilt.
    """
    from nets import create_model
    from nets.importers.foreign import load_foreign
    from nets.importers.weight_files import read_weight_file
    from utils.checkpoint import is_ours, upgrade
    from utils.deployment.onnx_network import load_onnx

    if Path(path).suffix.lower() == ".onnx":
        return load_onnx(path)
    content = read_weight_file(path)
    if not is_ours(content):
        return load_foreign(content, path)
    checkpoint = upgrade(content, path)
    network = create_model(checkpoint["blueprint"]["name"], **checkpoint["blueprint"]["options"])
    network.load_state_dict(checkpoint["state_dict"])
    network.about = {key: value for key, value in checkpoint.items() if key not in ("state_dict", "training")}
    return network.eval()


def main(argv: list[str] | None = None) -> None:
    """Print the network of a checkpoint, or the list of what can be built."""
    options = structure_options(argv)
    from utils.structure_report import describe_checkpoint, describe_registry

    if options.LIST:
        print("\n".join(describe_registry()))
        return
    if Path(options.WEIGHTS).suffix.lower() == ".onnx":
        raise UserError(f"{options.WEIGHTS} has no layers to show; give the checkpoint it was made from")
    network = load_network(options.WEIGHTS)
    print("\n".join(describe_checkpoint(network, options.DEPTH)))


if __name__ == "__main__":
    sys.exit(run_program(main))
