"""`stackwise.NAME`: every public name can be had, is documented, and costs nothing before it is."""

import inspect
import subprocess
import sys

import pytest

import stackwise as sw

# What the checks of the science page need, called by its public name.
WANTED = """
corrupt Corruption loss_at Batch batch_at stage_flops_per_token vocab_size plan_rows lr_at stage_lr
band_edges stack_bands exit_losses entry_losses baselines grow_ sample_ids trajectory SAMPLERS
AttentionKind
"""


@pytest.mark.parametrize("name", sw.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(sw, name)
    assert name in dir(sw)
    if inspect.isfunction(value) or inspect.isclass(value):
        first = (value.__doc__ or "").strip().partition("\n")[0]
        assert len(first.split()) > 2, "one sentence that says what it is"
        assert not first.startswith(f"{name}("), "a dataclass's signature says nothing"
        assert value.__name__ == {"grow_": "grow"}.get(name, name)
    else:
        assert name.isupper() or name == "__version__", "only registries are plain values"


def test_the_names_that_the_checks_use_are_public():
    assert set(WANTED.split()) <= set(sw.__all__)
    assert len(sw.__all__) == len(set(sw.__all__))


def test_the_operator_is_not_taken_for_the_curriculum():
    assert sw.grow_ is not sw.CURRICULA["grow"].build
    assert list(inspect.signature(sw.grow_).parameters)[:3] == ["stack", "init", "source"]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'stackwise' has no attribute 'Modle'"):
        _ = sw.Modle


def test_importing_stackwise_loads_nothing_but_itself():
    """Not torch, not numpy: they come with the first name that needs them."""
    code = "import sys, stackwise; print(*(n for n in sys.modules if n.startswith('stackwise')))"
    heavy = "; print(*({'torch', 'numpy', 'pandas', 'pydantic', 'yaml'} & set(sys.modules)))"
    done = subprocess.check_output([sys.executable, "-c", code + heavy], text=True)
    assert done == "stackwise\n\n"
