"""`stackwise sample` with the knobs of the registry, and --stream."""

import argparse
import re
import sys

import numpy as np
import pytest
import torch

import stackwise as sw
from stackwise.cli.arguments import parser
from stackwise.cli.sampling import check_sampling, height, line_of, redraw, show
from stackwise.sampling import SAMPLERS


class Letters:
    """Ids as letters; 4 is a newline."""

    def decode(self, ids):
        return "".join("abcd\n"[i] for i in ids)


def options(**given):
    return argparse.Namespace(**{"method": None, "steps": None, "set": [], **given})


def test_knobs_reach_the_sampler():
    said = ["block=4", "inner=margin"]
    params = check_sampling(options(method="semi_autoregressive", set=said), "diffusion", False)
    assert params == SAMPLERS["semi_autoregressive"].params(block=4, inner="margin")
    said = ["eta=0.1", "confidence=true"]
    params = check_sampling(options(method="remask:rescale", set=said), "diffusion", False)
    assert (params.sigma, params.eta, params.confidence) == ("rescale", 0.1, True)
    assert check_sampling(options(), "clm", True).choice == "autoregressive"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"set": ["eta"]}, "--set: 'eta' is no KEY=VALUE, as eta=0.05 is"),
        ({"set": ["eta=1"]}, "eta"),
        ({"method": "remask", "set": ["eta=2"]}, "--set eta: 2 must be 1 or less"),
        (
            {"method": "first_hitting", "steps": 4},
            "--steps: 4 is not read with --method first_hitting, which says by itself how many "
            "steps there are; leave it out",
        ),
        ({"method": "entropy", "set": ["per_step=2"], "steps": 4}, "--steps: 4 is not read with"),
        (
            {"method": "autoregressive"},
            "--method: 'autoregressive' reads from left to right, which objective=diffusion does",
        ),
    ],
)
def test_knobs_that_are_not_read_are_refused(given, text):
    with pytest.raises(sw.ExperimentError) as error:
        check_sampling(options(**given), "diffusion", False)
    assert text in str(error.value)


def test_help_names_every_sampler_and_every_knob(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["sample", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for name, entry in SAMPLERS.items():
        knobs = list(entry.params.model_fields)[1:]
        assert (f"{name} ({', '.join(knobs)})" if knobs else name) in shown


def test_each_step_is_a_line_where_there_is_no_terminal(rack_of, capsys):
    rack = rack_of(vocab=5)
    last = show(sw.stream(rack, [], length=6, method="random:2"), Letters(), rack.mask_id)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == last.number == 3
    for number, line in enumerate(lines, 1):
        found = re.fullmatch(
            rf"step {number}: 2 filled, (\d) left; {number} reads, .*FLOPs \| (.*)", line
        )
        assert found and int(found[1]) == found[2].count("\u2592") == 6 - 2 * number


def test_what_is_masked_again_is_said(rack_of):
    rack = rack_of()
    method = {"kind": "remask", "eta": 1.0}
    steps = list(sw.stream(rack, np.zeros(0), length=12, method=method, steps=12))
    lines = [line_of(step, Letters(), rack.mask_id) for step in steps]
    assert any("masked again" in line for line in lines)
    assert "masked again" not in lines[-1]


def test_a_terminal_is_drawn_over(rack_of, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    rack = rack_of()
    show(sw.stream(rack, [], length=3, method="random"), Letters(), rack.mask_id)
    first, *rest = capsys.readouterr().out.split("\x1b[J")[1:]
    assert "step 1" in first and len(rest) == 2
    assert re.search(r"\x1b\[\d+F$", first), "back up over the lines before"


@pytest.mark.parametrize(("length", "lines"), [(0, 1), (1, 1), (10, 1), (11, 2), (25, 3)])
def test_a_line_is_as_high_as_it_wraps(length, lines):
    assert height("x" * length, 10) == lines
    drawn = redraw("x" * length, 0, 10)
    assert max(1, drawn.count("\n")) == lines


def test_text_that_a_terminal_would_obey_is_not_sent(rack_of):
    class Escapes:
        def decode(self, ids):
            return "\x1b[2J" * len(ids)

    rack = rack_of()
    (step, *_) = sw.stream(rack, torch.zeros(2), length=1, method="random")
    assert "\x1b" not in line_of(step, Escapes(), rack.mask_id)
