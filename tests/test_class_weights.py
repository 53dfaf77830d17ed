"""Class weights against hand computation, and every way to give them."""

import json

import pytest

from nets.errors import UserError
from utils.data.class_weights import class_weights

NAMES = ("sky", "road", "small sign")


def test_none_and_lists():
    assert class_weights([1, 2], "none") is None
    assert class_weights([1, 1, 1], "0.03, 0.26,0.71") == [0.03, 0.26, 0.71]


def test_median_frequency():
    assert class_weights([100, 50, 0, 400], "auto") == [1.0, 2.0, 1.0, 0.25]
    assert class_weights([10**6, 10**3, 1], "auto") == [0.1, 1.0, 10.0]


def test_inverse_frequency_has_a_mean_of_one_and_no_limit():
    # 1/10, 1/40, 1/50 are as 20, 5, 4: a mean of 29/3.
    expected = [60 / 29, 15 / 29, 12 / 29]
    assert class_weights([10, 40, 50], "inverse") == pytest.approx(expected)
    assert class_weights([10, 40, 0, 50], "Inverse") == pytest.approx([*expected[:2], 1.0, expected[2]])
    rare = class_weights([10**9, 1], "inverse")
    assert rare[1] / rare[0] == pytest.approx(1e9)


def test_effective_number():
    # A mean of 2 pixels: beta is 1/2, the effective numbers of 1 and 3 are 1 and 1 + 1/2 + 1/4.
    assert class_weights([1, 3], "effective") == pytest.approx([2 / (1 + 4 / 7), 2 * (4 / 7) / (1 + 4 / 7)])
    # Far below the mean as one over the frequency, far above hardly different from each other.
    weights = class_weights([10**3, 10**4, 10**9, 2 * 10**9, 0], "effective")
    assert weights[0] / weights[1] == pytest.approx(10, rel=1e-4)
    assert 1 < weights[2] / weights[3] < 1.35
    assert sum(weights[:4]) / 4 == pytest.approx(1) and weights[4] == 1
    assert class_weights([5], "effective") == [1.0]
    assert class_weights([1, 1], "effective") == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.json", "[1, 2.5, 3]"),
        ("named.json", json.dumps({"road": 2.5, "small sign": 3, "sky": 1})),
        ("plain.txt", "1 2.5\n3\n"),
        ("commas.csv", "1,2.5,3"),
        ("named.txt", "small sign 3\n\nroad: 2.5\nsky, 1\n"),
        ("without_suffix", "1 2.5 3"),
    ],
)
def test_files(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert class_weights([9, 9, 9], str(path), NAMES) == [1, 2.5, 3]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.json",
            '{"sky": 1, "rood": 1, "small sign": 1}',
            "'rood' that is not there; nearest: road",
        ),
        ("a.json", '{"sky": 1, "road": 1}', "has no weight for small sign; name every class"),
        ("a.json", '{"sky": 1, "road": true, "small sign": 1}', "must hold a list of numbers"),
        ("a.json", "3", "must hold a list of numbers"),
        ("a.json", "[1, 2", "cannot be read"),
        ("a.json", "[1, 2]", "2 class weights were given for 3 classes"),
        ("a.json", "[1, 2, -3]", "not negative"),
        ("a.txt", "sky 1\nroad\nsmall sign 2", "line 'road' is not a class name and a number"),
        ("a.txt", "sky x", "could not convert"),
    ],
)
def test_wrong_files(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        class_weights([1, 1, 1], str(tmp_path / name), NAMES)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2", "2 class weights were given for 3"),
        ("1,x,2", "not numbers"),
        ("invers", "nearest: inverse; allowed are none, auto, inverse, effective, 3 numbers"),
        ("1,-1,1", "finite"),
        ("1,nan,1", "finite"),
        ("inf,1,1", "finite"),
        ("0,0,0", "all zero"),
        ("absent.json", "absent.json cannot be read"),
    ],
)
def test_wrong_class_weights(text, message):
    with pytest.raises(UserError, match=message):
        class_weights([1, 1, 1], text)
