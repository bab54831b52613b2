"""scripts/slurm-study with commands of SLURM that run everything on this machine."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from study_cases import ENVIRONMENT, TESTS, contents, session, wait_for

SCRIPT = TESTS.parent / "scripts" / "slurm-study"
SRUN = """#!/usr/bin/env bash
echo "srun $*" >>"$COMMANDS"
while [[ "$1" == --* ]]; do
    case "$1" in --ntasks=*) count="${1#*=}" ;; esac
    shift
done
# as srun does with its tasks; again, since a task that is just being started may miss it
trap 'while kill $(jobs -p) 2>/dev/null; do sleep 0.05; done; exit' TERM
for ((k = 0; k < count; k++)); do "$@" & done
wait
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >>"$COMMANDS"
"""
REAL = {
    "mpodis": f"""#!/usr/bin/env bash
exec {sys.executable} -c 'from mpodis.cli import main; main()' "$@"
""",
    "dask": f"""#!/usr/bin/env bash
exec {sys.executable} -m dask "$@"
""",
}
EMPTY = {
    "mpodis": """#!/usr/bin/env bash
echo "mpodis $*" >>"$COMMANDS"
exec sleep "$STUDY_SECONDS"
""",
    "dask": """#!/usr/bin/env bash
env | grep ^DASK_ | sort >"$COMMANDS.$1"
while (($#)); do
    [[ "$1" != --scheduler-file ]] || file="$2"
    shift
done
[[ -s "$file" ]] || echo '{"type": "Scheduler", "address": "tls://10.0.0.1:4711"}' >"$file"
exec sleep 600
""",
}
"""Commands that compute nothing."""
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
    """Starts the script as a job of two tasks with two threads, in a session of its own."""
    environment = ENVIRONMENT | {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "COMMANDS": str(tmp_path / "commands"),
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "2",
        "SLURM_CPUS_PER_TASK": "2",
        "INTERFACE": "lo",
        "TMPDIR": str(tmp_path),
    }
    started = []

    def start(commands, **changed):
        (tmp_path / "bin").mkdir(exist_ok=True)
        for name, text in {"srun": SRUN, "scontrol": SCONTROL, **commands}.items():
            (tmp_path / "bin" / name).write_text(text)
            (tmp_path / "bin" / name).chmod(0o755)
        (tmp_path / "depth.toml").write_text(STUDY)
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
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def test_scheduler_workers_and_study_are_started_and_ended(job, tmp_path):
    process = job(EMPTY, STUDY_SECONDS="3")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    scheduler, *beside = (tmp_path / "commands").read_text().splitlines()
    study, workers = sorted(beside)
    key = re.search(rf"{tmp_path}/.slurm-study-7-\w+", scheduler)[0]
    assert scheduler == (
        "srun --overlap --nodes=1 --ntasks=1 --cpus-per-task=1 dask scheduler --protocol tls "
        f"--port 0 --no-dashboard --dashboard-address :0 --scheduler-file {key}/scheduler.json "
        "--interface lo"
    )
    assert workers == (
        "srun --overlap --ntasks=2 --cpus-per-task=2 --kill-on-bad-exit=0 dask worker --protocol "
        f"tls --scheduler-file {key}/scheduler.json --nthreads 1 --memory-limit 0 --no-dashboard "
        f"--death-timeout 300 --local-directory {tmp_path} --interface lo"
    )
    assert study == (
        "mpodis study run depth.toml --quiet --scheduler tls://10.0.0.1:4711 --threads 2"
    )
    settings = (tmp_path / "commands.worker").read_text().splitlines()
    assert "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False" in settings
    assert "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True" in settings
    assert f"DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY={key}/key.pem" in settings
    assert not Path(key).exists()
    assert wait_for(lambda: not session(process.pid), 20)


def test_a_job_whose_time_is_over_puts_itself_into_the_queue_again(job, tmp_path):
    process, commands = job(EMPTY, STUDY_SECONDS="600"), tmp_path / "commands"
    assert wait_for(lambda: commands.exists() and "mpodis" in commands.read_text(), 60)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "the time is over" in errors
    assert commands.read_text().splitlines()[-1] == "scontrol requeue 7"
    assert not list(tmp_path.glob(".slurm-study*"))
    assert wait_for(lambda: not session(process.pid), 20)


def test_a_study_is_computed_by_a_job_that_is_started_again(job, tmp_path):
    pytest.importorskip("distributed")
    process, records = job(REAL), tmp_path / "studies" / "depth"
    assert wait_for(lambda: len(list(records.glob("cases/*.json"))) >= 3, 120)
    process.terminate()
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    assert "go on with `mpodis study run depth.toml`" in errors
    before = contents(records)
    assert 3 <= len(before) < 40
    assert wait_for(lambda: not session(process.pid), 20)
    process = job(REAL)
    shown, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert "page: studies/depth/index.html" in shown
    after = contents(records)
    assert len(after) == 40
    assert {key: after[key] for key in before} == before
    assert wait_for(lambda: not session(process.pid), 20)


def test_what_is_missing_is_said_before_anything_starts(job):
    for changed, message in (
        ({"SLURM_JOB_ID": ""}, "this is a job script; submit it: sbatch"),
        ({"PATH": "/usr/bin:/bin"}, "there is no command mpodis"),
    ):
        process = job(EMPTY, **changed)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 1
        assert message in errors
