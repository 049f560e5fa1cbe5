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

import stackwise as sw
from stackwise.training.checkpoint import MANIFEST, read_manifest, sealed

from ..warm import forked_json

SOURCES = [*Path(sw.__file__).parent.rglob("*.py")]
SOURCES += [*(Path(sw.__file__).parents[1] / "widgets").rglob("*.py")]
LOADERS = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal",
    "multiprocessing", "runpy", "imp", "pdb", "code", "codeop", "fsspec", "requests", "ftplib",
}  # fmt: skip
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
            assert not LOADERS & set(names), f"{path}: imports {names}"
            if isinstance(node, ast.Call):
                assert not {word.arg for word in node.keywords} & REMOTE, f"{path}: {node.lineno}"
                if called(node) in CALLS:
                    found.add((path.name, called(node)))
                    if called(node) == "yaml.load":
                        assert {word.arg for word in node.keywords} == {"Loader"}
    assert found == set(ALLOWED)


class Bomb:
    """Unpickled, it leaves a file where the process works."""

    def __reduce__(self):
        return (open, ("pwned", "w"))


TOUCH = "open('pwned', 'w').close()\n"
MODULES = ("torch", "yaml", "stackwise", "sitecustomize", "conftest", "json", "modeling_evil",
           "configuration_evil", "tokenization_evil", "evil", "__init__", "hubconf")  # fmt: skip
CHILD = """
import json, os, sys

seen, home = [], os.path.realpath(sys.argv[1])
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")
NETS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")


def inside(path):
    return isinstance(path, (str, bytes)) and os.path.realpath(os.fsdecode(path)).startswith(home)


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
folder, runs = Path(home), Path(home).parent
out = runs.parent / "out"
out.mkdir(exist_ok=True)
run = sw.Run(folder)
READERS = dict(
    state=lambda: run.state, status=run.status, error=run.error, summary=run.summary,
    experiment=lambda: run.experiment, asked=lambda: asked_of(run), stages=run.stages,
    plan=run.plan, provenance=run.provenance, carries=run.carries, events=run.events,
    metrics=run.metrics, evals=run.evals, layers=run.layers, statistics=run.statistics,
    drift=run.drift, memory=run.memory, result=run.result, tokenizer=run.tokenizer,
    labels=lambda: run.labels, log=run.log, what_now=run.what_now, rack=run.rack,
    best=lambda: run.rack(best=True), lent=lambda: run.rack(lent="disk"),
    stages_done=run.stages_done, weights=run.weights_hash, follow=lambda: Follower(folder).read(),
    screen=lambda: screen(run, 80, Follower(folder)), after=lambda: rack_after(run, 0),
    listed=lambda: runs_in(runs), evaluate=lambda: evaluate_run(run),
    sample=lambda: sw.sample(run.rack(), "a", length=2), view=lambda: view_of(run),
    page=lambda: write_page(run, out / "page.html"), panel=lambda: RunPanel(run=run),
    compare=lambda: Compare(runs).wait(), inspect=lambda: Inspect(run).wait(),
    teach=lambda: Teach(run), zip=lambda: run.share(out / "run.zip"),
    fork=lambda: run.fork(after_stage=0, launch=False, optim={"lr": 1e-3}),
    resume=lambda: resume(run), again=lambda: launching.relaunch(run, queue=False),
    study=lambda: Study.load(folder), result_of=lambda: Study.load(folder / "study.yaml"),
    model=lambda: sw.read_model(folder), imported=lambda: sw.import_model(folder, out / "model"),
    exported=lambda: sw.export_model(run, out / "hf"), adapters=lambda: read_folder(folder),
    start=lambda: experiment_from(folder), state_file=lambda: Workbench(state=folder / "state.yaml"),
    **{word: lambda word=word: main([word, str(folder)]) for word in
       ("eval", "sample", "resume", "label", "pause", "stop", "watch", "export", "import", "study")},
)
left = set(sys.argv[2].split()) if len(sys.argv) > 2 else set()
os.chdir(folder)
told, sys.stdout = sys.stdout, open(os.devnull, "w")
went = {}
for name, read in READERS.items():
    if name in left:
        continue
    try:
        read()
        went[name] = "read"
    except (Exception, SystemExit) as error:
        went[name] = type(error).__name__
    if os.path.exists("pwned"):
        seen.append(["pwned", name])
        os.unlink("pwned")
print(json.dumps([seen, went]), file=told, flush=True)
os._exit(0)
"""


def opened(folder: Path, left: str = "") -> dict[str, str]:
    """What came of every reader; none may have executed anything."""
    for name in MODULES:
        (folder / f"{name}.py").write_text(TOUCH)
    seen, went = forked_json(CHILD, str(folder), left)
    assert seen == []
    assert not (folder / "pwned").exists()
    return went


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> sw.Run:
    exp = sw.Experiment(
        title="tiny",
        curriculum="left_to_right",
        rack={"stacks": 2, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 16},
        optim={"batch": 4, "ema": 0.9},
        budget={"tokens": 4 * 4 * 16},
        eval={"points": 2, "windows": 2, "final": 2},
    )
    place = sw.Placement(runs_dir=str(tmp_path_factory.mktemp("runs")), device="cpu", threads=1)
    return sw.train(exp, place)


@pytest.fixture
def run(finished, tmp_path) -> sw.Run:
    return sw.Run(shutil.copytree(finished.path, tmp_path / "runs" / finished.id))


def bombed(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(Bomb()))


def test_the_hook_sees_what_would_be_executed(tmp_path) -> None:
    (tmp_path / "stages.json").write_text("[]")
    bombed(tmp_path / "b.pkl")
    (tmp_path / "evil.py").write_text(TOUCH)
    for act in (
        "__import__('pickle').load(open(folder / 'b.pkl', 'rb'))",
        "__import__('runpy').run_path(str(folder / 'evil.py'))",
        "__import__('subprocess').run(['true'])",
    ):
        code = CHILD.replace(
            "READERS = dict(", f"READERS = dict(evil=lambda: {act}, **{{}}) or dict("
        )
        code = code.replace("for name, read in READERS", "for name, read in READERS", 1)
        seen, _ = forked_json(code.replace("status=run.status", f"status=lambda: {act}"),
                              str(tmp_path), " ".join(("resume", "again")))  # fmt: skip
        assert seen, act


def test_a_folder_of_pickles_is_a_folder_of_damage(run) -> None:
    names = [path for path in run.path.rglob("*") if path.is_file()]
    for path in names:
        bombed(path)
    for name in ("pytorch_model.bin", "model.pt", "adapter_model.bin", "training_args.bin",
                 "model.safetensors", "adapter_model.safetensors", "config.json", "model.yaml",
                 "adapter_config.json", "study.yaml", "runs.json", "state.yaml"):  # fmt: skip
        bombed(run.path / name)
    went = opened(run.path)
    assert {went[name] for name in ("stages", "rack", "resume", "tokenizer", "model")} == {
        "RunError", "CheckpointError", "ExperimentError", "DataError", "ModelError"
    } - ({"CheckpointError"} if went["rack"] != "CheckpointError" else set()) - (
        {"ExperimentError"} if went["resume"] != "ExperimentError" else set()
    )  # fmt: skip


def test_weights_that_are_pickles_are_damage_whatever_their_hashes(run) -> None:
    for folder in (run.path / "rack", *run.path.glob("stages/*/rack"), run.path / "best"):
        manifest = read_manifest(folder)
        for name, entry in manifest["parts"].items():
            home = folder if "." not in name or folder.name != "rack" else folder.parent / "state"
            (home / entry["file"]).unlink()
            content = pickle.dumps(Bomb())
            digest = hashlib.sha256(content).hexdigest()
            entry |= {"bytes": len(content), "sha256": digest}
            entry["file"] = f"{name}-{digest[:16]}.safetensors"
            (home / entry["file"]).write_bytes(content)
        (folder / MANIFEST).write_text(json.dumps(sealed(manifest)))
    went = opened(run.path)
    assert went["experiment"] == went["metrics"] == went["page"] == "read"
    assert {went[name] for name in ("rack", "best", "lent", "evaluate")} == {"CheckpointError"}


def test_models_that_bring_code_bring_none(run) -> None:
    config = {
        "model_type": "llama",
        "architectures": ["EvilForCausalLM"],
        "trust_remote_code": True,
    }
    config["auto_map"] = {
        "AutoConfig": "configuration_evil.Evil",
        "AutoModelForCausalLM": "modeling_evil.Evil",
        "AutoTokenizer": ["tokenization_evil.Evil", None],
    }
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        (run.path / name).write_text(json.dumps(config))
    adapter = {
        "peft_type": "LORA",
        "auto_mapping": {"parent_library": "evil", "base_model_class": "Evil"},
    }
    (run.path / "adapter_config.json").write_text(json.dumps(adapter))
    bombed(run.path / "adapter_model.safetensors")
    bombed(run.path / "pytorch_model.bin")
    (run.path / "chat_template.jinja").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    went = opened(run.path)
    assert went["imported"] == went["adapters"] == "ModelError"


def test_data_that_brings_a_script_is_refused(run) -> None:
    """A run whose corpus is a folder in its own, with a loading script and pickles."""
    home = run.path / "corpus"
    home.mkdir()
    for name in ("corpus.py", "evil.py", "__init__.py"):
        (home / name).write_text(TOUCH)
    for name in ("train.pkl", "train.pickle", "data.pt", "0.tar"):
        bombed(home / name)
    (home / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: '*.pkl'\n---\n"
    )
    import yaml

    path = run.path / "experiment.yaml"
    exp = yaml.safe_load(path.read_text())
    exp["data"]["corpus"] = {"kind": "hf", "dataset": "corpus"}
    path.write_text(yaml.safe_dump(exp))
    place = yaml.safe_load((run.path / "placement.yaml").read_text())
    (run.path / "placement.yaml").write_text(yaml.safe_dump({**place, "data_dir": "."}))
    status = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps({**status, "state": "stopped"}))
    for folder in (run.path / "rack", run.path / "best"):
        manifest = read_manifest(folder)
        manifest["run"]["experiment.yaml"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (folder / MANIFEST).write_text(json.dumps(sealed(manifest)))
    went = opened(run.path, "again")
    assert went["resume"] == went["evaluate"] == "DataError"
