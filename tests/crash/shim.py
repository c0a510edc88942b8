# SPDX-License-Identifier: LGPL-2.1-or-later
"""A laboratory whose smapid runs with shim.so preloaded (see shim.c), and stages: a recipe of oracle.py prepared once,
whose trees are put back as they were before each trial. Everything is on tmpfs where there is one.

The daemon is the real one, reached through its socket: a start takes few ms when the linking is done once for all
(Server), so that thousands of trials fit into a minute or two, and nothing is left to believe about a harness that only
resembles it.
"""
import atexit
import ctypes
import http.client
import mmap
import multiprocessing
import os
import re
import select
import shutil
import struct
import subprocess
import tempfile
import traceback
import unittest

from lab import BUILD, Lab, Pki, new_uuid

BROKEN = (OSError, http.client.HTTPException)
SHIM = os.path.join(BUILD, "tests", "crash", "shim.so")
RESERVE = "smapid.reserve"  # 8 MiB that hold nothing
PROCESSES = int(os.environ.get("SMAPI_PROCESSES") or 2)
ENOUGH = 3  # failures of one series
FIRST, ONLY = os.environ.get("SMAPI_FIRST"), os.environ.get("SMAPI_ONLY", ".*")
ALL = ONLY == ".*"

# enum action
NONE, KILL, KILL_HALF, FAIL, FAIL_ON, SWALLOW, HIDE = range(7)


CLONE_NEWNS, MS_REC_PRIVATE, MNT_DETACH = 0x00020000, 0x4000 | 1 << 18, 2
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def tmp_in_memory():
    """From here on temporary files are on a tmpfs that this process and its children alone see: syncs cost nothing, and
    nothing stays behind. Without the right to mount they are where they were. It is mounted on a directory of its own:
    over /tmp it would hide a checkout that lives there. (Not /dev/shm: no SR may stand below /dev.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    for setting in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):  # contents of disks, again and again: keep the memory
        libc.mallopt(setting, 1 << 28)
    place, owner = tempfile.mkdtemp(prefix="c-"), os.getpid()
    mounted = (libc.unshare(CLONE_NEWNS) == 0 and libc.mount(None, b"/", None, MS_REC_PRIVATE, None) == 0 and
               libc.mount(b"none", os.fsencode(place), b"tmpfs", 0, b"mode=0700") == 0)
    if mounted:
        tempfile.tempdir = os.environ["TMPDIR"] = place

    def give_back():
        if os.getpid() == owner:
            libc.umount2(os.fsencode(place), MNT_DETACH)
            os.rmdir(place)

    atexit.register(give_back)
    return mounted


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


class Server:
    """smapid stopped before its main, see shim.c; start() has it fork one that goes on."""

    ASK, TELL = 198, 199

    def __init__(self, argv, environment, log_path):
        ask, self._ask = os.pipe()
        self._tell, tell = os.pipe()
        os.dup2(ask, self.ASK)
        os.dup2(tell, self.TELL)
        with open(log_path, "ab") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             env={**environment, "SHIM_SERVER": "1"}, pass_fds=(self.ASK, self.TELL))
        for fd in (ask, tell, self.ASK, self.TELL):
            os.close(fd)

    def start(self):
        os.write(self._ask, b"s")
        return Forked(self._number(), self._tell)

    def _number(self):
        return struct.unpack("=i", os.read(self._tell, 4))[0]

    def close(self):
        os.close(self._ask)
        self._process.wait(20)
        os.close(self._tell)


class Forked:
    """What of subprocess.Popen a Lab uses."""

    def __init__(self, pid, tell):
        self.pid, self._tell, self.returncode = pid, tell, None

    def poll(self):
        return self._await(0)

    def wait(self, timeout):
        if self._await(timeout) is None:
            raise subprocess.TimeoutExpired("smapid", timeout)
        return self.returncode

    def _await(self, timeout):
        if self.returncode is None and select.select([self._tell], [], [], timeout)[0]:
            status = struct.unpack("=i", os.read(self._tell, 4))[0]
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class ShimLab(Lab):
    START_SECONDS = 120  # the machine may be busy; how long it takes is judged elsewhere

    def __init__(self):
        super().__init__()
        self._server = None
        self.root = tempfile.mkdtemp(prefix="smapi-shim-")
        self.saved, self._inodes = self.root + ".saved", {}
        self.state, self.mounts = os.path.join(self.root, "state"), os.path.join(self.root, "mount")
        os.mkdir(self.state, 0o700)
        os.mkdir(self.mounts, 0o755)
        self.config_path = self._write_config()
        self.control = Control(os.path.join(self.dir, "control"))
        self.calls, self.inodes = os.path.join(self.dir, "calls"), os.path.join(self.dir, "inodes")
        self.environment = {"LD_PRELOAD": SHIM, "SHIM_ROOT": self.root, "SHIM_LOG": self.calls,
                            "SHIM_CONTROL": os.path.join(self.dir, "control"), "SHIM_INODES": self.inodes}

    def _spawn(self, argv, environment):
        if "--set" in argv:
            return super()._spawn(argv, environment)
        if not self._server:
            self._server = Server(argv, environment, self.log_path)
        return self._server.start()

    def close(self):
        try:
            self.control.disarm()
            super().close()
        finally:
            if self._server:
                self._server.close()
            for tree in (self.root, *(self.saved + name for name in self._inodes)):
                shutil.rmtree(tree, ignore_errors=True)

    def repository(self, kind, client=None, location=None):
        if kind == "file":
            location = location or os.path.join(self.root, f"place-{new_uuid()[:8]}")
        return super().repository(kind, client, location)

    def save(self, name=""):
        """Keeps the trees as they are, under that name; nothing runs."""
        if os.path.exists(os.path.join(self.state, RESERVE)):
            os.truncate(os.path.join(self.state, RESERVE), 0)
        self._inodes[name] = dict(self._walk())
        shutil.rmtree(self.saved + name, ignore_errors=True)
        shutil.copytree(self.root, self.saved + name, symlinks=True)

    def restore(self, as_saved=False, name=""):
        """as_saved: and the daemon sees the inode numbers the files had."""
        self.wipe()
        for entry in os.listdir(self.saved + name):
            shutil.copytree(os.path.join(self.saved + name, entry), os.path.join(self.root, entry), symlinks=True)
        if as_saved:
            self.show_inodes({inode: self._inodes[name][path] for path, inode in self._walk()})

    def _walk(self):
        """(relative path, inode) of all that is there."""
        for top, directories, files in os.walk(self.root):
            for name in directories + files:
                path = os.path.join(top, name)
                yield os.path.relpath(path, self.root), os.lstat(path).st_ino

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
    return name_of(kind, row, recipe), figures, failed


def name_of(kind, row, recipe):
    return f"{kind} {row['name']} {recipe.__name__}"


def is_first(recipe):
    """Whether SMAPI_FIRST names this class, or the class of this one."""
    name = getattr(recipe, "__name__", type(recipe).__name__)
    return bool(FIRST and re.fullmatch(FIRST, name))


def each(judge, todo, *more, progress=None):
    """Runs judge(stage, failed, *more) for each (kind, row, recipe) of todo, in SMAPI_PROCESSES (2) processes beside one
    another. Yields (name, figures, failures). With SMAPI_FIRST, a regular expression, it begins with the recipes whose
    names fit that, and ends at the first failure; SMAPI_ONLY leaves out those that do not fit it. progress, a figures.Progress: what it knows is not done again, and what
    nothing failed in is added to it."""
    for name, figures in (progress.done if progress else {}).items():
        yield name, figures, []
    todo = [one for one in todo if not progress or name_of(*one) not in progress.done]
    todo = [one for one in todo if re.fullmatch(ONLY, one[2].__name__)]
    rival = new_uuid()
    Pki.shared().identity("host", rival)
    todo = sorted(reversed(todo), key=lambda one: not is_first(one[2]))  # the long ones first
    work = [(judge, kind, row, recipe, rival, more) for kind, row, recipe in todo]
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        for name, figures, failed in pool.imap_unordered(_run_one, work):
            if progress and not failed:
                progress.add(name, figures)
            yield name, figures, failed
            if failed and FIRST:
                pool.terminate()
                return
