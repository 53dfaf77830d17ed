"""What `Structure.py --LIST` prints."""

import inspect
import re

import pytest

from nets import list_models
from nets.backbones.table import ENTRIES, describe_backbones
from nets.registry import get_builder, list_options
from utils import structure_report


@pytest.fixture(scope="module")
def lines():
    return structure_report.describe_registry()


@pytest.mark.parametrize("family", list_models())
def test_a_family_with_its_variants_and_options(family, lines):
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{family} "))
    own = lines[start + 1 : lines.index("", start)]
    assert own[0].split()[0] == "--BACKBONE_TYPE"
    options = list_options(get_builder(family))
    assert [re.match(r"  --MODEL_OPTIONS (\w+)= ", line)[1] for line in own[1:]] == list(options)
    default = inspect.signature(get_builder(family)).parameters["backbone"].default
    assert own[0].endswith(f" {default}") and "dict" not in " ".join(own)


def test_variants(lines):
    backbones = [line for line in lines if "--BACKBONE_TYPE  " in line]
    assert any(re.search(r"  b0, b1, b2, b3, b4, b5 +b0$", line) for line in backbones)
    assert any(re.search(r"  none, s5_d16, any backbone +resnet50$", line) for line in backbones)


def test_every_backbone_with_what_it_can_do(lines):
    rows = lines[next(i for i, line in enumerate(lines) if line.startswith("BACKBONES")) :]
    heading = next(line for line in rows if "also called" in line)
    starts = [heading.index(title) for title in ("strides", "output", "weights", "also called")]
    found = {line.split()[0]: line for line in rows if line.startswith("  ") and line != heading}
    assert list(found) == list(ENTRIES)
    for row in describe_backbones():
        line = found[row["name"]].ljust(200)
        cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        assert cells == [
            ", ".join(map(str, row["strides"])),
            ", ".join(map(str, row["output_strides"])) or "-",
            row["pretrained"] or "-",
            ", ".join(row["short_names"]),
        ]
        assert row["paper"] in rows


def test_the_lists_need_no_counting_libraries():
    # They take longer to import than the rest of the program.
    assert not {"thop", "torchinfo"} & set(vars(structure_report))
