# SPDX-License-Identifier: LGPL-2.1-or-later
"""A laboratory whose smapid runs with shim.so preloaded (see shim.c), and stages: a recipe of oracle.py prepared once,
whose trees are put back as they were before each trial. Everything is on tmpfs where there is one.

The daemon is the real one, reached through its socket: it starts in some 15 ms, so that thousands of trials fit into a
minute or two, and nothing is left to believe about a harness that only resembles it.
"""
import ctypes
import http.client
import mmap
import multiprocessing
import os
import shutil
import struct
import tempfile
import traceback
import unittest

from lab import BUILD, Lab, Pki, new_uuid, program
from oracle import fsck

BROKEN = (OSError, http.client.HTTPException)
SHIM = os.path.join(BUILD, "tests", "crash", "shim.so")
RESERVE = "smapid.reserve"  # 8 MiB that hold nothing
PROCESSES = 2
ENOUGH = 3  # failures of one series

# enum action
NONE, KILL, KILL_HALF, FAIL, FAIL_ON, SWALLOW, FAIL_SYNC = range(7)


CLONE_NEWNS, MS_REC_PRIVATE = 0x00020000, 0x4000 | 1 << 18


def tmp_in_memory():
    """From here on /tmp is a tmpfs that this process and its children alone see: syncs cost nothing, and nothing stays
    behind. Without the right to mount it stays what it is. (Not /dev/shm: no SR may stand below /dev.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    return (libc.unshare(CLONE_NEWNS) == 0 and libc.mount(None, b"/", None, MS_REC_PRIVATE, None) == 0 and
            libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0)


class Control:
    """struct control of shim.c, shared with the daemon."""

    FIELDS = ("action", "at", "error", "counting", "count", "acted", "logging", "closing")

    def __init__(self, path):
        with open(path, "w+b") as file:
            file.truncate(mmap.PAGESIZE)
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def _at(self, name):
        return 8 * self.FIELDS.index(name)

    def get(self, name):
        return struct.unpack_from("=q", self._page, self._at(name))[0]

    def set(self, **values):
        for name, value in values.items():
            struct.pack_into("=q", self._page, self._at(name), value)

    def arm(self, action=NONE, at=0, error=0):
        """Counts from here on, and acts at the call of that number (from 1)."""
        self.set(counting=0, action=action, at=at, error=error, count=0, acted=0)
        self.set(counting=1)

    def disarm(self):
        self.set(counting=0, action=NONE, at=0)


class Record:
    """What one call did."""

    HEAD = struct.Struct("=Ii16sQQqqIIII")

    def __init__(self, data, at):
        (self.size, self.error, op, self.inode, self.other, self.offset, self.length, path, path2, bytes_,
         self.is_directory) = self.HEAD.unpack_from(data, at)
        self.op = op.rstrip(b"\0").decode()
        at += self.HEAD.size
        self.path = data[at:at + path].decode()
        self.path2 = data[at + path:at + path + path2].decode()
        self.data = bytes(data[at + path + path2:at + path + path2 + bytes_])

    def __repr__(self):
        return f"{self.op} {self.path} {self.path2} {self.offset}+{len(self.data) or self.length} ({self.inode})"


def parse(data):
    records, at = [], 0
    while at < len(data):
        records.append(Record(data, at))
        at += records[-1].size
    return records


class ShimLab(Lab):
    def __init__(self):
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="smapi-shim-")
        self.saved = self.root + ".saved"
        self.state, self.mounts = os.path.join(self.root, "state"), os.path.join(self.root, "mount")
        os.mkdir(self.state, 0o700)
        os.mkdir(self.mounts, 0o755)
        self.config_path = self._write_config()
        self.control = Control(os.path.join(self.dir, "control"))
        self.calls, self.inodes = os.path.join(self.dir, "calls"), os.path.join(self.dir, "inodes")
        self.environment = {"LD_PRELOAD": SHIM, "SHIM_ROOT": self.root, "SHIM_LOG": self.calls,
                            "SHIM_CONTROL": os.path.join(self.dir, "control"), "SHIM_INODES": self.inodes}

    def close(self):
        try:
            self.control.disarm()
            super().close()
        finally:
            for tree in (self.root, self.saved):
                shutil.rmtree(tree, ignore_errors=True)

    def repository(self, kind, client=None, location=None):
        return super().repository(kind, client, location or os.path.join(self.root, f"place-{new_uuid()[:8]}"))

    def save(self):
        """Keeps the trees as they are; nothing runs."""
        os.truncate(os.path.join(self.state, RESERVE), 0)
        shutil.rmtree(self.saved, ignore_errors=True)
        shutil.copytree(self.root, self.saved, symlinks=True)

    def restore(self):
        self.wipe()
        for name in os.listdir(self.saved):
            shutil.copytree(os.path.join(self.saved, name), os.path.join(self.root, name), symlinks=True)

    def wipe(self):
        for name in os.listdir(self.root):
            shutil.rmtree(os.path.join(self.root, name))
        if os.path.exists(self.inodes):
            os.unlink(self.inodes)

    def show_inodes(self, shown):
        """Of what is there now: real inode to the one to be shown."""
        with open(self.inodes, "w", encoding="ascii") as out:
            out.writelines(f"{real} {other}\n" for real, other in shown.items())

    # Recording.

    def record(self):
        """Writes down what is done from here on."""
        with open(self.calls, "w", encoding="ascii"):
            pass
        self.control.set(logging=1)

    def recorded(self):
        with open(self.calls, "rb") as file:
            return parse(file.read())

    def stop_recording(self):
        self.control.set(logging=0)
        return self.recorded()


class Stage:
    """A recipe prepared on an SR of its own."""

    def __init__(self, test, lab, kind, row, recipe, rival):
        self.lab, self.kind, self.row = lab, kind, row
        lab.wipe()
        os.mkdir(lab.state, 0o700)
        os.mkdir(lab.mounts, 0o755)
        lab.start()
        self.sr = lab.repository(kind)
        self.recipe = recipe(test, lab.host(rival))
        self.recipe.prepare(self.sr)
        lab.stop()
        lab.save()

    def start(self):
        """The trees as prepared, and the daemon running on them."""
        self.lab.end()
        self.lab.control.disarm()
        self.lab.restore()
        self.lab.start()

    def act(self, op=None):
        self.recipe.act(self.sr, op)

    def survey(self, op=None):
        """The calls of an undisturbed run, and how many there were when it was answered."""
        self.start()
        self.lab.record()
        self.lab.control.arm()
        self.act(op)
        self.lab.control.disarm()
        return self.lab.stop_recording()


def check_fsck(lab):
    """The daemon's own judge finds nothing."""
    said = fsck(program("smapid"), lab.config_path)
    if said:
        raise AssertionError("smapid --fsck: " + said)


def _run_one(work):
    """In a process of its own: one series on one laboratory. What judge returns, and what failed."""
    judge, kind, row, recipe, rival, more = work
    lab = ShimLab()
    failed = []
    figures = None
    try:
        stage = Stage(unittest.TestCase(), lab, kind, row, recipe, rival)
        figures = judge(stage, failed, *more)
    except Exception:
        failed.append(("-", traceback.format_exc()))
    finally:
        try:
            lab.end()
        finally:
            lab.close()
    return kind, row["name"], recipe.__name__, figures, failed


def each(judge, todo, *more):
    """Runs judge(stage, failed, *more) for each (kind, row, recipe) of todo, in processes beside one another. Yields
    (name, figures, failures). With SMAPI_FIRST set it ends at the first failure."""
    rival = new_uuid()
    Pki.shared().identity("host", rival)
    work = [(judge, kind, row, recipe, rival, more) for kind, row, recipe in todo]
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        for kind, method, recipe, figures, failed in pool.imap_unordered(_run_one, work):
            yield f"{kind} {method} {recipe}", figures, failed
            if failed and os.environ.get("SMAPI_FIRST"):
                pool.terminate()
                return
