# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/vm/run as its user sees it, from outside: what passes through, what does not, and how it ends."""
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
from lab import deep, one_day  # noqa: E402

RUN = os.path.join(HERE, "run")
SKIPPED = 77
ODD = "a 'b' \"c\" $d\ne"
SCRIPT = r"""
printf "%s|" "$PWD" "$ODD" "$ONE" "$@"
head -c 3000000 /dev/zero
echo err >&2
echo after >kept/file
rm -rf kept
echo x >share/from-guest
blockdev --getsize64 --getss /dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_scratch2
echo kept | dd status=none conv=sync bs=4096 of=/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_file0
exit 42
"""
DISK = b"%d\n4096\n" % (3 << 30)


def run(*argv, **keys):
    return subprocess.run([RUN, *argv], capture_output=True, check=False, timeout=200, **keys)


def setUpModule():
    prepared = run("--prepare")
    if prepared.returncode == SKIPPED:
        sys.stderr.write(prepared.stderr.decode())
        sys.exit(SKIPPED)


@one_day
class Passed(unittest.TestCase):
    """One guest that does a little of everything."""

    @classmethod
    def setUpClass(cls):
        cls.place = tempfile.TemporaryDirectory(dir=os.environ.get("SMAPI_BUILD"))
        cls.addClassCleanup(cls.place.cleanup)
        for name in ("share", "kept"):
            os.mkdir(cls.path(name))
        with open(cls.path("kept/file"), "w", encoding="ascii") as out:
            out.write("before")
        with open(cls.path("image"), "wb") as out:
            out.truncate(8 << 20)
        cls.done = run("--disks", "3", "--disk-size", "3G", "--scsi", "--disk-options",
                       "logical_block_size=4096,physical_block_size=4096", "--file", cls.path("image"),
                       "--share", cls.path("share"), "--env", "ODD", "--env", "ONE=1", "--", "sh", "-c",
                       SCRIPT, "x", ODD, "*", "", cwd=cls.place.name, env={**os.environ, "ODD": ODD})

    @classmethod
    def path(cls, name):
        return os.path.join(cls.place.name, name)

    def test_status_streams_quoting_directory_and_environment_pass_through(self):
        self.assertEqual((self.done.returncode, self.done.stderr), (42, b"err\n"))
        text = "|".join([self.place.name, ODD, "1", ODD, "*", "", ""]).encode()
        self.assertEqual(self.done.stdout[:-len(DISK)], text + bytes(3000000))

    def test_a_guest_changes_nothing_but_what_is_shared(self):
        with open(self.path("kept/file"), encoding="ascii") as text:
            self.assertEqual(text.read(), "before")
        self.assertEqual(os.listdir(self.path("share")), ["from-guest"])

    def test_disks_are_as_asked_for_and_a_file_is_kept(self):
        self.assertEqual(self.done.stdout[-len(DISK):], DISK, self.done.stderr)
        with open(self.path("image"), "rb") as image:
            self.assertEqual(image.read(5), b"kept\n")


class Run(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory(dir=os.environ.get("SMAPI_BUILD"))
        self.addCleanup(work.cleanup)
        self.work = work.name

    @deep
    def test_a_panic_is_told_and_shown(self):
        done = run("--", "sh", "-c", "echo c >/proc/sysrq-trigger")
        self.assertEqual(done.returncode, 125)
        self.assertIn(b"Kernel panic", done.stderr)

    @deep
    def test_a_time_limit_ends_it(self):
        self.assertEqual(run("--timeout", "8", "--", "sleep", "600").returncode, 124)

    def test_killed_it_leaves_no_process_and_no_mount(self):
        places = {**os.environ, "TMPDIR": self.work}
        with subprocess.Popen([RUN, "--", "sleep", "600"], env=places) as process:
            self.until(lambda: any(b"qemu-system" in words for words in self.processes()))
            process.send_signal(signal.SIGKILL)
        self.until(lambda: not self.processes())
        with open("/proc/self/mounts", encoding="ascii") as mounts:
            self.assertNotIn(self.work, mounts.read())

    def processes(self):
        """The command lines that name our directory."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as words:
                    found.append(words.read())
            except OSError:
                pass
        return [words for words in found if self.work.encode() in words]

    def until(self, condition):
        deadline = time.monotonic() + 60
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)

    def test_a_pair_is_wired_shares_a_disk_and_one_that_fails_ends_the_other(self):
        disk = "/dev/disk/by-id/virtio-shared0"
        done = run("--pair", "--", "until timeout 1 bash -c 'echo hello >/dev/tcp/10.9.0.2/7000'; do sleep .2; done; "
                   f"until [ -e $SMAPI_MEET/written ]; do sleep .2; done; head -c 5 {disk}; exit 3",
                   f"{sys.executable} -c 'import socket; s = socket.create_server((\"\", 7000)); print(s.accept()[0].recv(9))'"
                   f" && echo world | dd status=none conv=sync,fsync of={disk} && touch $SMAPI_MEET/written && sleep 600")
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertEqual(sorted(done.stdout.splitlines()), [b"A| world", b"B| b'hello\\n'"])


if __name__ == "__main__":
    unittest.main()
