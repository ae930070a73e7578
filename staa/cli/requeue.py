"""--requeue: a job of SLURM that is to end saves, asks to be queued again, and goes on when it is started again."""

import os
import shutil
import subprocess
from pathlib import Path

from staa.runs.folder import ENVIRONMENT, read_json
from staa.runs.seeds import first_run

JOB = "SLURM_JOB_ID"


def job_of() -> str:
    """The job that this process runs in. Raises ValueError if it is none, or scontrol is missing."""
    job = os.environ.get(JOB, "")
    if not job.isdigit():
        raise ValueError(f"--requeue is for a job of SLURM, which says ${JOB}, and this is none: leave it out")
    if shutil.which("scontrol") is None:
        raise ValueError("--requeue needs SLURM's scontrol on the PATH of the job, and there is none: leave it out")
    return job


def began_in(job: str, target: Path) -> bool:
    """Whether a run in this folder was begun by the job, which has been started again since."""
    path = first_run(target) / ENVIRONMENT
    return path.is_file() and read_json(path).get("job") == job


def requeue(job: str) -> None:
    """Have SLURM queue the job again. Raises RuntimeError if it won't."""
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        why = " ".join((done.stderr or done.stdout).split()) or f"scontrol ended with {done.returncode}"
        raise RuntimeError(f"the run is saved, but job {job} could not be queued again: {why}")
