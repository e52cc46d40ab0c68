# SPDX-License-Identifier: BSD-2-Clause
"""The seed of a run, how far it is, and the lines of figures that it ends with."""

import os
import random

SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))


def figures(text):
    """Appended to the file that SOAK_FIGURES names."""
    print(text)
    if os.environ.get("SOAK_FIGURES"):
        with open(os.environ["SOAK_FIGURES"], "a", encoding="utf-8") as file:
            print(text, file=file)


def progress(text):
    """To the descriptor that SOAK_PROGRESS names: pytest keeps what is printed."""
    if os.environ.get("SOAK_PROGRESS"):
        os.write(int(os.environ["SOAK_PROGRESS"]), f"{text}\n".encode())
