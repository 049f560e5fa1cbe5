"""`stackwise calibrate` as a user calls it, on the machine that runs the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys


def called(*arguments: str, cache) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stackwise", "calibrate", *arguments]
    env = {**os.environ, "STACKWISE_CACHE": str(cache)}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def test_it_prints_a_table_and_writes_what_plans_read(tmp_path) -> None:
    cache, arguments = tmp_path / "cache", ("--rounds", "1", "--device", "cpu", "--threads", "1")
    done = called("--folder", str(tmp_path), *arguments, cache=cache)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].split() == ["what", "size", "rate", "spread", "timings"]
    assert any(line.startswith("matmul/float32") and "FLOP/s" in line for line in lines)
    assert lines[-2].startswith("products are ") and " as fast in " in lines[-2]
    assert lines[-1] == f"written to {cache / 'calibration.json'}"
    found = json.loads((cache / "calibration.json").read_text())
    assert found["threads"] == 1 and all(rate["rate"] > 0 for rate in found["rates"])
    code = (
        "import stackwise as sw; e = sw.Experiment.preset('toy'); "
        "h = sw.hardware_called('this'); "
        "print(sw.step_seconds(e, sw.Placement(), sw.stages(e)[0], h).total)"
    )
    env = {**os.environ, "STACKWISE_CACHE": str(cache)}
    seconds = float(subprocess.check_output([sys.executable, "-c", code], text=True, env=env))
    assert 1e-4 < seconds < 10, "a step of the toy, on any machine that runs these tests"


def test_a_folder_that_is_none_is_refused_before_anything_is_measured(tmp_path) -> None:
    done = called("--folder", str(tmp_path / "nope"), cache=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("stackwise: --folder: ") and "is no folder" in done.stderr


def test_rounds_are_one_or_more(tmp_path) -> None:
    done = called("--rounds", "0", cache=tmp_path)
    assert done.returncode == 2 and "rounds: 0 must be 1 or more" in done.stderr
