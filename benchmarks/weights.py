"""A finished run as pretrained weights of the package:  python -m benchmarks.weights RUN NAME

Writes staa/weights/NAME, which `staa.pretrained(NAME)` opens: the files of the published run and their checksums. Of a run that
is measured with its last weights, those that were best on validation are left out.
"""

import hashlib
import sys
from pathlib import Path

from staa.export.share import shared_files
from staa.files import check_new, save_text, write
from staa.hub import SUMS, WEIGHTS
from staa.runs import Run
from staa.training.checkpoint import BEST


def main(folder: Path, name: str) -> None:
    run, out = Run(folder), WEIGHTS / name
    check_new(out)
    files = shared_files(run, pickled=False)
    if run.recipe.weights == "last":
        files.pop(BEST, None)
    out.mkdir(parents=True)
    for file, data in files.items():
        write(out / file, data)
    save_text(out / SUMS, "".join(f"{hashlib.sha256(data).hexdigest()}  {file}\n" for file, data in files.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
