"""Whether detbuild trains on this machine's GPU as it should, and what that costs.

    PYTHONPATH=.:harness python3 benchmarks/gpu/check.py --out DIRECTORY [--device cuda] [--short] [NAME ...]

Every check has a process of its own. A table goes to the terminal and all figures to DIRECTORY/check.json.
Needs torch and a checkout, nothing else. Ends with 1 if a promise does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

NAMES = {
    "trains": "training",
    "mixed": "training",
    "resumes": "training",
    "killed": "training",
    "compiled": "training",
    "launched": "training",
    "throughput": "cost",
    "memory": "cost",
    "checkpoint": "cost",
}
_PATIENCE = 150  # seconds for one check
_MARK = "FIGURES "


def here(name: str, device: str, *, short: bool) -> None:
    """Do one check in this process."""
    import importlib

    from setting import Absent, Missed, Place

    try:
        figures = getattr(importlib.import_module(NAMES[name]), name)(Place(device, short))
        told = {"verdict": "holds", "figures": figures}
    except Missed as missed:
        told = {"verdict": "MISSED", "figures": {"promise": str(missed)}}
    except Absent as absent:
        told = {"verdict": "left out", "figures": {"why": str(absent)}}
    print(_MARK + json.dumps(told), flush=True)


def apart(name: str, args: argparse.Namespace) -> dict[str, object]:
    """Do one check in a process of its own."""
    call = [sys.executable, __file__, "--only", name, "--device", args.device, *["--short"][: args.short]]
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(root), str(root / "harness"), os.environ.get("PYTHONPATH", "")])
    environ = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONPATH": path.rstrip(os.pathsep)}
    start = time.monotonic()
    try:
        done = subprocess.run(
            call, env=environ, capture_output=True, text=True, timeout=_PATIENCE, check=False, cwd=args.out
        )
        told = _told(done)
    except subprocess.TimeoutExpired:
        told = {"verdict": "BROKEN", "figures": {"why": f"not done after {_PATIENCE} s"}}
    return {**told, "seconds": round(time.monotonic() - start, 1)}


def _told(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(_MARK):
            return dict(json.loads(line[len(_MARK) :]))
    return {"verdict": "BROKEN", "figures": {"why": done.stderr[-2000:] or done.stdout[-2000:]}}


def machine(device: str) -> dict[str, object]:
    import torch

    told: dict[str, object] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cpus": os.cpu_count(),
    }
    if device == "cuda":
        told["gpu"] = torch.cuda.get_device_name()
    return told


def show(name: str, told: dict[str, object]) -> None:
    figures = told["figures"]
    assert isinstance(figures, dict)
    print(f"{name:11} {told['verdict']:8} {told['seconds']:6} s", flush=True)
    for key, value in figures.items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"{'':11} {key}: {shown}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--short", action="store_true", help="small models and few steps, to try the checks")
    parser.add_argument("--only", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--die-in", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.die_in:
        from setting import Place
        from training import die

        die(Place(args.device, args.short), args.die_in)
    if args.only:
        here(args.only, args.device, short=args.short)
        return 0
    if args.out is None:
        parser.error("name a directory for the figures with --out")
    return survey(args)


def survey(args: argparse.Namespace) -> int:
    args.out.mkdir(parents=True, exist_ok=True)
    told = {"machine": machine(args.device), "device": args.device, "short": args.short, "checks": {}}
    print(", ".join(f"{key} {value}" for key, value in told["machine"].items()), flush=True)
    for name in args.names or NAMES:
        told["checks"][name] = one = apart(name, args)
        show(name, one)
        (args.out / "check.json").write_text(json.dumps(told, indent=1) + "\n")  # what is known so far stays
    good = all(one["verdict"] in {"holds", "left out"} for one in told["checks"].values())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
