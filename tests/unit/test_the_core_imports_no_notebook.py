"""The core runs on a machine without notebook or plotting packages: no module of it imports one."""

import subprocess
import sys

IMPORT_ALL = """
import importlib, pkgutil, sys
import stackwise
names = [m.name for m in pkgutil.walk_packages(stackwise.__path__, "stackwise.")]
for name in names:
    importlib.import_module(name)
found = {"matplotlib", "plotly", "IPython", "ipywidgets", "stackwise_widgets"} & set(sys.modules)
print(len(names), *sorted(found))
"""


def test_no_module_of_the_core_imports_a_notebook_or_plotting_package() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, *found = done.stdout.split()
    assert int(count) > 40
    assert found == []
