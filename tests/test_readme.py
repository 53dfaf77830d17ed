"""What the READMEs say is what is there."""

import re

import pytest

from tests.helpers import ROOT
from tools import readme_table
from utils.options import train_options

READMES = ["README.md", "README.zh-CN.md"]


@pytest.mark.parametrize("readme", READMES)
def test_the_table_of_networks_is_todays(readme):
    text = (ROOT / readme).read_text(encoding="utf-8")
    assert readme_table.updated(readme) == text, "run: python tools/readme_table.py"


@pytest.mark.parametrize("readme", READMES)
def test_programs_files_and_flags_exist(readme):
    text = (ROOT / readme).read_text(encoding="utf-8")
    for program in re.findall(r"python (\S+\.py)", text):
        assert (ROOT / program).is_file(), program
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
    for command in re.findall(r"^python train\.py (.+)$", text, re.MULTILINE):
        train_options(command.split())


def test_both_languages_have_the_same_commands():
    commands = [
        re.findall(
            r"^(?:python|pip|make) .+?(?=\s*#|$)", (ROOT / readme).read_text(encoding="utf-8"), re.MULTILINE
        )
        for readme in READMES
    ]
    assert commands[0] == commands[1]


def test_every_idea_is_there_in_chinese():
    from nets.registry import list_models
    from tools.ideas_zh import IDEAS

    assert set(list_models()) == set(IDEAS)


@pytest.mark.parametrize("readme", READMES)
def test_the_number_of_families(readme):
    from nets.registry import list_models

    text = (ROOT / readme).read_text(encoding="utf-8")
    said = re.search(r"\*\*(\d+) (?:families of networks|个网络族)\*\*", text)
    assert int(said[1]) == len(list_models())
