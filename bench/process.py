# SPDX-License-Identifier: BSD-2-Clause
"""What other processes use, to the nanosecond and the byte's page."""

import time
from pathlib import Path


def cpu_time(pid):
    """Seconds that all threads of a process have run: its clock is named as clock_getcpuclockid(3) names it."""
    return time.clock_gettime((~pid << 3) | 2)


def memory(pid, field="RssAnon"):
    """Bytes, by the name that /proc/PID/status gives them."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split(field + ":")[1].split()[0]) * 1024
