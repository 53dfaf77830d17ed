"""Compare runs: one table and plots of their scores, sizes and speeds.

python compare.py pth_files/unet_resnet50 pth_files/segformer_b0
python compare.py pth_files --OUTPUT comparison
"""

import sys

from utils.options import compare_options
from utils.program import run_program


def main(argv: list[str] | None = None) -> None:
    """Compare the runs that are named, or those in a folder, and write the results to --OUTPUT."""
    options = compare_options(argv)
    # Heavy imports come after the flags, so that --help and a mistyped flag answer at once.
    from pathlib import Path

    from utils.evaluation.compare import console_table, find_runs, read_run, write_comparison

    runs = [read_run(folder) for folder in find_runs([Path(path) for path in options.RUNS])]
    print("\n".join(console_table(runs)))
    output = Path(options.OUTPUT)
    write_comparison(runs, output)
    print(f"\ntables, plots and {output / 'comparison.html'} are written")


if __name__ == "__main__":
    sys.exit(run_program(main))
