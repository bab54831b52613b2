"""scripts/slurm-study with commands of SLURM that run everything on this machine."""

import os
import shutil
import subprocess
import sys

import pytest

from study_cases import ENVIRONMENT, TESTS, contents, session, wait_for

pytest.importorskip("distributed")

SCRIPT = TESTS.parent / "scripts" / "slurm-study"
SRUN = """#!/usr/bin/env bash
echo "srun $*" >>"$COMMANDS"
while [[ "$1" == --* ]]; do
    case "$1" in --ntasks=*) count="${1#*=}" ;; esac
    shift
done
trap 'kill $(jobs -p)' TERM  # as srun does with its tasks
for ((k = 0; k < count; k++)); do "$@" & done
wait
wait
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >>"$COMMANDS"
"""
COMMAND = f"""#!/usr/bin/env bash
exec {sys.executable} -c 'from mpodis.cli import main; main()' "$@"
"""
DASK = f"""#!/usr/bin/env bash
exec {sys.executable} -m dask "$@"
"""
STUDY = """
run = "study_cases:asleep"
seeds = 10

[settings]
seconds = 0.3

[grid]
n = [1, 2, 3, 4]
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("openssl"), reason="needs Linux and openssl"
)


@pytest.fixture
def job(tmp_path):
    """Starts the script as a job of two tasks, in a session of its own."""
    commands = {"srun": SRUN, "scontrol": SCONTROL, "mpodis": COMMAND, "dask": DASK}
    (tmp_path / "bin").mkdir()
    for name, text in commands.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "depth.toml").write_text(STUDY)
    environment = ENVIRONMENT | {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "COMMANDS": str(tmp_path / "commands"),
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "INTERFACE": "lo",
        "TMPDIR": str(tmp_path),
    }
    started = []

    def start(**changed):
        process = subprocess.Popen(
            [SCRIPT, "depth.toml", "--quiet"],
            cwd=tmp_path,
            env=environment | changed,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        for pid in session(process.pid):
            os.kill(pid, 9)
        process.communicate()


def test_a_job_whose_time_is_over_puts_itself_into_the_queue_again(job, tmp_path):
    process, records = job(), tmp_path / "studies" / "depth"
    assert wait_for(lambda: len(list(records.glob("cases/*.json"))) >= 3, 120)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "the time is over" in errors
    assert "go on with `mpodis study run depth.toml`" in errors
    assert 3 <= len(contents(records)) < 40
    scheduler, workers, again = (tmp_path / "commands").read_text().splitlines()
    assert scheduler.startswith("srun --overlap --nodes=1 --ntasks=1 --cpus-per-task=1 dask sched")
    assert workers.startswith("srun --overlap --ntasks=2 --cpus-per-task=1 --kill-on-bad-exit=0 ")
    for command in (scheduler, workers):
        assert "--protocol tls" in command
        assert f"--scheduler-file {tmp_path}/.slurm-study-7-" in command
    assert "--nthreads 1" in workers
    assert again == "scontrol requeue 7"
    assert not list(tmp_path.glob(".slurm-study*"))  # addresses and keys
    assert wait_for(lambda: not session(process.pid), 20)


def test_a_job_computes_the_study_and_ends_its_workers(job, tmp_path):
    process = job()
    shown, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert "page: studies/depth/index.html" in shown
    assert len(contents(tmp_path / "studies" / "depth")) == 40
    assert wait_for(lambda: not session(process.pid), 20)


def test_what_is_missing_is_said_before_anything_starts(job):
    for changed, message in (
        ({"SLURM_JOB_ID": ""}, "this is a job script; submit it: sbatch"),
        ({"PATH": "/usr/bin:/bin"}, "there is no command mpodis"),
    ):
        process = job(**changed)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 1
        assert message in errors
