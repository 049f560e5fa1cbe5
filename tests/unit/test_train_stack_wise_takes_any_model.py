"""Racks, Hugging Face's models and a module of one's own train on batches of any kind."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import stackwise as sw

CURRICULA = ["end_to_end", "left_to_right", "right_to_left", "grow"]


def cycle_ids(batches: int = 8, samples: int = 8, length: int = 12) -> torch.Tensor:
    """Tokens that count upwards modulo 7 from a random start: easy to learn."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randint(7, (batches, samples, 1), generator=generator)
    return (start + torch.arange(length)) % 7


def rack(**shape):
    sizes = {"stacks": 2, "blocks_per_stack": 1, "d_model": 16, "heads": 2, "init_std": 0.1}
    return sw.Rack(sw.RackShape(**{**sizes, **shape}), sw.Experiment().attention, 7)


def llama(**sizes):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=7, **{**shape, **heads, **sizes}))


@pytest.mark.parametrize("curriculum", CURRICULA)
@pytest.mark.parametrize("objective", ["diffusion", "mlm", "clm"])
def test_a_rack_learns(curriculum, objective):
    result = sw.train_stack_wise(
        rack(),
        list(cycle_ids()),
        curriculum=curriculum,
        objective=objective,
        steps=60,
        lr=2e-2,
    )
    first = result.metrics["loss"].head(3).mean()
    assert result.loss < 0.8 * first


@pytest.mark.parametrize("curriculum", CURRICULA)
def test_a_llama_learns_by_its_own_loss(curriculum):
    model = llama(tie_word_embeddings=curriculum == "grow")
    batches = [{"input_ids": ids_BT, "labels": ids_BT} for ids_BT in cycle_ids()]
    result = sw.train_stack_wise(
        model, batches, curriculum=curriculum, blocks="model.layers", stacks=2, steps=60, lr=2e-2
    )
    assert len(model.model.layers) == 4
    assert result.loss < 0.7 * math.log(7)
    assert model(**batches[0]).loss < 0.7 * math.log(7)


def test_a_gpt2_learns_too():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=7, n_positions=12, n_embd=16, n_layer=2, n_head=2)
    batches = [{"input_ids": ids_BT, "labels": ids_BT} for ids_BT in cycle_ids()]
    model = GPT2LMHeadModel(config)
    result = sw.train_stack_wise(model, batches, blocks="transformer.h", steps=60, lr=2e-2)
    assert result.loss < 0.7 * math.log(7)


def test_a_pytorch_dataloader_is_read_as_often_as_needed():
    loader = DataLoader(TensorDataset(cycle_ids().flatten(0, 1)), batch_size=16, shuffle=True)
    ids = DataLoader(cycle_ids().flatten(0, 1), batch_size=16, shuffle=True)
    model = nn.Sequential(nn.Embedding(7, 8), nn.ModuleList([nn.Linear(8, 8)]), nn.Linear(8, 7))

    def next_token(model, batch):
        x = model[1][0](model[0](batch[0]))
        return nn.functional.cross_entropy(
            model[2](x)[:, :-1].flatten(0, 1), batch[0][:, 1:].flatten()
        )

    assert len(sw.train_stack_wise(rack(), ids).metrics) == 4, "one pass"
    result = sw.train_stack_wise(model, loader, blocks="1", loss=next_token, steps=9)
    assert len(result.metrics) == 9


def test_a_generator_is_enough_if_steps_are_given():
    result = sw.train_stack_wise(rack(), (ids_BT for ids_BT in cycle_ids()), steps=8)
    assert len(result.metrics) == 8


def test_a_rack_reads_input_ids_too():
    plain, mapped = rack(), rack()
    sw.train_stack_wise(plain, list(cycle_ids()))
    sw.train_stack_wise(mapped, [{"input_ids": ids_BT} for ids_BT in cycle_ids()])
    assert torch.equal(plain.head.weight, mapped.head.weight)


def test_a_function_of_the_registry_is_its_name():
    result = sw.train_stack_wise(
        rack(), list(cycle_ids()), curriculum=sw.CURRICULA["right_to_left"].build
    )
    assert [stage.path for stage in result.stages] == [("s1",), ("s0", "s1")]


def test_a_rack_without_stacks_gets_them():
    model = sw.Rack(rack().shape, sw.Experiment().attention, 7, stacks=())
    sw.train_stack_wise(model, list(cycle_ids()), curriculum="right_to_left")
    assert model.held() == ("s0", "s1")
    assert model.paths == [(0.0, 1.0, ("s0", "s1"))]


def test_noise_bands_by_depth_become_the_racks_paths():
    model = rack()
    sw.train_stack_wise(
        model,
        list(cycle_ids()),
        curriculum="right_to_left",
        options={"masking.bands": (0.5,), "optim.schedule": "cosine"},
    )
    assert model.paths == [(0.0, 0.5, ("s1",)), (0.5, 1.0, ("s0", "s1"))]


def test_a_tied_rack_says_that_its_head_parts():
    model = rack(tied=True)
    with pytest.warns(UserWarning, match="it got a copy of its own"):
        sw.train_stack_wise(model, list(cycle_ids()))
    assert model.head.weight is not None


def test_metrics_have_one_row_per_step():
    result = sw.train_stack_wise(rack(), list(cycle_ids()), steps=30)
    df = result.metrics
    assert isinstance(df, pd.DataFrame)
    assert list(df.columns) == ["step", "stage", "name", "loss", "lr", "grad_norm", "seconds"]
    assert df["step"].tolist() == list(range(1, 31))
    assert df["name"].unique().tolist() == ["s0", "s1"]
    steps = df.groupby("stage").size()
    assert steps[0] > steps[1], "left_to_right gives every stage the same FLOPs"
    assert df["seconds"].is_monotonic_increasing
    assert result.loss == df["loss"].tail(steps[1] // 10).mean()
    assert df["lr"].max() <= 2e-3 and df["lr"].iloc[-1] < 1e-3
    assert [stage.name for stage in result.stages] == ["s0", "s1"]
    assert result.checkpoints == ()


def test_every_border_leaves_a_file_per_stack(tmp_path):
    model = rack()
    result = sw.train_stack_wise(model, list(cycle_ids()), checkpoints=tmp_path / "new")
    files = [f"{path.parent.name}/{path.name.rsplit('-', 1)[0]}" for path in result.checkpoints]
    assert files == [
        "stage-0/embedding",
        "stage-0/s0",
        "stage-0/head",
        "stage-1/embedding",
        "stage-1/s0",
        "stage-1/s1",
        "stage-1/head",
    ]
    assert result.checkpoints[1].read_bytes() == result.checkpoints[4].read_bytes(), "frozen"
    saved, held = load_file(result.checkpoints[5]), model.stacks["s1"].state_dict()
    assert saved.keys() == held.keys()
    assert all(torch.equal(saved[key], held[key]) for key in held)


def test_checkpoints_of_tied_weights_load_strictly(tmp_path):
    model = llama(tie_word_embeddings=True)
    batches = [{"input_ids": ids_BT, "labels": ids_BT} for ids_BT in cycle_ids()]
    result = sw.train_stack_wise(
        model, batches, blocks="model.layers", stacks=2, checkpoints=tmp_path
    )
    last = {p.name.rsplit("-", 1)[0]: load_file(p) for p in result.checkpoints[-3:]}
    outside = {k: v for k, v in model.state_dict().items() if "layers" not in k}
    assert last["outside"].keys() == outside.keys()
    assert all(torch.equal(last["outside"][k], v) for k, v in outside.items())
    nn.ModuleList(llama().model.layers[2:]).load_state_dict(last["s1"])


def shuffled_losses(seed: int, outer: int) -> list[float]:
    """Losses over a shuffling DataLoader; `outer` is where torch's own generator stands."""
    model, ids_NT = rack(), torch.arange(160).view(32, 5) % 7
    torch.manual_seed(outer)
    loader = DataLoader(ids_NT, batch_size=2, shuffle=True)
    before = torch.get_rng_state()
    result = sw.train_stack_wise(model, loader, objective="clm", seed=seed, steps=20)
    assert torch.equal(torch.get_rng_state(), before), "the caller's generator is left alone"
    return result.metrics["loss"].tolist()


def test_the_seed_decides_the_order_of_a_shuffling_dataloader():
    assert shuffled_losses(seed=3, outer=0) == shuffled_losses(seed=3, outer=1)
    assert shuffled_losses(seed=3, outer=0) != shuffled_losses(seed=4, outer=0)


@pytest.mark.parametrize("curriculum", CURRICULA)
def test_a_sequential_called_as_a_whole_trains_as_a_list_that_is_gone_through(curriculum):
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    batches = list(zip(x.split(8), x.sum(1, keepdim=True).split(8), strict=True))
    losses = []
    for kind in (nn.Sequential, lambda *blocks: nn.ModuleList(blocks)):
        torch.manual_seed(0)
        blocks = [nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(4)]
        model = nn.ModuleDict({"layers": kind(*blocks), "head": nn.Linear(4, 1)})

        def loss(model, batch):
            x_BD, layers = batch[0], model["layers"]
            for layer in [layers] if isinstance(layers, nn.Sequential) else layers:
                x_BD = layer(x_BD)
            return (model["head"](x_BD) - batch[1]).square().mean()

        result = sw.train_stack_wise(
            model, batches, curriculum=curriculum, blocks="layers", loss=loss, steps=20
        )
        assert list(model["layers"]) == blocks
        losses.append(result.metrics["loss"].tolist())
    assert losses[0] == losses[1]
