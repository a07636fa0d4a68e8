"""What other people's scripts import costs no torch, and its errors are those of the harness."""

import subprocess
import sys

RULES = (
    "dpg.rules",
    "fid.frechet",
    "geneval.decision",
    "geneval2.rules",
    "longtext.rules",
    "oneig.rules",
)


def test_rules_import_neither_torch_nor_transformers_nor_pandas():
    script = "\n".join(
        [
            "import sys",
            *(f"import sana_bench.metrics.{name}" for name in RULES),
            "print(sorted({'torch', 'transformers', 'pandas', 'numpy'} & set(sys.modules)))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # numpy is there, so that an empty list cannot come from looking in the wrong place.
    assert done.stdout.strip() == "['numpy']"
