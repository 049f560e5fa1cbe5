"""Notebooks that tests write: code cells, and one that keeps the kernel at work."""

from __future__ import annotations

from pathlib import Path

import nbformat

# A cell that keeps the kernel at work until `release`, and then says so.
HELD = """
import pathlib, time
while not pathlib.Path("released").exists():
    time.sleep(0.05)
print("released")
"""


def write_notebook(path: Path, *cells: str) -> Path:
    """A notebook of code cells, to be run by this environment's kernel."""
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    notebook.cells = [nbformat.v4.new_code_cell(cell.strip()) for cell in cells]
    nbformat.write(notebook, path)
    return path
