#!/usr/bin/python3 -B
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Figures of the deep runs: figures/<suite>.json, committed, each fact once. A suite writes its parts there (save), with
a sentence whose {names} are its figures, the day, and the program they are of, as a digest of its sources. The READMEs
show them between the marks that BLOCKS names.

  tests/figures.py --table    prints what tests/README.md shows
  tests/figures.py --write    writes it, and what the other READMEs show
  tests/figures.py --check    exit status 1 and the names of READMEs that show something else (ctest lint.figures)
  tests/figures.py --program  the digest of the sources as they are
"""
import datetime
import hashlib
import json
import os
import re
import sys

TESTS = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(TESTS)
DEEP = int(os.environ.get("SMAPI_DEEP") or 1) > 1
PROGRAM = ("server", "handlers", "backends", "store")  # what the daemon is made of
# Suite -> its parts, in the order in which they are shown.
SUITES = {
    "model": ("states",),
    "kill_calls": ("once", "twice", "lies"),
    "power_cut": ("states",),
    "errors": ("calls", "starts", "hidden"),
    "kill_load": ("kills",),
    "lease_history": ("history",),
    "lease_checker": ("histories",),
    "vm_crash": ("points", "srs", "kills"),
    "vm_power": ("cuts",),
    "bugs": ("found",),
}


def directory(root):
    return os.path.join(root, "tests", "figures")


def digest(*names, root=SOURCE):
    """Of the files that these, directories or files, consist of."""
    total = hashlib.sha256()
    for name in names:
        top = os.path.join(root, name)
        paths = [top] if os.path.isfile(top) else sorted(
            os.path.join(place, file) for place, directories, files in os.walk(top) for file in files
            if not (place.endswith("__pycache__") or file.endswith(".md")))
        for path in paths:
            with open(path, "rb") as file:
                content = file.read()
            total.update(f"{os.path.relpath(path, root)} {len(content)}\n".encode() + content)
    return total.hexdigest()[:12]


def write(path, value):
    with open(path + ".new", "w", encoding="ascii") as out:
        json.dump(value, out, indent=1, sort_keys=True)
        out.write("\n")
    os.rename(path + ".new", path)


def read(suite, root=SOURCE):
    """Its parts, none when there was no deep run."""
    try:
        with open(os.path.join(directory(root), suite + ".json"), encoding="ascii") as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def save(suite, part, told, values):
    """Writes a part down; told: the sentence with {names} of values. The caller knows that this is a deep run."""
    assert part in SUITES[suite], (suite, part)
    told.format(**values)
    os.makedirs(directory(SOURCE), exist_ok=True)
    row = {"date": datetime.date.today().isoformat(), "program": digest(*PROGRAM), "told": told, "figures": values}
    write(os.path.join(directory(SOURCE), suite + ".json"), {**read(suite), part: row})


class Progress:
    """What a deep run has done already, kept in the build directory: one that was ended goes on where it was, as long as
    program, harness and settings are the same."""

    def __init__(self, name, *settings, harness=("tests/crash", "tests/e2e")):
        build = os.environ.get("SMAPI_BUILD", os.path.join(SOURCE, "build", "dev"))
        key = digest(*PROGRAM, *harness) + hashlib.sha256(repr(settings).encode()).hexdigest()[:6]
        self._path = os.path.join(build, "figures", f"{name}-{key}")
        self.done = {}  # name -> figures
        if DEEP and os.path.exists(self._path):
            with open(self._path, encoding="ascii") as lines:
                self.done = dict(json.loads(line) for line in lines)

    def add(self, name, value):
        self.done[name] = value
        if DEEP:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            with open(self._path, "a", encoding="ascii") as out:
                out.write(json.dumps([name, value]) + "\n")


# ---- what READMEs show

def table(root=SOURCE):
    lines = ["| suite | deep run of | program | figures |", "|---|---|---|---|"]
    for suite, parts in SUITES.items():
        found = read(suite, root)
        for part in parts:
            row = found.get(part)
            lines.append(f"| {suite}: {part} | {row['date']} | `{row['program']}` | {row['told'].format(**row['figures'])} |"
                         if row else f"| {suite}: {part} | not done | | |")
    return "\n".join(lines)


def figure(root, suite, part, name):
    row = read(suite, root).get(part)
    return f"{row['figures'][name]:,}" if row else "not yet"


def headline(root=SOURCE):
    def of(*where):
        return figure(root, *where)

    return "\n".join((
        "| what was done | how often | what was lost, or wrong |", "|---|---|---|",
        f"| the rules of leases searched whole | {of('model', 'states', 'states')} states | "
        f"{of('model', 'states', 'errors')} |",
        f"| kill -9 at every changing system call of every changing method | {of('kill_calls', 'once', 'runs')} | "
        f"{of('kill_calls', 'once', 'violations')} |",
        f"| and again at every one of the recovery | {of('kill_calls', 'twice', 'runs')} | "
        f"{of('kill_calls', 'twice', 'violations')} |",
        f"| power cuts: calls cut, reordered, torn | {of('power_cut', 'states', 'states')} states | "
        f"{of('power_cut', 'states', 'violations')} |",
        f"| ENOSPC, EIO, EROFS and failed syncs at every place | {of('errors', 'calls', 'trials')} | "
        f"{of('errors', 'calls', 'violations')} |",
        f"| kill -9 under 64 clients | {of('kill_load', 'kills', 'kills')} | {of('kill_load', 'kills', 'lost')} |",
        f"| lease calls of 16 hosts with kills, stops and clock jumps, judged by three judges | "
        f"{of('lease_history', 'history', 'calls')} | {of('lease_history', 'history', 'anomalies')} |",
        f"| seeded bugs, to see that the tests see | {of('bugs', 'found', 'bugs')} | {of('bugs', 'found', 'missed')} |",
    ))


# README -> name of its block, and what makes it.
BLOCKS = {"tests/README.md": ("figures", table), "README.md": ("proof", headline)}


def marks(name):
    return f"<!-- {name}: written by tests/figures.py --write -->", f"<!-- {name}: end -->"


def shown(path, root=SOURCE):
    """(text, what it shows, what it should show) of a README."""
    name, make = BLOCKS[path]
    begin, end = marks(name)
    with open(os.path.join(root, path), encoding="utf-8") as file:
        text = file.read()
    found = re.search(f"(?<={re.escape(begin)}\n\n)(.*?)(?=\n\n{re.escape(end)})", text, re.S)
    return text, found and found.group(), make(root)


def stale(root=SOURCE):
    """READMEs that show something else than the figures."""
    found = []
    for path in BLOCKS:
        _, is_, should = shown(path, root)
        if is_ != should:
            found.append(path)
    return found


def renew(root=SOURCE):
    for path, (name, _) in BLOCKS.items():
        text, is_, should = shown(path, root)
        if is_ is None:
            raise SystemExit(f"{path} has no place for it, marked {' and '.join(marks(name))}")
        begin, end = marks(name)
        with open(os.path.join(root, path), "w", encoding="utf-8") as out:
            out.write(text.replace(f"{begin}\n\n{is_}\n\n{end}", f"{begin}\n\n{should}\n\n{end}"))


def main(what):
    if what == "--table":
        print(table())
    elif what == "--write":
        renew()
    elif what == "--check":
        return "\n".join(f"{path} does not show what is in tests/figures: tests/figures.py --write" for path in stale())
    elif what == "--program":
        print(digest(*PROGRAM))
    else:
        return __doc__
    return 0


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or [""])) or 0)
