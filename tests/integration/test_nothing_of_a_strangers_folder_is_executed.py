"""Hostile folders are opened by every reader under an audit hook: nothing of theirs runs.

Python tells the hook of whatever is unpickled, compiled, executed, imported, started or connected.
"""

from __future__ import annotations

import ast
import hashlib
import json
import pickle
import shutil
from pathlib import Path

import pytest
import yaml

import stackwise as sw
from stackwise.runs.records import MANIFEST
from stackwise.seals import sealed
from stackwise.training.manifest import read_manifest
from stackwise.training.part_names import home_of

from ..strangers import rehash
from ..warm import forked_json

SOURCES = [*Path(sw.__file__).parent.rglob("*.py")]
SOURCES += [*(Path(sw.__file__).parents[1] / "widgets").rglob("*.py")]
LOADERS = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal",
    "multiprocessing", "runpy", "imp", "pdb", "code", "codeop", "fsspec", "requests", "ftplib",
}  # fmt: skip
MAY = {"store.py": {"fsspec"}}  # of mirrors: at an address that the user gave, never a folder
CALLS = {
    "eval", "exec", "compile", "__import__", "execfile",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "torch.package",
    "np.load", "numpy.load", "np.fromregex", "pd.read_pickle", "pandas.read_pickle",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all",
    "urllib.request.urlopen", "urlopen", "socket.create_connection",
}  # fmt: skip
ALLOWED = {  # what is called, and why it may be
    ("own_code.py", "exec"): "a file that the user named, or trusts: carried.py",
    ("own_code.py", "compile"): "the same",
    ("yaml_text.py", "yaml.load"): "by a subclass of SafeLoader",
    ("asked.py", "yaml.load"): "by CSafeLoader",
}
REMOTE = {"trust_remote_code", "allow_pickle", "use_auth_token"}


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def test_no_source_calls_a_loader_that_executes() -> None:
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").partition(".")[0]]
            assert not LOADERS & set(names) - MAY.get(path.name, set()), f"{path}: imports {names}"
            if isinstance(node, ast.Call):
                assert not {word.arg for word in node.keywords} & REMOTE, f"{path}: {node.lineno}"
                if called(node) in CALLS:
                    found.add((path.name, called(node)))
                    if called(node) == "yaml.load":
                        assert {word.arg for word in node.keywords} == {"Loader"}
    assert found == set(ALLOWED)


def test_no_python_that_is_started_looks_for_modules_in_the_folder_it_is_started_in() -> None:
    """`cd RUN` and `stackwise doctor`: without -P a json.py that lies there would be imported."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            words = [*map(ast.unparse, node.elts)] if isinstance(node, ast.List) else []
            if "sys.executable" in words:
                found.append(path.name)
                assert words[:3] == ["sys.executable", "'-P'", "'-m'"], f"{path}: {words}"
    assert {"warm.py", "supervisor.py", "alone.py", "trace.py", "looking.py"} == set(found)


class Bomb:
    """Unpickled, it leaves a file where the process works."""

    def __reduce__(self):
        return (open, ("pwned", "w"))


TOUCH = "open('pwned', 'w').close()\n"
MODULES = ("torch", "yaml", "stackwise", "sitecustomize", "conftest", "json", "modeling_evil",
           "configuration_evil", "tokenization_evil", "evil", "__init__", "hubconf")  # fmt: skip
CHILD = """
import json, os, sys

seen, home = [], os.path.realpath(sys.argv[1] + "/../../..")
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")
NETS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")


def inside(path):
    named = isinstance(path, (str, bytes)) and not os.fsdecode(path).startswith("<")
    return named and os.path.realpath(os.fsdecode(path)).startswith(home)


def hook(event, args):
    if event in STARTS:
        if not (event == "subprocess.Popen" and args[0] == "git" and not inside(args[2] or "")):
            seen.append([event, str(args)[:200]])
    elif event in NETS or event == "pickle.find_class":
        seen.append([event, str(args)[:200]])
    elif event == "exec" and inside(args[0].co_filename):
        seen.append([event, args[0].co_filename])
    elif event == "compile" and inside(args[1]):
        seen.append([event, str(args[1])])
    elif event == "import" and len(args) > 1 and args[1] and inside(args[1]):
        seen.append([event, str(args[:2])])
    elif event == "ctypes.dlopen" and args[0] and inside(args[0]):
        seen.append([event, str(args)])


import torch
torch.set_num_threads(1)
from pathlib import Path
import stackwise as sw
from stackwise.runs import runs_in
from stackwise.runs.asked import asked_of
from stackwise.runs.following import Follower
from stackwise.screen import screen
from stackwise.training.run import resume
from stackwise.training.score import evaluate_run
from stackwise.stage_ends import rack_after
from stackwise.interop.peft_folder import read_folder
from stackwise.interop.beginning import experiment_from
from stackwise.study import Study
from stackwise.cli import main
from stackwise_widgets import Compare, Inspect, RunPanel, Teach, Workbench, write_page, view_of
import stackwise.detached.launch as launching
import peft, datasets, tokenizers, plotly.graph_objects, matplotlib.figure, pyarrow.dataset

sys.addaudithook(hook)
told, sys.stdout = sys.stdout, open(os.devnull, "w")


def readers(folder, out):
    run, runs = sw.Run(folder), folder.parent
    out.mkdir(exist_ok=True)
    found = dict(
        state=lambda: run.state, status=run.status, error=run.error, summary=run.summary,
        experiment=lambda: run.experiment, asked=lambda: asked_of(run), stages=run.stages,
        plan=run.plan, provenance=run.provenance, carries=run.carries, events=run.events,
        metrics=run.metrics, evals=run.evals, layers=run.layers, statistics=run.statistics,
        drift=run.drift, memory=run.memory, result=run.result, tokenizer=run.tokenizer,
        labels=lambda: run.labels, log=run.log, what_now=run.what_now, rack=run.rack,
        best=lambda: run.rack(best=True), lent=lambda: run.rack(lent="disk"),
        stages_done=run.stages_done, weights=run.weights_hash,
        follow=lambda: Follower(folder).read(),
        screen=lambda: screen(run, 80, Follower(folder)), after=lambda: rack_after(run, 0),
        listed=lambda: runs_in(runs), evaluate=lambda: evaluate_run(run),
        sample=lambda: sw.sample(run.rack(), "a", length=2), view=lambda: view_of(run),
        page=lambda: write_page(run, out / "page.html"), panel=lambda: RunPanel(run=run),
        compare=lambda: Compare(runs).wait(), inspect=lambda: Inspect(run).wait(),
        teach=lambda: Teach(run), zip=lambda: run.share(out / "run.zip"),
        fork=lambda: run.fork(after_stage=0, launch=False, optim={"lr": 1e-3}),
        resume=lambda: resume(run),
        study=lambda: Study.load(folder), result_of=lambda: Study.load(folder / "study.yaml"),
        model=lambda: sw.read_model(folder),
        imported=lambda: sw.import_model(folder, out / "model"),
        exported=lambda: sw.export_model(run, out / "hf"), adapters=lambda: read_folder(folder),
        start=lambda: experiment_from(folder),
        state_file=lambda: Workbench(state=folder / "state.yaml", warm=False),
    )
    words = ("eval", "sample", "resume", "label", "pause", "stop", "watch", "export", "import",
             "study")
    for word in words:
        found["command " + word] = lambda word=word: main([word, str(folder)])
    return found


def probes(folder):
    import pickle, runpy, subprocess
    return dict(pickle=lambda: pickle.load(open(folder / "b.pkl", "rb")),
                module=lambda: runpy.run_path(str(folder / "evil.py")),
                process=lambda: subprocess.run(["true"]))


READ = {  # by those folders that are only read in part
    "models": "imported adapters start model tokenizer exported page".split(),
    "data": "resume evaluate page panel teach experiment".split(),
}
whole = {}
for path in map(Path, sys.argv[1:]):
    os.chdir(path)
    seen.clear()
    of_ours = path.name == "probes"
    went, acts = {}, probes(path) if of_ours else readers(path, path.parents[1] / "out")
    for name, read in acts.items():
        if name not in READ.get(path.parents[1].name, acts):
            continue
        before = len(seen)
        try:
            read()
            went[name] = "read"
        except (Exception, SystemExit) as error:
            went[name] = type(error).__name__
        if os.path.exists("pwned"):
            seen.append(["pwned", name])
            os.unlink("pwned")
        if len(seen) > before:
            went[name] = f"executed: {seen[before]}"
    whole[path.parents[1].name] = [list(seen), went]
print(json.dumps(whole), file=told, flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def went(tmp_path_factory) -> dict[str, tuple[list, dict[str, str]]]:
    """By the name of a hostile folder: what was executed of it, and what came of every reader."""
    exp = sw.Experiment(
        title="tiny",
        curriculum="left_to_right",
        rack={"stacks": 2, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 16},
        optim={"batch": 4, "ema": 0.9},
        budget={"tokens": 4 * 4 * 16},
        eval={"points": 2, "windows": 2, "final": 2},
    )
    home = tmp_path_factory.mktemp("strangers")
    place = sw.Placement(runs_dir=str(home / "made"), device="cpu", threads=1)
    made, folders = sw.train(exp, place), []
    for make in (pickles, weights, models, data):
        folder = home / make.__name__ / "runs" / made.id
        shutil.copytree(made.path, folder)
        make(folder)
        for name in MODULES:
            (folder / f"{name}.py").write_text(TOUCH)
        folders.append(folder)
    probes = home / "seen" / "runs" / "probes"
    bombed(probes / "b.pkl")
    (probes / "evil.py").write_text(TOUCH)
    return forked_json(CHILD, *map(str, folders), str(probes))


def bombed(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(Bomb()))


def pickles(folder: Path) -> None:
    """Every file, and what others would look for."""
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        bombed(path)
    for name in ("pytorch_model.bin", "model.pt", "adapter_model.bin", "training_args.bin",
                 "model.safetensors", "adapter_model.safetensors", "config.json", "model.yaml",
                 "adapter_config.json", "study.yaml", "runs.json", "state.yaml"):  # fmt: skip
        bombed(folder / name)


def weights(folder: Path) -> None:
    """All weights are pickles, and every hash is right."""
    for rack in (folder / "rack", *folder.glob("stages/*/rack"), folder / "best"):
        manifest = read_manifest(rack)
        for name, entry in manifest["parts"].items():
            content = pickle.dumps(Bomb())
            digest = hashlib.sha256(content).hexdigest()
            entry |= {"bytes": len(content), "sha256": digest}
            entry["file"] = f"{name}-{digest[:16]}.safetensors"
            (home_of(rack, name) / entry["file"]).write_bytes(content)
        (rack / MANIFEST).write_text(json.dumps(sealed(manifest)))


def models(folder: Path) -> None:
    """A Hugging Face folder, and one of peft, that name classes of their own."""
    config: dict = {"model_type": "llama", "architectures": ["Evil"], "trust_remote_code": True}
    config["auto_map"] = {
        "AutoConfig": "configuration_evil.Evil",
        "AutoModelForCausalLM": "modeling_evil.Evil",
        "AutoTokenizer": ["tokenization_evil.Evil", None],
    }
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        (folder / name).write_text(json.dumps(config))
    own = {"parent_library": "evil", "base_model_class": "Evil"}
    adapter = {"peft_type": "LORA", "auto_mapping": own}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    bombed(folder / "adapter_model.safetensors")
    bombed(folder / "pytorch_model.bin")


def data(folder: Path) -> None:
    """A stopped run whose corpus is a folder in its own, with a loading script and pickles."""
    home = folder / "corpus"
    home.mkdir()
    for name in ("corpus.py", "evil.py", "__init__.py"):
        (home / name).write_text(TOUCH)
    for name in ("train.pkl", "train.pickle", "data.pt"):
        bombed(home / name)
    configs = "configs:\n- config_name: default\n  data_files: '*.pkl'\n"
    (home / "README.md").write_text(f"---\n{configs}---\n")
    path = folder / "experiment.yaml"
    exp = yaml.safe_load(path.read_text())
    exp["data"]["corpus"] = {"kind": "hf", "dataset": "corpus"}
    path.write_text(yaml.safe_dump(exp))
    place = yaml.safe_load((folder / "placement.yaml").read_text())
    (folder / "placement.yaml").write_text(yaml.safe_dump({**place, "data_dir": "."}))
    status = sw.Run(folder).status()
    (folder / "status.json").write_text(json.dumps({**status, "state": "stopped"}))
    rehash(folder, "experiment.yaml")


def test_the_hook_sees_what_is_executed(went) -> None:
    seen, came = went["seen"]
    assert {event for event, _ in seen} >= {"pickle.find_class", "compile", "subprocess.Popen"}
    assert all(each.startswith("executed") for each in came.values())


def test_a_folder_of_pickles_is_a_folder_of_damage(went) -> None:
    seen, came = went["pickles"]
    assert seen == []
    assert came["stages"] == "DamagedRun" and came["tokenizer"] == "DataError"
    assert came["rack"] in ("CheckpointError", "ExperimentError", "DamagedRun")
    assert came["model"] == came["adapters"] == "ModelError"


def test_weights_that_are_pickles_are_damage_whatever_their_hashes(went) -> None:
    seen, came = went["weights"]
    assert seen == []
    assert came["experiment"] == came["metrics"] == came["page"] == "read"
    assert {came[name] for name in ("rack", "best", "lent", "evaluate")} == {"CheckpointError"}


def test_models_that_bring_code_bring_none(went) -> None:
    seen, came = went["models"]
    assert seen == []
    assert came["imported"] == came["adapters"] == "ModelError"


def test_data_that_brings_a_script_is_refused(went) -> None:
    seen, came = went["data"]
    assert [each for each in seen if "stackwise.detached.supervisor" not in each[1]] == []
    assert came["resume"] == came["evaluate"] == "DataError"
