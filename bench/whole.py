# SPDX-License-Identifier: BSD-2-Clause
"""Deployment and changed peers through the whole system: the demo's laboratory, with the API, PostgreSQL, the driver, an
agent and clients as real as there. A packet that is lost ends it with an error.
"""

import json
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "demo"))

from scenario import STATE, Scenario  # noqa: E402


def measure(scenario):
    scenario.networks()
    scenario.start_control_plane()
    scenario.offer()
    scenario.result["deploy_ms"] = scenario.deploy("prod1", "gw1")
    scenario.add_peer("gw1", scenario.c1)
    scenario.peer_changes()


def main():
    # The programs that it starts and the demo itself say much; only the samples are wanted.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    STATE.parent.mkdir(parents=True, exist_ok=True)
    scenario = Scenario(Path(os.environ.get("WIRETOLL_BIN", ROOT / "build/bin")))
    try:
        measure(scenario)
    finally:
        if scenario.up:
            scenario.up.send_signal(signal.SIGTERM)
            scenario.up.wait(30)
    times, others = scenario.result["peer_change_ms"], scenario.result["undisturbed"]
    for name, unit, value in (("deploy", "ms", scenario.result["deploy_ms"]), ("change", "ms", times["p99"]),
                              ("change-median", "ms", times["p50"]), ("lost", "packets", others["lost"]),
                              ("sent", "packets", others["sent"])):
        print(json.dumps({"series": f"whole/{name}", "unit": unit, "values": [value]}), file=output)


if __name__ == "__main__":
    main()
