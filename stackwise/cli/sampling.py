"""`stackwise sample`: let a run's rack write text, and watch it do so.

What the samplers are and which knobs they have is read from their registry.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stackwise.printing import say

if TYPE_CHECKING:
    from stackwise.choice import Params
    from stackwise.data.tokenizer import Tokenizer
    from stackwise.sampling import Step

UP, CLEAR_REST = "\x1b[{}F", "\x1b[J"
SAMPLE_MORE = """examples:
  stackwise sample RUN "In the beginning" --stream
  stackwise sample RUN --method ancestral:cosine --steps 16
  stackwise sample RUN --method remask --set eta=0.05 --set sigma=rescale
  stackwise sample RUN --method semi_autoregressive --set block=16 --set inner=margin"""


class MethodAction(argparse.Action):
    """--method, whose help is made of the registry when it is asked for: that loads torch."""

    @property
    def help(self) -> str:
        """Every sampler, with its knobs."""
        return _method_help()

    @help.setter
    def help(self, text: str) -> None:
        pass  # argparse sets it

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Keep the value."""
        setattr(namespace, self.dest, values)


def _method_help() -> str:
    from stackwise.choice import params_of
    from stackwise.sampling import SAMPLERS

    told = []
    for name in SAMPLERS:
        knobs = list(params_of(SAMPLERS, name, "method", "kind").model_fields)[1:]
        told.append(f"{name} ({', '.join(knobs)})" if knobs else name)
    return (
        f"with the knobs that --set takes: {', '.join(told)}; default: autoregressive for a rack "
        "trained with clm, else ancestral"
    )


def add_sample_options(text: argparse.ArgumentParser) -> None:
    """The options of `stackwise sample`, after RUN."""
    text.add_argument("prompt", nargs="?", default="", help="the text to continue (default: none)")
    text.add_argument("--length", type=int, default=64, help="tokens to add (default 64)")
    text.add_argument(
        "--steps", type=int, default=None, help="denoising steps; default: one per token"
    )
    text.add_argument("--method", default=None, action=MethodAction)
    text.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a knob of the method"
    )
    text.add_argument(
        "--temperature", type=float, default=1.0, help="0: the likeliest tokens (default 1)"
    )
    text.add_argument("--top-k", type=int, default=None, help="choose among the k likeliest tokens")
    text.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        help="choose among the likeliest tokens that have this probability together (default 1)",
    )
    text.add_argument("--seed", type=int, default=0, help="of every random choice (default 0)")
    text.add_argument(
        "--stream",
        action="store_true",
        help="show the text while it is written: redrawn in a terminal, else a line per step",
    )


def sample_command(options: argparse.Namespace) -> int:
    """Write text."""
    import numpy as np
    import torch

    from stackwise.config import Placement
    from stackwise.objective import is_causal
    from stackwise.runs import attach
    from stackwise.runs.carried import check_trusted
    from stackwise.sampling.asked import block_in, check_choosing, check_prompt
    from stackwise.sampling.stream import stream
    from stackwise.training.start import lent_from

    check_text(options.prompt)
    run = attach(options.run, options.runs_dir)
    check_trusted(run, options.trust)
    objective = run.experiment.objective
    method = check_sampling(options, objective.choice, is_causal(objective))
    top = {"top_k": options.top_k, "top_p": options.top_p}
    check_choosing(options.steps, options.temperature, seed=options.seed, **top)
    rack = run.rack(lent=lent_from(Placement.load(run.path / "placement.yaml")))
    tokenizer = run.tokenizer()
    prompt_P = torch.from_numpy(np.asarray(tokenizer.encode(options.prompt), dtype=np.int64))
    check_prompt(rack, prompt_P, options.length)
    if (block := block_in(rack.objective, len(prompt_P) + options.length)) is not None:
        method = check_sampling(options, objective.choice, False, block)
    steps = stream(
        rack,
        prompt_P,
        length=options.length,
        steps=options.steps,
        method=method,
        temperature=options.temperature,
        seed=options.seed,
        **top,
    )
    if options.stream:
        last = show(steps, tokenizer, rack.mask_id)
    else:
        *_, last = steps
    say(tokenizer.decode(last.ids_BT[0].cpu().numpy()))
    return 0


def show(steps: Iterator[Step], tokenizer: Tokenizer, mask_id: int) -> Step:
    """Print the text after every step; the last step."""
    drawn, lines = sys.stdout.isatty(), 0
    for step in steps:
        said = line_of(step, tokenizer, mask_id)
        if drawn:
            width = shutil.get_terminal_size().columns
            print(redraw(said, lines, width), end="", flush=True)
            lines = height(said, width)
        else:
            print(said, flush=True)
    return step


def line_of(step: Step, tokenizer: Tokenizer, mask_id: int) -> str:
    """One step in one line: what it did, what all took so far, and the text."""
    from stackwise.printing import printable
    from stackwise.sampling.stream import text_of

    back = f", {int(step.back_BT.sum())} masked again" if step.back_BT.any() else ""
    took = f"{step.forwards} reads, {step.flops or 0:.3g} FLOPs"
    text = text_of(step.ids_BT[0].cpu(), tokenizer, mask_id).replace("\n", " ")
    return (
        f"step {step.number}: {int(step.new_BT.sum())} filled{back}, {step.left} left; {took} | "
        f"{printable(text)}"
    )


def redraw(line: str, lines: int, width: int) -> str:
    """What puts a line, wrapped, where the `lines` lines before it stood."""
    wrapped = [line[i : i + width] for i in range(0, len(line), width)]
    return (UP.format(lines) if lines else "") + CLEAR_REST + "\n".join(wrapped) + "\n"


def height(line: str, width: int) -> int:
    """Lines of a terminal that it takes."""
    return max(1, -(-len(line) // width))


def check_text(prompt: str) -> None:
    """Refuse bytes of the command line that are no text."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"prompt: character {error.start} is not UTF-8 text") from None


def check_sampling(
    options: argparse.Namespace, objective: str, causal: bool, block: int | None = None
) -> Params:
    """The sampler that is asked for; refused if a rack of this objective does not read so.

    Raises:
        ExperimentError: If it does not, the sampler or a knob of it is wrong, or it takes no steps
            and some are given.
    """
    from stackwise.choice import parse
    from stackwise.errors import ExperimentError
    from stackwise.sampling import SAMPLERS
    from stackwise.sampling.asked import (
        USUAL,
        check_blocks,
        check_direction,
        check_steps,
        knobs_under,
        usual_method,
    )

    if options.method == "":
        raise ExperimentError("--method: is empty; name a method or leave it out")
    if causal and options.steps is not None:
        raise ExperimentError(
            f"--steps: {options.steps} is not read with objective={objective}, which writes one "
            "token at a time; leave it out"
        )
    usual = usual_method(causal) if block is None else USUAL
    with knobs_under("--method "):
        params = parse(SAMPLERS, options.method or usual, "method", "kind")
    check_direction("--method", params.choice, objective, causal)
    with knobs_under("--set "):
        params = params.replace(**knobs(options.set))
    if block is not None:
        check_blocks("--method", params, block)
    check_steps("--steps", options.steps, params, f"--method {options.method or params.choice}")
    return params


def knobs(said: list[str]) -> dict[str, Any]:
    """`key=value` of --set, as keys and values.

    Raises:
        ExperimentError: If one is not of this form.
    """
    from stackwise.cli.settings import parsed
    from stackwise.errors import ExperimentError, short

    found = {}
    for each in said:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise ExperimentError(f"--set: {short(each)} is no KEY=VALUE, as eta=0.05 is")
        found[key] = parsed(value, key)
    return found
