# SPDX-License-Identifier: LGPL-2.1-or-later
"""Figures of the deep runs: figures/<suite>.json, committed, so that a README can quote them."""
import datetime
import json
import os

DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "figures")
DEEP = int(os.environ.get("SMAPI_DEEP") or 1) > 1


def save(suite, **values):
    """Writes them down, if this is a deep run."""
    if not DEEP:
        return
    os.makedirs(DIRECTORY, exist_ok=True)
    path = os.path.join(DIRECTORY, suite + ".json")
    with open(path + ".new", "w", encoding="ascii") as out:
        json.dump({"date": datetime.date.today().isoformat(), **values}, out, indent=1, sort_keys=True)
        out.write("\n")
    os.rename(path + ".new", path)
