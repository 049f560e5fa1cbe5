"""Text in a field means what `key=value` means; a value becomes text that means it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stackwise as sw
from stackwise.cli.settings import parsed
from stackwise_widgets.form.schema import Spec, everything, specs_of
from stackwise_widgets.form.text import number_text, text_of, value_of


def spec(*types: str, empty: bool = False, literals: tuple[Any, ...] = ()) -> Spec:
    return Spec("x", "text", types=frozenset(types), empty=empty, literals=literals)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (3.5e12, "3.5e12"), (4.8e20, "4.8e20"), (0.005, "0.005"), (1e-5, "1e-5"), (1.0, "1"),
        (10_000.0, "10000"), (1e6, "1e6"), (1.5e-9, "1.5e-9"), (123_456_789.25, "123456789.25"),
        (0.1, "0.1"), (-0.5, "-0.5"), (0.0, "0"), (-2.5e-7, "-2.5e-7"), (5, "5"),
        (999_999, "999999"), (160_000_000_000, "160_000_000_000"),
    ],
)  # fmt: skip
def test_numbers_are_short(number: float, text: str) -> None:
    assert number_text(number) == text


@given(st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers()))
def test_numbers_come_back_to_the_last_bit(number: float) -> None:
    kind = "float" if isinstance(number, float) else "int"
    back = value_of(spec(kind), number_text(number))
    assert back == number and type(number)(back) == number
    exact = value_of(spec("int", "float"), str(text_of(spec("int", "float"), number)))
    assert exact == number and type(exact) is type(number)


@given(st.text(), st.booleans())
def test_strings_come_back(value: str, empty: bool) -> None:
    field = spec("str", empty=empty)
    assert value_of(field, text_of(field, value)) == value


plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.text(),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(plain)
def test_anything_comes_back(value: Any) -> None:
    field = spec("other", empty=True)
    back = value_of(field, text_of(field, value))
    assert back == value and repr(back) == repr(value)  # repr: 1 is not 1.0, and not True


@given(st.lists(st.one_of(st.none(), st.integers()), min_size=0))
def test_lists_come_back(value: list[int | None]) -> None:
    field = spec("int", "list", empty=True)
    assert value_of(field, text_of(field, value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("  ", None), ("null", None), ("8", 8), (" 8 ", 8), ("1e6", 1e6),
        ("3e-4", 3e-4),
        ("1_000", 1000), ("4, null, 5", [4, None, 5]), ("[4, null]", [4, None]), ("4,", [4]),
        ("[1_000, 2]", [1000, 2]), ("[]", []), ("auto", "auto"), ("aut", "aut"), ("0x1F", "0x1F"),
        ("nan", "nan"), ("1e999", "1e999"), ("[4", [("[4")]),
    ],
)  # fmt: skip
def test_what_is_typed_into_a_field_of_numbers(text: str, value: Any) -> None:
    assert value_of(spec("int", "list", empty=True, literals=("auto",)), text) == value


@pytest.mark.parametrize("text", ["123", "null", "true", "[1]", "3e-4", "~", "a, b", "{", "a: b"])
def test_a_field_of_text_takes_text(text: str) -> None:
    assert value_of(spec("str"), text) == text
    assert text_of(spec("str"), text) == text


def test_quotes_say_what_could_not_be_said_else() -> None:
    field = spec("str", empty=True)
    assert (value_of(field, ""), value_of(field, '""'), value_of(field, '"a\\nb"')) == (
        None, "", "a\nb",
    )  # fmt: skip
    assert value_of(field, '"no end') == '"no end'


def numbers() -> Iterator[Spec]:
    for each in everything(specs_of(sw.Experiment)):
        if each.types in ({"int"}, {"float"}):
            yield each


@pytest.mark.parametrize("text", ["5", "0.5", "3e-4", "1e2", "1_000", "-3", "0", "fast", "1.5", ""])
def test_numbers_mean_what_they_mean_on_the_command_line(text: str) -> None:
    for each in (knob for knob in numbers() if "." in knob.path and knob.path.count(".") == 1):
        if each.path.split(".")[0] in ("attention", "objective", "curriculum", "budget"):
            continue  # of kinds, not of the toy

        def made(value: Any, path: str = each.path) -> Any:
            try:
                return sw.Experiment.preset("toy").replace(**{path: value})
            except sw.ExperimentError as error:
                return [problem.path for problem in error.problems]

        assert made(value_of(each, text)) == made(parsed(text, each.path)), each.path
