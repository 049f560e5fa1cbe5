"""Study 6: how diffusion times are drawn: noise of loss and gradient, speed, and what it trains.

Noise is that of one step's estimate on one batch of text that stays, over many draws of times and
masks, at racks trained with antithetic times: for the loss its standard deviation over its mean,
for the gradient the root of the trace of its covariance over the norm of its mean.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pandas as pd
import torch
from common import Claim, between, compared, difference, every, rows_of
from drawing import panels_of, style, titled

import stackwise as sw
from stackwise_widgets import PaperFigure

SAMPLINGS = ("iid", "antithetic", "stratified_k", "bell")
TRAINED = "antithetic"
LOSSES, GRADIENTS = 200, 60  # draws
# Sums over many draws at racks whose last bits differ; speed is that of a machine.
TOLERANCE = {"loss_noise": 0.03, "gradient_noise": 0.1, "loss": 0.03, "draw_frac": None}


def measure(studies: list[sw.Study]) -> pd.DataFrame:
    """The runs, and a row for each rack and way to draw."""
    (study,) = studies
    found = [
        {"kind": "measured", "arm": sampling, "seed": seed, **noise_of(run, sampling)}
        for arm, seed, run in study.result().runs
        if arm.name == TRAINED
        for sampling in SAMPLINGS
    ]
    return pd.concat([rows_of(studies), pd.DataFrame(found)], ignore_index=True)


def noise_of(run: sw.Run, sampling: str) -> dict[str, float]:
    """What a batch's loss and gradient deviate by, and the part of a step that drawing takes."""
    exp, rack = run.experiment, run.rack().requires_grad_(True)
    size = exp.optim.batch
    text = sw.open_dataset(exp.data.corpus, exp.data.tokenizer, seq_len=exp.data.seq_len)
    ids_BT, row_B = text.samples(range(size)), np.arange(size)
    rule = sw.Corruption(exp.objective, rack.vocab, size, exp.seed, sampling=sampling)
    losses, gradients, drawing, stepping = [], [], [], []
    for draw in range(LOSSES):
        began = time.perf_counter()
        noisy = sw.corrupt(rule, sw.Batch(ids_BT, row_B, np.full(size, draw), row_B))
        drawn = time.perf_counter()
        with torch.set_grad_enabled(draw < GRADIENTS):
            x_ND = rack.hidden(noisy.input_BT)[noisy.counted_BT]
            loss = sw.loss_at(rack.logits(x_ND), noisy.target_N, noisy.weight_N, ids_BT.size)
        losses.append(loss.item())
        if draw < GRADIENTS:
            found = torch.autograd.grad(loss, list(rack.parameters()), allow_unused=True)
            gradients.append(torch.cat([g.flatten() for g in found if g is not None]).double())
            drawing.append(drawn - began)
            stepping.append(time.perf_counter() - drawn)
    return {
        "loss": statistics.mean(losses),
        "loss_noise": statistics.stdev(losses) / statistics.mean(losses),
        "gradient_noise": relative_noise(torch.stack(gradients)),
        "draw_frac": statistics.median(drawing) / statistics.median(stepping),
    }


def relative_noise(gradient_NP: torch.Tensor) -> float:
    """Root of the trace of the covariance over the norm of the mean, without the mean's own noise.

    The squared norm of a mean of N draws is too large by trace / N in expectation.
    """
    count, mean_P = len(gradient_NP), gradient_NP.mean(0)
    trace = float((gradient_NP - mean_P).square().sum()) / (count - 1)
    signal = float(mean_P.square().sum()) - trace / count
    return math.sqrt(trace / signal) if signal > 0 else math.inf


def noises(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over racks, one row for each way to draw."""
    rows = frame[frame["kind"] == "measured"]
    return rows.groupby("arm", sort=False)[["loss_noise", "gradient_noise", "draw_frac"]].mean()


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """What each way trains, beside its noise and what it costs."""
    return compared(frame).merge(noises(frame).reset_index(), on="arm")


def claims(frame: pd.DataFrame) -> list[Claim]:
    """What was predicted."""
    rows = frame[frame["kind"] == "measured"]
    loss = rows.pivot(index="seed", columns="arm", values="loss_noise")
    found = noises(frame)
    ratio = found["gradient_noise"]["iid"] / found["gradient_noise"]["stratified_k"]
    falls = (loss["stratified_k"] < loss["antithetic"]) & (loss["antithetic"] < loss["iid"])
    apart = [difference(frame, name, TRAINED).mean for name in ("iid", "stratified_k")]
    return [
        Claim("the loss is noisiest for iid, then antithetic, then stratified_k, at every rack",
              bool(falls.all())),
        Claim("a bell's loss is noisier than antithetic's at every rack",
              bool((loss["bell"] > loss["antithetic"]).all())),
        Claim("the gradient is 1.0 to 1.5 times as noisy with iid as with stratified_k",
              between(ratio, 1.0, 1.5)),
        Claim("iid and stratified_k train to within 0.03 bits per byte of antithetic",
              every(*(between(each, -0.03, 0.03) for each in apart))),
        Claim("each way draws in less than 5 % of a step",
              bool((rows["draw_frac"] < 0.05).all())),
    ]  # fmt: skip


def draw(frame: pd.DataFrame) -> PaperFigure:
    """Noise of the loss, noise of the gradient, and what is trained."""
    figure, (panels,) = panels_of(3, 3.2)
    rows = frame[frame["kind"] == "measured"]
    runs = frame[frame["kind"] == frame["kind"].iloc[0]]
    shown = (
        (rows, "loss_noise", "a   noise of a step's loss", "deviation / mean"),
        (rows, "gradient_noise", "b   noise of its gradient", "deviation / norm of the mean"),
        (runs, "bits_per_byte", "c   what it trains", "bits per byte"),
    )
    for axes, (found, column, title, label) in zip(panels, shown, strict=True):
        for place, name in enumerate(SAMPLINGS):
            values = found[found["arm"] == name][column]
            colour, marker = style(place)
            axes.plot(values, [place] * len(values), marker, color=colour, ms=6, alpha=0.8)
        axes.set_yticks(range(len(SAMPLINGS)), SAMPLINGS)
        axes.set_ylim(len(SAMPLINGS) - 0.5, -0.5)
        titled(axes, title, label)
    return figure


if __name__ == "__main__":
    from figures import main

    sys.exit(main([Path(__file__).parent.name[:2]]))
