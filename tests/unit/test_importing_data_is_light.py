"""Reading the registries must not cost the time of pandas, datasets, pyarrow or tokenizers."""

import subprocess
import sys

HEAVY = ("pandas", "datasets", "pyarrow", "tokenizers", "pythonbible")


def test_no_heavy_package_is_imported():
    code = (
        "import sys, stackwise.data.baselines, stackwise.data.corpora\n"
        "import stackwise.data.dataset, stackwise.data.tokenizer\n"
        f"print(*[name for name in {HEAVY} if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == ""
