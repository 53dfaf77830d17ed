import json
import pickle

import numpy as np
import pytest

from nets.errors import UserError
from utils.data.classes_file import read_classes_json
from utils.data.labels import (
    IGNORE,
    Classes,
    LabelValueError,
    default_colors,
    palette_colors,
)

CLASSES = Classes(("a", "b", "c"), default_colors(3), {0: 0, 1: 1, 700: 2}, (255, -1, 2**31 - 1))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "int32", "uint64", "int64"])
def test_encode_any_dtype(dtype):
    label = np.array([[0, 1, 700, 255]], dtype=dtype)
    encoded = CLASSES.encode(label)
    assert encoded.dtype == np.int16 and encoded.tolist() == [[0, 1, 2, IGNORE]]


def test_encode_does_not_wrap():
    with pytest.raises(LabelValueError, match="label value 256 in 2 pixels; allowed are 0, 1, 700") as error:
        CLASSES.encode(np.array([256, 256, 257, 0], dtype=np.uint16))
    assert (error.value.value, error.value.count) == (256, 2)
    with pytest.raises(LabelValueError, match="label value 65535 in 1 pixels"):
        CLASSES.encode(np.array([65535], dtype=np.uint16))  # -1 in int16, but not here
    with pytest.raises(LabelValueError, match=str(2**64 - 1)):
        CLASSES.encode(np.array([2**64 - 1], dtype=np.uint64))
    assert CLASSES.encode(np.array([-1, 2**31 - 1, 700])).tolist() == [IGNORE, IGNORE, 2]


def test_invalid_pixels_may_hold_anything():
    label = np.array([9999, 1, 9999])
    assert CLASSES.encode(label, np.array([False, True, False])).tolist() == [IGNORE, 1, IGNORE]


def test_classes_survive_json_and_pickle():
    assert Classes.from_dict(json.loads(json.dumps(CLASSES.to_dict()))) == CLASSES
    CLASSES.encode(np.array([0]))
    assert pickle.loads(pickle.dumps(CLASSES)) == CLASSES
    error = LabelValueError(3, 4, "0, 1")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_default_colors_are_distinct():
    assert len(set(default_colors(400))) == 400
    assert default_colors(5) == default_colors(9)[:5]


def test_palette_that_tells_nothing_is_not_used():
    assert palette_colors({0: (0, 0, 0), 1: (1, 1, 1)}, (0, 1)) is None
    assert palette_colors({0: (9, 0, 0), 1: (9, 0, 0)}, (0, 1)) is None
    assert palette_colors({0: (9, 0, 0)}, (0, 1)) is None
    assert palette_colors({0: (9, 0, 0), 255: (1, 9, 1)}, (0, 255)) == ((9, 0, 0), (1, 9, 1))


@pytest.mark.parametrize(
    ("text", "ignored"),
    [
        ("{}", (255, -1)),
        ('{"ignore_index": null}', ()),
        ('{"ignore_index": 11}', (11,)),
        ('{"ignore_index": [0, 255]}', (0, 255)),
    ],
)
def test_ignore_index(tmp_path, text, ignored):
    (tmp_path / "classes.json").write_text(text, encoding="utf-8-sig")
    assert read_classes_json(tmp_path / "classes.json").ignored == ignored


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "holds a list"),
        ('{"names": ["a", "b"], "num_classes": 3}', '"num_classes" says 3, "names" says 2'),
        ('{"names": ["a", "a"]}', "twice"),
        ('{"names": [1]}', "list of names"),
        ('{"palette": [[1, 2]]}', "palette"),
        ('{"palette": [[1, 2, 300]]}', "palette"),
        ('{"num_classes": "3"}', "whole number"),
        ('{"ignore_index": "x"}', "ignore_index"),
    ],
)
def test_malformed_classes_json(tmp_path, text, message):
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_classes_json(tmp_path / "classes.json")
