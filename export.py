"""Write a trained network as one file for other programs, and check the file against the network.

python export.py --WEIGHTS pth_files/unet_resnet50/best.pth --FORMAT onnx
"""

import sys

from utils.options import export_options
from utils.program import run_program


def main(argv: list[str] | None = None) -> int:
    """Export --WEIGHTS as --FORMAT to --OUTPUT; 1 where the file does not give what the network gives."""
    options = export_options(argv)
    # Heavy imports come after the flags, so that --help and a mistyped flag answer at once.
    from Structure import load_network
    from utils.deployment.check import ExportError
    from utils.deployment.export import export, output_path
    from utils.deployment.formats import FORMATS
    from utils.deployment.metadata import size_rule
    from utils.deployment.real_image import known_image

    chosen = FORMATS[options.FORMAT]
    output = output_path(options.OUTPUT, options.WEIGHTS, chosen)
    network = load_network(options.WEIGHTS)
    print(f"format:  {chosen.title}")
    print(f"images:  float32, {network.bands} bands as in the file, NaN where invalid; batches of any length")
    print(f"size:    {size_rule(network.min_size, network.size_divisor)}")
    image = options.IMAGE or known_image(network)
    print(f"check:   on {image or 'images made from the band statistics; --IMAGE names a real one'}")
    try:
        export(network, chosen, output, image, lambda difference: print(f"check:   {difference}"))
    except ExportError as error:
        print(f"export.py: no {chosen.title} file was written: {error}", file=sys.stderr)
        return 1
    print(f"written: {output} ({output.stat().st_size / 2**20:.1f} MiB)")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
