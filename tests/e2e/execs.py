# SPDX-License-Identifier: LGPL-2.1-or-later
"""The programs that a running daemon starts, seen by strace."""
import contextlib
import os
import re
import shutil
import subprocess
import tempfile

CAN = bool(shutil.which("strace")) and os.geteuid() == 0
EXEC = re.compile(r'execve\("([^"]+)", \[(.*)\], .* = 0$')
WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')


class Program:
    """One run: its words, and when it began and ended."""

    def __init__(self, words, begun):
        self.words, self.begun, self.ended = words, begun, None

    @property
    def name(self):
        """Of lvm2 the command."""
        name = os.path.basename(self.words[0])
        return self.words[1] if name == "lvm" else name

    @property
    def devices(self):
        """Those that a command of lvm2 is confined to."""
        return {device for option, device in zip(self.words, self.words[1:]) if option == "--devices"}


def _read(lines):
    running, found = {}, []
    for line in lines:
        pid, at, what = line.split(None, 2)
        match = EXEC.match(what)
        if match:
            words = [re.sub(r"\\(.)", r"\1", word) for word in WORD.findall(match.group(2))]
            running[pid] = Program(words, float(at))
            found.append(running[pid])
        elif what.startswith("+++") and pid in running:
            running.pop(pid).ended = float(at)
    return found


@contextlib.contextmanager
def traced(lab):
    """A list that holds, once the block has ended, each program that the daemon started meanwhile."""
    found = []
    with tempfile.NamedTemporaryFile("r", encoding="utf-8", errors="replace") as lines:
        strace = subprocess.Popen(["strace", "-f", "-ttt", "-s", "4096", "-e", "trace=execve", "-e", "signal=none", "-o",
                                   lines.name, "-p", str(lab.process.pid)], stderr=subprocess.PIPE)
        try:
            if b"attached" not in strace.stderr.readline():
                raise AssertionError("strace cannot attach to the daemon")
            yield found
        finally:
            strace.terminate()
            strace.communicate(timeout=60)
        found += _read(lines)


def names(found):
    return [program.name for program in found]


def side_by_side(test, found):
    """Commands of lvm2 for several repositories run at the same time, those for one never: whoever waited for another's
    would not. Whose a command is tell its devices."""
    for devices in {frozenset(program.devices) for program in found}:
        mine = [program for program in found if program.devices == devices]
        others = [program for program in found if program.devices != devices]
        beside = [one for one in mine if any(o.begun < one.ended and one.begun < o.ended for o in others)]
        test.assertGreater(len(beside), len(mine) / 2, f"commands for {devices} ran alone")
        for one, after in zip(mine, mine[1:]):
            test.assertLessEqual(one.ended, after.begun)
