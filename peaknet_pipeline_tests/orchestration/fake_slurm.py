"""A stand-in for sbatch, squeue, sacct and scancel, which runs jobs as processes of this machine.

What happens to the jobs stands in the file ``plan``, a word a job: ``run``, ``fail`` (exit 3 without doing anything),
``node`` (the node fails), ``lose`` (nobody knows the job ever after), ``hang`` (it runs until it is cancelled).
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "squeue", "sacct", "scancel")


def install(folder: Path, plan: str) -> Path:
    """Write the four commands into ``folder``; return the folder of their state."""
    state = folder / "state"
    state.mkdir(parents=True)
    (state / "plan").write_text(plan)
    for name in COMMANDS:
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{__file__}" "{state}" {name} "$@"\n')
        path.chmod(0o755)
    return state


def _sbatch(state: Path, options: dict[str, str]) -> None:
    plan = (state / "plan").read_text().split()
    number = len(list(state.glob("job-*"))) + 1
    fate = plan[min(number, len(plan)) - 1]
    folder = state / f"job-{number}"
    folder.mkdir()
    script = sys.stdin.read()
    (folder / "script").write_text(script)
    (folder / "options").write_text("\n".join(f"{k}={v}" for k, v in options.items()))
    (folder / "fate").write_text(fate)
    (folder / "began").write_text(str(time.time()))
    ends = {"fail": "FAILED 3", "node": "NODE_FAIL 0"}
    if fate in ends:
        (folder / "end").write_text(ends[fate])
    elif fate in ("run", "hang"):
        work = script if fate == "run" else "#!/bin/sh\nexec sleep 600\n"
        runner = f'(cat <<"EOF_JOB" | sh\n{work}EOF_JOB\n)\nr=$?\n[ $r = 0 ] && s=COMPLETED || s=FAILED\necho $s $r > end'
        with Path(options["output"]).open("wb") as log:
            job = subprocess.Popen(
                ["sh", "-c", runner], cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        (folder / "pid").write_text(str(job.pid))
    print(number)


def _squeue(state: Path, options: dict[str, str]) -> None:
    folder = state / f"job-{options['jobs']}"
    if (folder / "fate").read_text() == "lose":
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    if not (folder / "end").exists():
        print("RUNNING")


def _sacct(state: Path, options: dict[str, str]) -> None:
    folder = state / f"job-{options['jobs']}"
    if (folder / "fate").read_text() == "lose":
        return
    word, code = (folder / "end").read_text().split() if (folder / "end").exists() else ("RUNNING", "0")
    print(f"{word}|{code}:0|36|2")


def _scancel(state: Path, number: str) -> None:
    folder = state / f"job-{number}"
    (folder / "cancelled").touch()
    if (folder / "pid").exists():
        os.killpg(int((folder / "pid").read_text()), signal.SIGTERM)
        (folder / "end").write_text("CANCELLED 0")


def main(arguments: list[str]) -> None:
    """Be one of the four commands."""
    state, name = Path(arguments[0]), arguments[1]
    if name == "scancel":
        _scancel(state, arguments[2])
        return
    options = dict(a.removeprefix("--").split("=", 1) for a in arguments[2:] if "=" in a)
    {"sbatch": _sbatch, "squeue": _squeue, "sacct": _sacct}[name](state, options)


if __name__ == "__main__":
    main(sys.argv[1:])
