# SPDX-License-Identifier: LGPL-2.1-or-later
"""coverage.py PROGRAM OBJECTS: replays the corpora of gate and decoder through PROGRAM, compiled with --coverage into
OBJECTS, and prints which share of the lines of FILES they reach. Less than 90 % of all is a failure. What cannot be reached are the lines
behind the gate that would meet something it had let through, and those for want of memory: they are most in read.c."""
import glob
import gzip
import json
import os
import subprocess
import sys
import tempfile

FILES = ("server/wire/gate.c", "server/wire/read.c", "server/wire/utf8.c", "handlers/args.c")
LEAST = 90
HERE = os.path.dirname(os.path.abspath(__file__))


def lines_of(objects, work):
    """Lines of each source file, and how many of them were run."""
    found = {}
    data = glob.glob(os.path.join(objects, "**", "*.gcda"), recursive=True)
    subprocess.run(["gcov", "--json-format", *data], cwd=work, check=True, stdout=subprocess.DEVNULL)
    for path in glob.glob(os.path.join(work, "*.gcov.json.gz")):
        with gzip.open(path) as packed:
            for file in json.load(packed)["files"]:
                name = os.path.relpath(file["file"], os.path.dirname(os.path.dirname(HERE)))
                counts = found.setdefault(name, {})
                for line in file["lines"]:
                    counts[line["line_number"]] = counts.get(line["line_number"], 0) + line["count"]
    return found


def main(program, objects):
    for old in glob.glob(os.path.join(objects, "**", "*.gcda"), recursive=True):
        os.unlink(old)
    corpora = [os.path.join(HERE, "corpus", name) for name in ("gate", "args")]
    subprocess.run([program, *corpora], check=True)
    with tempfile.TemporaryDirectory() as work:
        found = lines_of(objects, work)
    every = reached = 0
    for name in FILES:
        counts = found[name]
        missed = sorted(line for line, count in counts.items() if count == 0)
        share = 100 * (len(counts) - len(missed)) / len(counts)
        every += len(counts)
        reached += len(counts) - len(missed)
        print(f"{share:5.1f} %  {name}, {len(counts)} lines; not reached: {missed}")
    print(f"{100 * reached / every:5.1f} %  of all {every} lines, wanted {LEAST} %")
    return 0 if 100 * reached >= LEAST * every else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
