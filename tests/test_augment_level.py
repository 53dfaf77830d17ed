"""The table of levels and what may stand behind --AUGMENT."""

import argparse

import pytest

from nets.errors import UserError
from utils.data.augment_level import DEFAULT, KEYS, LEVELS, NOTHING, Level, parse_level, suit_bands
from utils.flags import DATA
from utils.options import train_options


def test_the_table_is_what_the_flag_offers():
    flag = next(flag for flag in DATA[1] if flag.name == "AUGMENT")
    assert flag.default == DEFAULT and all(name in flag.metavar for name in LEVELS)
    assert all(key in flag.help for key in KEYS)
    for name, values in LEVELS.items():
        level = parse_level(name)
        assert level == Level(name, **values)
        assert {key: getattr(level, key) for key in values} == values
        assert values.keys() == level.active.keys() - {"chance"}, "a key of the table that changes nothing"


def test_old_levels_are_what_they_were():
    assert LEVELS["none"] == {} and LEVELS["light"] == {"scale": (0.5, 2.0)}
    assert LEVELS["standard"] == {"scale": (0.5, 2.0), "brightness": 0.1, "contrast": 0.1}
    assert parse_level("standard").chance == 0.5
    assert set(LEVELS["strong"]) == set(KEYS) - {"chance"}


def test_keys_change_a_level():
    level = parse_level(" Strong, rotate=30,SCALE=0.8:1.2 ,mosaic=0")
    assert (level.rotate, level.scale, level.mosaic, level.noise) == (30, (0.8, 1.2), 0, 0.05)
    assert level.name == "strong" and level.given == ("rotate", "scale", "mosaic")
    assert parse_level("none,scale=1.5").scale == (1.5, 1.5)
    assert parse_level("rotate=5") == parse_level("standard,rotate=5")
    assert NOTHING.active == {} and NOTHING.describe() == "none: nothing"
    text = parse_level("light,rotate=15,cutmix=0.25").describe()
    assert text == (
        "light: scale 0.5:2 times, rotate 15 degrees, cutmix 0.25 of the crops, chance 0.5 for each piece"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strnog", "no level is named 'strnog'; nearest: strong; allowed are none, light, standard, strong"),
        ("rotate", "give rotate=NUMBER"),
        ("standard,rotat=3", "no key is named 'rotat'; nearest: rotate, contrast; there are: scale"),
        ("rotate=3,light", "light is a level; give one level, before the keys"),
        ("light,rotate=3,rotate=4", "rotate is given twice"),
        ("light,rotate=much", "rotate=much is given; a number is wanted"),
        ("light,rotate=1:2", "a number is wanted"),
        ("light,rotate=", "rotate= is given"),
        ("light,scale=1:2:3", "a number or two like 0.5:2 are wanted"),
        ("light,scale=2:1", "the smaller number first"),
        ("light,scale=0:1", "scale=0:1 is given; from 0.05 to 20 is allowed"),
        ("light,rotate=181", "rotate=181 is given; from 0 to 180 is allowed"),
        ("light,noise=-1", "from 0 to 10"),
        ("light,noise=nan", "from 0 to 10"),
        ("light,cutmix=0.7,mosaic=0.5", "together they must be at most 1"),
    ],
)
def test_mistakes_are_one_line(text, message):
    with pytest.raises(UserError) as raised:
        parse_level(text)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(UserError) as raised:
        train_options(["--AUGMENT", text])
    assert message in str(raised.value) and str(raised.value).startswith("argument --AUGMENT")


def test_the_flag_keeps_what_was_typed():
    options = train_options(["--AUGMENT", "strong,rotate=30"])
    assert isinstance(options, argparse.Namespace) and options.AUGMENT == "strong,rotate=30"


def test_what_bands_do_not_allow_is_left_out_or_refused():
    strong = parse_level("strong")
    level, notices = suit_bands(strong, 8, rgb=False)
    assert level.color == 0 and level.band_dropout == 0.05 and len(notices) == 1
    assert "color is left out, because the bands are not red, green and blue" in notices[0]
    level, notices = suit_bands(strong, 3, rgb=True)
    assert level.color == 0.5 and level.band_dropout == 0 and "band_dropout is left out" in notices[0]
    level, notices = suit_bands(strong, 1, rgb=False)
    assert level.color == level.band_dropout == 0 and len(notices) == 2
    level, notices = suit_bands(parse_level("strong,band_dropout=0.2"), 3, rgb=True)
    assert level.band_dropout == 0.2 and not notices
    with pytest.raises(UserError, match="--AUGMENT color is not possible: the bands are not red"):
        suit_bands(parse_level("light,color=1"), 4, rgb=False)
    with pytest.raises(UserError, match="there is one band; leave band_dropout out"):
        suit_bands(parse_level("band_dropout=0.1"), 1, rgb=False)
    assert suit_bands(parse_level("light,color=0"), 4, rgb=False)[1] == []
