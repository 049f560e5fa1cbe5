"""The hash that names a run is the value's alone: another process finds the same one."""

import subprocess
import sys

from stackwise import Experiment


def test_the_hash_is_the_same_in_another_process():
    exp = Experiment(title="base", data="markov", optim={"lr": "3e-4"}, curriculum="grow")
    code = "import sys, stackwise; E = stackwise.Experiment\n"
    code += "print(E.from_yaml(sys.stdin.read()).hash)"
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, input=exp.to_yaml(), text=True, capture_output=True, check=True)
    assert done.stdout.strip() == exp.hash
