# SPDX-License-Identifier: BSD-2-Clause
"""What the benchmark does with what it is asked for, without measuring anything."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import run  # noqa: E402

BUILDS = ["earlier.o", "typed.o", "plain.o"]


def chosen(capsys, *parts, quick=False, builds=BUILDS, earlier="base/bin"):
    """The parts that are measured, and what is said."""
    asked = types.SimpleNamespace(parts=list(parts), quick=quick, builds=builds, earlier=earlier, base="deadbeef")
    todo = run.choose(run.steps(quick, False, builds, earlier), asked)
    return list(todo), capsys.readouterr().err


@pytest.mark.parametrize("part", run.JUDGES)
def test_every_part_that_is_named_is_measured_also_in_short(capsys, part):
    assert chosen(capsys, part) == ([part], "")
    assert chosen(capsys, part, quick=True) == ([part], "")
    full, quick = (run.steps(short, False, BUILDS, "base/bin")[part] for short in (False, True))
    assert len(quick) <= len(full)
    assert quick != full or part == "whole"


def test_what_a_quick_run_leaves_out_is_said(capsys):
    parts, said = chosen(capsys, quick=True)
    assert set(run.JUDGES) - set(parts) == set(run.API_PARTS)
    assert all(part in said for part in run.API_PARTS)
    assert chosen(capsys) == (list(run.JUDGES), "")


def test_without_an_earlier_build_it_is_said_what_has_none(capsys):
    parts, said = chosen(capsys, "lengths", "neighbour", "credit", builds=None, earlier=None)
    assert set(parts) == {"credit", "neighbour"}
    assert "lengths is left out: deadbeef" in said and "neighbour measures this build alone: deadbeef" in said


def ask(*words):
    return subprocess.run([sys.executable, BENCH / "run.py", "--program", "none", "--json", "none", "--check", *words],
                          capture_output=True, text=True)


def test_an_unknown_part_is_refused_with_those_that_there_are():
    done = ask("--parts", "cost", "neighbor", "costs")
    assert done.returncode == 1
    assert "PARTS: neighbor costs" in done.stderr and f"accepted are {' '.join(run.JUDGES)}" in done.stderr
    assert ask("--parts", *run.JUDGES).returncode == 0


def test_the_page_is_not_written_of_some_parts():
    assert "UPDATE_DOCS" in ask("--parts", "cost", "--docs", "docs/performance").stderr


def test_the_median_of_loads_and_how_sure_it_is():
    """Rounds spread by 8 ns in a load and loads by 1: what is shown is how sure the median of the loads is."""
    rounds = [load % 3 * 0.5 - 0.5 + turn for load in range(48) for turn in (-4, 0, 4)]
    series = {"lengths/loads": [48], "lengths/hook/differ": [0], "lengths/hook/all": [256]}
    for shape in ("plain4", "plain6", "tcp4", "tcp6", "udp4", "ipip", "gre", "vxlan", "srv6", "three"):
        series |= {f"lengths/{shape}/earlier": [50.0] * len(rounds), f"lengths/{shape}/now": [50 + x for x in rounds]}
    _, plain, *_ = run.judge(series, ["lengths"])
    assert plain["median"] == 0 and plain["baseline"] == 50
    assert plain["spread"] <= 0.5 and plain["met"] and plain["doubt"] is None
    assert plain["interval"][0] >= -0.5 and plain["interval"][1] <= 0.5


def test_the_page_keeps_what_is_written_by_hand(tmp_path):
    page, report = tmp_path / "performance.md", {"series": {}, "results": [], "machine": {
        "cpus": 2, "cpu": "one", "kernel": "6.1", "when": "now", "load": 0.1, "run": "full", "minutes": 20.4}}
    page.write_text(f"# Above\n{run.NOTE}\nold\n{run.NOTE}\nbelow\n")
    texts = []
    for _ in range(2):
        run.write_docs(tmp_path / "performance", report)
        texts.append(page.read_text())
    assert texts[0] == texts[1] and texts[0].startswith(f"# Above\n{run.NOTE}\nA full run on 2 CPUs (one)")
    assert texts[0].endswith(f"{run.NOTE}\nbelow\n") and "old" not in texts[0]
