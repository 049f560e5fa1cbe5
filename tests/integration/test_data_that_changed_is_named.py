"""A file that a run reads is edited, replaced or removed: it is named; put back, the run goes on.

While the run trains it makes no difference: what is read lies in the cache of prepared data.
"""

from __future__ import annotations

import re
import shutil

import pytest

import stackwise as sw
from stackwise.cli import main
from stackwise.training.manifest import CheckpointError
from stackwise.training.run import execute
from stackwise.training.start import Changed, create_run

TEXT = "the quick brown fox jumps over the lazy dog. "
HASH = "[0-9a-f]{12}"


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(TEXT * 200)
    return path


def stopping_after(steps: int):
    def on_step(work, numbers) -> None:
        work.stop_requested = work.at.total_steps == steps

    return on_step


def refusal(run: sw.Run) -> str:
    with pytest.raises(Changed) as caught:
        execute(run)
    return str(caught.value)


CHANGES = {
    "edited": (lambda path: path.write_text("a" + path.read_text()[1:]), 9000),
    "grown": (lambda path: path.write_text(path.read_text() + TEXT), 9045),
    "replaced": (lambda path: path.write_text("quite other words, and many. " * 300), 8700),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_text_is_named_with_both_fingerprints(tiny, place, book, change) -> None:
    exp = tiny.replace(data={"corpus": f"text:{book}"})
    straight, run = sw.train(exp, place), create_run(exp, place, rerun=True)
    execute(run, on_step=stopping_after(5))
    kept = written(run)
    alter, size = CHANGES[change]
    alter(book)
    assert re.fullmatch(
        rf"run {run.id}: the corpus has changed since the run began: \S+/book\.txt \({size} bytes, "
        rf"was 9000, fingerprint {HASH}, was {HASH}\); put the old file back, or start a new run",
        refusal(run),
    )
    assert main(["resume", str(run.path)]) == 6
    assert written(run) == kept
    assert run.state == "stopped"
    book.write_text(TEXT * 200)
    execute(run)
    assert run.weights_hash() == straight.weights_hash()


def written(run: sw.Run) -> dict[str, tuple[int, int]]:
    """The files of its checkpoint, and when they were written."""
    found = {path.name: path.stat() for path in (run.path / "rack").iterdir()}
    return {name: (facts.st_ino, facts.st_mtime_ns) for name, facts in found.items()}


@pytest.mark.parametrize("what", ["removed", "made no text"])
def test_a_text_that_cannot_be_read_any_more_is_named(tiny, place, book, what) -> None:
    exp = tiny.replace(data={"corpus": f"text:{book}"})
    run = create_run(exp, place)
    execute(run, on_step=stopping_after(5))
    text = book.read_bytes()
    book.unlink() if what == "removed" else book.write_bytes(text + b"\xff\xfe\xff")
    said = refusal(run)
    assert "book.txt" in said and "It could be read when the run began (fingerprint" in said
    assert main(["resume", str(run.path)]) == 6
    book.write_bytes(text)
    assert execute(run).state == "finished"


@pytest.mark.parametrize("what", ["replaced", "removed"])
def test_a_run_that_trains_is_not_touched(tiny, place, book, what) -> None:
    exp = tiny.replace(data={"corpus": f"text:{book}", "tokenizer": "bpe:280"})
    straight, run = sw.train(exp, place), create_run(exp, place, rerun=True)

    def on_step(work, numbers) -> None:
        if work.at.total_steps == 5:
            book.write_text("something else. " * 400) if what == "replaced" else book.unlink()

    execute(run, on_step=on_step)
    assert run.state == "finished" and run.weights_hash() == straight.weights_hash()
    assert run.result()["bits_per_byte"] == straight.result()["bits_per_byte"]


def test_of_a_mixture_the_text_that_changed_is_named(tiny, place, tmp_path, book) -> None:
    other = tmp_path / "other.txt"
    other.write_text("all is well that ends well, they say. " * 200)
    corpora = [{"kind": "text", "path": str(path)} for path in (book, other)]
    run = create_run(tiny.replace(data={"corpus": {"kind": "mix", "corpora": corpora}}), place)
    other.write_text("all is not well. " * 400)
    said = refusal(run)
    assert "other.txt" in said and "book.txt" not in said


def test_a_tokenizer_is_named(tiny, place, tmp_path, book) -> None:
    first, second = (
        sw.open_dataset(f"text:{book}", f"bpe:{size}", seq_len=16).tokenizer for size in (270, 280)
    )
    mine = tmp_path / "mine.json"
    first.save(mine)
    exp = tiny.replace(data={"corpus": f"text:{book}", "tokenizer": f"json:{mine}"})
    straight = sw.train(exp, place)
    run = create_run(exp, place, rerun=True)
    execute(run, on_step=stopping_after(5))
    second.save(mine)
    said = refusal(run)
    assert "the tokenizer has changed since the run began: " in said and "/mine.json (" in said
    assert len(re.findall(HASH, said)) >= 2 and main(["resume", str(run.path)]) == 6
    first.save(mine)
    execute(run)
    assert run.weights_hash() == straight.weights_hash()


@pytest.fixture
def begun(tiny, place, tmp_path):
    """A run that starts from a finished one in a folder of its own, and was stopped early."""
    source = sw.train(tiny, place.replace(runs_dir=str(tmp_path / "source")))
    exp = tiny.replace(start=str(source.path), curriculum="left_to_right", seed=1)
    run = create_run(exp, place)
    execute(run, on_step=stopping_after(2))
    return source, run, exp


@pytest.mark.parametrize("what", ["trained otherwise", "removed"])
def test_a_run_that_it_starts_from_is_named_before_a_step(
    tiny, place, tmp_path, begun, what
) -> None:
    """Stacks of later stages begin with its weights: that is said now, and not when they come."""
    source, run, exp = begun
    shutil.move(source.path, tmp_path / "aside")
    if what == "trained otherwise":
        other = sw.train(tiny.replace(seed=5), place.replace(runs_dir=str(tmp_path / "other")))
        shutil.copytree(other.path, source.path)
    said = refusal(run)
    assert source.id in said and said.endswith("put the old run back, or start a new run")
    assert ("holds other weights" in said) == (what == "trained otherwise")
    assert main(["resume", str(run.path)]) == 6 and len(run.metrics()) == 2
    if source.path.exists():
        shutil.rmtree(source.path)
    shutil.move(tmp_path / "aside", source.path)
    straight = sw.train(exp, place, rerun=True)
    assert execute(run).weights_hash() == straight.weights_hash()


def test_a_checkpoint_that_was_damaged_ends_with_code_6(tiny, place) -> None:
    run = create_run(tiny, place)
    execute(run, on_step=stopping_after(5))
    (file,) = (run.path / "rack").glob("s1-*")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError):
        execute(run)
    assert main(["resume", str(run.path)]) == 6
    file.write_bytes(whole)
    assert execute(run).state == "finished"
