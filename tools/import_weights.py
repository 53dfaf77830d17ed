"""Turn a network of another project into a checkpoint of ours, and say what became of every tensor.

    python tools/import_weights.py segformer_mit-b0_ade20k.pth segformer_b0_ade20k.pth
    python tools/import_weights.py upernet-swin-tiny/ upernet_swin_t.pth

SRC is a checkpoint of OpenMMLab, a Hugging Face folder (config.json and weights), or weights of torchvision's
or segmentation_models.pytorch's networks, as .pth or .safetensors. The project is recognised by the content.
With --NUM_CLASS or --BANDS the network is made for other classes (the classifier starts anew) or other bands
(the first convolution is adapted), to be trained further from OUT with --PRETRAIN_MODEL.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

from nets.errors import UserError  # noqa: E402
from utils.flag_types import number  # noqa: E402
from utils.program import run_program  # noqa: E402


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("SRC", type=Path, help="file or folder of another project")
    parser.add_argument("OUT", type=Path, help="checkpoint to write (.pth)")
    parser.add_argument("--PARTIAL", action="store_true", help="leave out, and name, what cannot be placed")
    parser.add_argument("--NUM_CLASS", type=number(int, 2), help="classes; default: the file's")
    parser.add_argument("--BANDS", type=number(int, 1), help="bands of an image; default: the file's")
    parser.add_argument(
        "--STEM_INIT",
        default="rgb_mean",
        choices=("rgb_mean", "random", "repeat"),
        help="the first convolution with other --BANDS, as in train.py (default: rgb_mean)",
    )
    return parser.parse_args(arguments)


def convert(options: argparse.Namespace) -> list[str]:
    """Write the checkpoint and return the report.

    Raises:
        UserError: a file that is ours already or of nobody known, or tensors that do not fit.
    """
    from nets.importers.foreign import build_foreign, read_foreign
    from nets.importers.weight_files import read_weight_file, weights_in
    from utils.checkpoint import is_ours, network_state, versions, write_checkpoint

    content = read_weight_file(options.SRC)
    if is_ours(content):
        raise UserError(f"{options.SRC} is a checkpoint of train.py already; use it as it is")
    foreign = read_foreign(content, options.SRC, partial=options.PARTIAL)
    network, left_out = build_foreign(foreign, partial=options.PARTIAL)
    left_out = [*(f"{name}: no place in this network" for name in foreign.unplaced), *left_out]
    report = describe(foreign.source, network, len(weights_in(content)), left_out)
    if (options.NUM_CLASS or network.num_classes, options.BANDS or network.bands) != (
        network.num_classes,
        network.bands,
    ):
        network, changes = adapt(network, options)
        report += ["adapted:", *(f"  {line}" for line in changes)]
    about = {key: value for key, value in network.about.items() if key != "assumed"}
    checkpoint = {**about, "state_dict": network_state(network), "versions": versions()}
    write_checkpoint(options.OUT, checkpoint)
    return [*report, f"written     {options.OUT}"]


def describe(source: str, network, tensors: int, left_out: list[str]) -> list[str]:
    """Return the report on a network: what was found, where the tensors went, what was assumed."""
    options, about = network.blueprint["options"], network.about
    weights = sum(tensor.numel() for tensor in network.state_dict().values())
    names = about["classes"]["names"]
    return [
        f"source      {source}, {tensors} tensors",
        f"network     {network.blueprint['name']}",
        *(f"  {key} = {value}" for key, value in options.items()),
        f"classes     {len(names)}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}",
        f"bands       {', '.join(about['bands']['names'])}",
        f"values      {weights:,} in {len(network.state_dict())} tensors",
        *(f"assumed     {line}" for line in about["assumed"]),
        "placed      every tensor, none is left over" if not left_out else f"not placed  {len(left_out)}",
        *(f"  {line}" for line in left_out),
    ]


def adapt(network, options: argparse.Namespace) -> tuple[object, list[str]]:
    """Return the network for other classes or bands, and one line per tensor that changed."""
    from nets import create_model
    from nets.importers.about import describe_import
    from utils.checkpoint import load_matching

    given, about = network.blueprint["options"], network.about
    bands, classes = options.BANDS or network.bands, options.NUM_CLASS or network.num_classes
    adapted = create_model(
        network.blueprint["name"], **{**given, "bands": bands, "num_classes": classes}
    ).eval()
    changes = load_matching(
        adapted, {"state_dict": network.state_dict()}, options.SRC, stem_init=options.STEM_INIT
    )
    same_bands, same_classes = bands == network.bands, classes == network.num_classes
    describe_import(
        adapted,
        about["source"],
        mean=network.mean.tolist() if same_bands else None,
        std=network.std.tolist() if same_bands else None,
        band_names=about["bands"]["names"] if same_bands else None,
        class_names=about["classes"]["names"] if same_classes else None,
        colors=about["classes"]["colors"] if same_classes else None,
        label_offset=about["classes"]["table"][0][0] if same_classes else 0,
        crop_size=about["crop_size"],
        epoch=about["epoch"],
    )
    return adapted, changes


def main(arguments: list[str] | None = None) -> None:
    """Convert and print the report."""
    print("\n".join(convert(read_options(arguments))))


if __name__ == "__main__":
    sys.exit(run_program(main))
