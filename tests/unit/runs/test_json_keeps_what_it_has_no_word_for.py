"""Every line that we write is JSON to every reader, and numbers come back as they were."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackwise.jsontext import NUMBERS, dumps, loads

texts = st.text().filter(lambda text: text not in NUMBERS)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
values = st.recursive(scalars, lambda v: st.lists(v) | st.dictionaries(texts, v), max_leaves=6)


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


@given(values)
def test_what_is_written_is_json_and_reads_back_equal(value) -> None:
    text = dumps(value)
    json.loads(text, parse_constant=refuse)
    assert loads(text) == value


def test_nan_is_written_as_text_and_read_as_nan() -> None:
    assert dumps({"loss": math.nan}) == '{"loss": "NaN"}'
    assert math.isnan(loads('{"loss": "NaN"}')["loss"])


def test_numpy_numbers_are_numbers() -> None:
    written = {"a": np.int64(3), "b": np.float32(0.5), "c": (np.float64("inf"),), "d": {"y", "x"}}
    assert loads(dumps(written)) == {"a": 3, "b": 0.5, "c": [math.inf], "d": ["x", "y"]}


def test_what_has_no_json_is_named() -> None:
    with pytest.raises(TypeError) as error:
        dumps({"rack": [object]})
    assert str(error.value) == "a type cannot be written as JSON: <class 'object'>"


def test_endless_nesting_is_a_plain_error() -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        loads("[" * 100_000)


@pytest.mark.parametrize("number", ["9" * 309, "-" + "9" * 309, "1" + "0" * 4000])
def test_a_whole_number_that_no_float_holds_is_a_plain_error(number) -> None:
    for text in (number, f'[{{"a": [{number}]}}]'):
        with pytest.raises(ValueError, match="a number of over 308 digits"):
            loads(text)
    assert loads(f'"{number}"') == number and loads("1" + "0" * 308) == 10**308
