"""What the plan says MKL keeps of the pieces that it packs, against what a process has grown by."""

from __future__ import annotations

import json

import pytest
import torch

from stackwise.memory.heap import why_unknown
from stackwise.memory.products import kept_bytes, products
from stackwise.runs.provenance import processor

from ...warm import forked

MEASURED = ("AMD EPYC", "AVX512")
GROWN = """
import json, sys
import torch
from stackwise.memory.heap import in_use
layers, threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)
torch.ones(64, 64) @ torch.ones(64, 64)
grown = 0
for _, rows, inner, columns in layers:
    a, b = torch.ones(rows, inner), torch.ones(inner, columns)
    out = torch.empty(rows, columns)
    before = in_use()
    torch.mm(a, b, out=out)
    grown += in_use() - before
print(grown)
"""
CASES = {
    "512 rows of 1024": (512, (1024, 1024), (2752, 1024), (1024, 2752)),
    "128 rows of 2048": (128, (2048, 2048), (5504, 2048), (2048, 5504)),
    "2048 rows of 768": (2048, (768, 768), (2048, 768), (768, 2048)),
    "a head of 600 rows": (600, (27846, 288)),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_as_much_is_kept_as_is_counted(case, threads) -> None:
    """Where they were measured: other processors have kernels, and pieces, of their own."""
    if not torch.backends.mkl.is_available():
        pytest.skip("torch was built without MKL")
    if (here := (processor(), torch.backends.cpu.get_cpu_capability())) != MEASURED:
        pytest.skip(f"pieces were measured on {MEASURED}, not on {here}")
    if (why := why_unknown()) is not None:
        pytest.skip(why)
    rows, *layers = CASES[case]
    made = [product for layer in layers for product in products(rows, layer)]
    told = json.dumps([made, threads])
    grown = int(forked(GROWN, told))
    counted = kept_bytes((sizes for _, *sizes in made), threads)
    print(f"{case}: {counted / 2**20:.2f} counted, {grown / 2**20:.2f} MiB grown")
    assert counted / 1.1 <= grown <= counted * 1.1
