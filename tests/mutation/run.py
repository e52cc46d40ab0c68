# SPDX-License-Identifier: BSD-2-Clause
"""Puts each of mutations.py into a scratch copy of this tree, builds it, and requires that its tests fail there.

The same tests must pass on the copy as it is. `make mutation` runs it; arguments are names, or parts of names, of some.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mutations import MUTATIONS

ROOT = Path(__file__).resolve().parents[2]
COPY = ROOT / "build/mutation"
LOGS = ROOT / "build/logs"
KEPT = ("obj", "lib", "gen", "bpf")  # of what is built: the copy need not begin from nothing


def run(*command, timeout=600, **options):
    return subprocess.run([str(word) for word in command], cwd=COPY, capture_output=True, text=True, timeout=timeout, **options)


def copy_tree():
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, files):
        source = ROOT / name
        if source.exists():
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, COPY / name, follow_symlinks=False)
    for name in KEPT:
        if (ROOT / "build" / name).exists():
            shutil.copytree(ROOT / "build" / name, COPY / "build" / name, copy_function=shutil.copy2)


def build(programs):
    done = run("make", "--no-print-directory", f"-j{os.cpu_count()}", *(f"build/bin/{name}" for name in programs))
    if done.returncode:
        sys.exit(f"mutation: the copy does not build:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def test(arguments, log):
    """(passed, failed) of pytest in an envelope; what could not even begin counts as neither."""
    done = run("tests/envelope.sh", "/usr/bin/python3", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments,
               env={**os.environ, "WIRETOLL_BIN": str(COPY / "build/bin"), "PYTHONDONTWRITEBYTECODE": "1"})
    log.write_text(done.stdout + done.stderr)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
    return tuple(sum(map(int, re.findall(rf"(\d+) {word}", last))) for word in ("passed", "failed"))


def edit(edits):
    """Applies the edits and returns what the files were."""
    before = {}
    for name, old, new in edits:
        path = COPY / name
        text = path.read_text()
        before.setdefault(path, text)
        if text.count(old) != 1:
            sys.exit(f"mutation: {name} has this text {text.count(old)} times, 1 is needed: adapt tests/mutation/mutations.py\n{old}")
        path.write_text(text.replace(old, new))
    return before


def try_one(name, mutation):
    """Whether the suite noticed it."""
    log = LOGS / f"mutation-{re.sub('[^a-z]+', '-', name)}.log"
    build(mutation["programs"])
    passed, failed = test(mutation["tests"], log)
    if failed or not passed:
        sys.exit(f"mutation: {' '.join(mutation['tests'])} does not pass as it is: {log}")
    before = edit(mutation["edits"])
    try:
        build(mutation["programs"])
        begun = time.monotonic()
        _, failed = test(mutation["tests"], log)
        noticed = failed > 0
        where = re.findall(r"^FAILED (\S+)", log.read_text(), re.MULTILINE)
        print(f"{'ok' if noticed else 'not ok'} - {name}: {'noticed by ' + where[0] if where else 'nobody noticed'} "
              f"({time.monotonic() - begun:.0f} s)", flush=True)
        return noticed
    finally:
        for path, text in before.items():
            path.write_text(text)


def main():
    chosen = {name: mutation for name, mutation in MUTATIONS.items() if all(word in name for word in sys.argv[1:])}
    if not chosen:
        sys.exit(f"mutation: no such one; there are: {', '.join(MUTATIONS)}")
    LOGS.mkdir(parents=True, exist_ok=True)
    copy_tree()
    noticed = sum(try_one(name, mutation) for name, mutation in chosen.items())
    shutil.rmtree(COPY, ignore_errors=True)
    print(f"mutation: {noticed} of {len(chosen)} bugs noticed")
    return 0 if noticed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
