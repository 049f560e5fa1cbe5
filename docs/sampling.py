"""Writes docs/sampling.md: `python docs/sampling.py`. All its numbers come from the code.

`tests/unit/test_the_sampling_page_is_current.py` makes the page again and compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import stackwise as sw
from stackwise.choice import parse
from stackwise.model.rack import Rack
from stackwise.sampling import SAMPLERS, Sampler, takes_steps

TOKENS, BATCH, COUNTS = 32, 2, (8, 32, 128)
BANDS = [(0.5, 1.0, ("s0", "s1")), (0.0, 0.5, ("s1",))]

PAGE = """\
# Samplers

Written by `python docs/sampling.py`; a test makes it again and compares.

A denoising sampler fills every [MASK] of a batch and changes nothing else; `autoregressive` writes
from left to right with a rack trained causally. Which one is a name or a mapping of its knobs:
`--method remask --set eta=0.05` on the command line, `method={{"kind": "remask", "eta": 0.05}}` in
Python, fields in the denoising tab of Inspect.

{samplers}

*Exact* says whether the samples follow the law of a rack that knows every conditional. Tests hold
it with a chi-square over all words of a language of three letters, and that the others fail it
(`tests/unit/samplers/test_samplers_follow_the_law.py`). An order by `margin` or `entropy` depends
on the tokens that are visible, and the chain rule holds in any such order; an order by `confidence`
depends on the token that was drawn, and keeps the likely ones. Positions that are filled in one
step are drawn independently of each other, so no sampler is exact there.

## What they cost

How often a sample is read to fill {tokens} masks, mean over a batch of {batch}, by the number of
steps. With `ancestral` and `remask` nothing is read at a step at which no mask leaves: in
`ancestral` a sample is read once per mask at most, however many steps there are, and comes out as
in a loop that reads at each (`test_streams_say_what_was_done_and_what_it_took.py`, there). A dash:
the sampler says by itself how many steps there are.

{reads}

`Step.flops` has the cost of all reads so far, heads included; the tests hold it against torch's own
counter for every sampler.

## Watching one

`sw.stream` gives every step as it is made: the ids, which positions were filled in it or masked
again, what is left, the reads and FLOPs so far, and the stacks that ran. Its `start` may have masks
anywhere. `stackwise sample RUN --stream` draws it in a terminal.

```python
import stackwise as sw

exp = sw.Experiment.preset("toy").replace(curriculum="right_to_left", masking={{"bands": "linear"}})
run = sw.train(exp)
rack, tokenizer = run.rack(), run.tokenizer()
start = tokenizer.encode("In the beginning")

for step in sw.stream(rack, start, length=32, method="through_depth"):
    text = sw.text_of(step.ids_BT[0], tokenizer, rack.mask_id)
    print(step.number, step.left, step.paths, f"{{step.flops:.2g}} FLOPs", text)

method = {{"kind": "remask", "eta": 0.05}}
asked = {{"method": method, "steps": 64, "temperature": 0.8, "top_p": 0.95}}
print(sw.sample(rack, "In the beginning", tokenizer=tokenizer, length=32, **asked))
```

`temperature` 0 takes the best token; `top_k` and `top_p` cut unlikely ones off before the choice,
which uses Gumbel noise in float64. A sampler that reads a rack as it never learned to is refused.

## How good samples are

Generative perplexity is flattered by low temperatures: a text that repeats one likely token scores
best of all. So `quality` gives it beside the entropy of the samples. References are a Markov
corpus' own source, against which perfect samples have a known score, and the bigram of a text.

```python
from stackwise.data.markov import MarkovParams
from stackwise.sampling.quality import markov_reference, quality

source = MarkovParams(order=2, symbols=16)
exp = sw.Experiment.preset("toy").replace(data={{"corpus": source}})
rack = sw.train(exp).rack()
ids_NT = sw.sample_ids(rack, [[]] * 8, length=32, method="first_hitting").numpy()
reference = markov_reference(source)
print(quality(ids_NT, reference), reference.expected_nats_per_token(32))
```

## Knobs

{knobs}
"""


def page() -> str:
    """The whole text."""
    return PAGE.format(
        samplers=samplers(), tokens=TOKENS, batch=BATCH, reads=reads(), knobs=knobs()
    )


def entries() -> Iterator[tuple[str, Sampler]]:
    """Name and entry of every sampler that ships."""
    for name, entry in SAMPLERS.items():
        assert isinstance(entry, Sampler) and entry.params is not None
        yield name, entry


def samplers() -> str:
    """One row per sampler of the registry."""
    rows = [
        [f"`{name}`", told(entry), entry.law, entry.forwards, entry.source]
        for name, entry in entries()
    ]
    return table(["sampler", "what it does", "exact", "reads of a sample", "source"], rows)


def told(entry: Sampler) -> str:
    """The first sentence that a sampler says of itself, without what the other columns say."""
    assert entry.params is not None and entry.params.__doc__ is not None
    return re.split(r" \([A-Z]", entry.params.__doc__.strip().splitlines()[0])[0].rstrip(".")


def reads() -> str:
    """How often a sample is read, by the number of steps."""
    rows = []
    for name, entry in entries():
        method = parse(SAMPLERS, name, "method", "kind")
        free = takes_steps(method)
        counts = [None, *(steps if free else 0 for steps in COUNTS)]
        shown = [f"{read(name, steps, entry.causal):g}" if steps != 0 else "-" for steps in counts]
        rows.append([f"`{name}`", *shown])
    return table(["sampler", "steps left out", *(f"{steps} steps" for steps in COUNTS)], rows)


def read(name: str, steps: int | None, causal: bool) -> float:
    """Reads per sample of a rack that knows nothing: how many does not hang on what it predicts."""
    shape = sw.RackShape(stacks=2, blocks_per_stack=1, d_model=8, heads=2, d_ff=8)
    rack = Rack(shape, "mha", 16, paths=None if causal else BANDS)
    *_, last = sw.stream(rack, [[]] * BATCH, length=TOKENS, method=name, steps=steps)
    return last.samples / BATCH


def knobs() -> str:
    """One row per knob."""
    rows = []
    for name, entry in entries():
        assert entry.params is not None
        for key, field in list(entry.params.model_fields.items())[1:]:
            usual = "empty" if field.default is None else str(field.default)
            rows.append([f"`{name}`", f"`{key}`", usual, field.description or ""])
    return table(["sampler", "knob", "default", ""], rows)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line).rstrip()} |" for line in lines)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), "utf-8")
