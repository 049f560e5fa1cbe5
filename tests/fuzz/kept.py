"""Inputs that once ended in a traceback, a hang or too much memory, each by what was wrong with it.

Target, the malformed content, and what is said of it now; none where it is read after all.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .hostile import DEEP
from .targets import targets


@dataclass(frozen=True)
class Kept:
    """One of them.

    Attributes:
        target: By its name.
        content: Made of the target's first valid file.
        said: Part of the message; None: it is no error any more.
    """

    target: str
    content: Callable[[bytes], bytes]
    said: str | None = None

    def made(self) -> bytes:
        """The malformed file."""
        return self.content(targets()[self.target].valid()[0])


def instead(old: str, new: str) -> Callable[[bytes], bytes]:
    """A file with one text in another's place."""

    def change(valid: bytes) -> bytes:
        assert old.encode() in valid, f"{old} is not in {valid[:300]!r}"
        return valid.replace(old.encode(), new.encode("utf-8", "surrogatepass"), 1)

    return change


def just(content: bytes) -> Callable[[bytes], bytes]:
    """A file of its own."""
    return lambda valid: content


def padded(name: str) -> bytes:
    """A JSON value that is nested too deep for Python's reader."""
    return b'{"%s": ' % name.encode() + b"[" * DEEP * 10 + b"]" * DEEP * 10 + b"}"


KEPT = {
    "half a character in a key": Kept(
        "mapping", just(b'{"\\ud800": 1}'), r"'\ud800' is not a key; keys are text"
    ),
    "a key of 70000 letters": Kept(
        "replace", just(b'{"%s": 1}' % (b"A" * 70_000)), "AAA': unknown key"
    ),
    "a key of five thousand levels": Kept("command", just(b"plan\ntoy\n" + b"a." * 5000 + b"b=1")),
    "half a character in a path": Kept(
        "replace", just(b'{"data": "text:\\ud800"}'), "holds half a character, which is no text"
    ),
    "half a character in a placement": Kept(
        "placement", instead("device:", '"\\ud800":'), "is not a key; keys are text"
    ),
    "a curriculum of a cell with init and noise": Kept(
        "done/experiment.yaml", instead("name: grow", "name: mine")
    ),
    "a rate beyond floats": Kept(
        "study", instead("0.5, 1, 2", "1" + "0" * 400), "must be a number over 0"
    ),
    "an effect beyond floats": Kept(
        "study", instead("effect: 0.01", "effect: 1" + "0" * 400), "effect: "
    ),
    "a folder with a name too long": Kept(
        "study", instead("runs_dir: runs", f"runs_dir: {'r' * 5000}")
    ),
    "a text of more tokens than floats hold": Kept(
        "command",
        just(
            b"plan\ntoy\nplacement.trunk=cached\ncurriculum=left_to_right\n"
            b"data.distinct_epochs=2\n--hardware\nh200\n--text-tokens\n" + b"9" * 400
        ),
    ),
    "a block of 10 GB is planned": Kept("command", just(b"plan\n405b\n--hardware\nh200")),
    "a look without its stage": Kept(
        "done/events.jsonl",
        lambda valid: valid.replace(b'"stage":', b'"stages":'),
        "does not hold what it should",
    ),
    "a step that is text": Kept(
        "done/events.jsonl", instead('"step": ', '"step": "x", "s": '), None
    ),
    "memory of a stage that is a list": Kept(
        "done/events.jsonl",
        lambda valid: valid + b'{"kind": "memory", "stage": [1], "peak": 1}\n',
        "does not hold what it should",
    ),
    "memory beyond floats": Kept(
        "done/events.jsonl",
        lambda valid: valid + b'{"kind": "memory", "stage": 0, "peak": 1%s}\n' % (b"0" * 400),
    ),
    "a stage that is a number": Kept("done/stages.json", just(b"[1, 2]"), "stages.json is damaged"),
    "a plan of words": Kept("done/plan.json", just(b'["a"]'), "plan.json is damaged"),
    "a finished run whose provenance lacks its data": Kept(
        "commands/done", just(b'provenance.json\n{"data": {"notes": 3}}')
    ),
    "a stopped run whose plan lacks its FLOPs": Kept("commands/half", just(b"plan.json\n[{}]")),
    "a result without its figures": Kept(
        "commands/done", just(b'events.jsonl\n{"kind": "result", "bits_per_byte": "x"}\n')
    ),
    "a length that is text": Kept(
        "model.yaml",
        instead("max_position_embeddings: 32", "max_position_embeddings: x"),
        "is no number of tokens",
    ),
    "a column whose name is no text": Kept(
        "half/metrics/0001.arrows",
        lambda valid: valid.replace(b"stage_step", b"stag\xb1_step"),
        "metrics/ is damaged",
    ),
    "counters that are text": Kept(
        "sealed", instead('"counters": {', '"counters": "x", "c": {'), "its counters are none"
    ),
    "a format that is a list": Kept(
        "sealed", instead('"format": null', '"format": []'), "in a format that is none"
    ),
    "a run that is a number": Kept("sealed", instead('"run": {', '"run": 7, "r": {'), "is damaged"),
    "a study's run without its seed": Kept(
        "study/runs.json", instead('"seed"', '"need"'), "is no list of runs (KeyError)"
    ),
    "adapters whose alphas are a list": Kept(
        "adapter_config", instead('"alpha_pattern": {}', '"alpha_pattern": [1]'), "alpha_pattern: "
    ),
    "rates that are a list": Kept(
        "calibration", instead('"rate": ', '"rate": [1], "size": '), "lacks a fact or a rate"
    ),
    "a calibration nested too deep": Kept("calibration", just(padded("a")), "is no calibration"),
    "a tokenizer nested too deep": Kept("tokenizer", just(padded("model")), "nested too deep"),
    "an id that asks for 16 GiB": Kept(
        "tokenizer", instead('"vocab": {', '"vocab": {"zz": 2147483648, '), "its largest id is"
    ),
    "a line nested too deep": Kept("jsonl", just(padded("text")), "holds nested too deep"),
    "a line with a number too long": Kept(
        "jsonl", just(b'{"text": ' + b"9" * 5000 + b"}"), "a number of over 4300 digits"
    ),
    "a theta beyond floats": Kept(
        "config.json", instead("500.0", "1" + "0" * 400), "is not a number over 0"
    ),
}
