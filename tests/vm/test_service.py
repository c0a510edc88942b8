# SPDX-License-Identifier: LGPL-2.1-or-later
"""The unit with the drop-in for devices, under a real systemd, in a guest: what it leaves the daemon is enough for disks,
mounts and sessions, and these are the machine's and outlive the daemon.

A guest has no service manager. This starts one in a namespace of processes, and itself (SMAPI_MANAGED) as a unit of it.
"""
import os
import re
import shutil
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
UNITS, RESULT, STATUS = "/run/systemd/system", "/run/service-test", "/run/service-status"
INSTALLED = "/usr/sbin/smapid"  # as the unit says
# What the guest has seen to already: a second udevd would go over all devices again, and hear of each event too.
ELSEWHERE = ("systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
             "systemd-udev-trigger.service", "systemd-modules-load.service", "systemd-sysctl.service",
             "systemd-tmpfiles-setup.service", "systemd-tmpfiles-setup-dev.service", "lvm2-monitor.service",
             "systemd-journal-flush.service", "systemd-sysusers.service")
import kit  # noqa: E402
import places  # noqa: E402
from lab import DEEP, EVERY_DAY, SEED, Lab, LabTest, program  # noqa: E402
from kit import mounts, put, read, sh  # noqa: E402


def under_systemd():
    """This program again, as a unit; its exit status. iscsid stays outside: it starts in no namespace of processes."""
    kit.initiator(places.HOST)
    os.makedirs("/sys/fs/cgroup", exist_ok=True)
    sh("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    os.makedirs(UNITS, exist_ok=True)
    os.makedirs("/etc/tmpfiles.d", exist_ok=True)
    put("/etc/tmpfiles.d/tmp.conf", "")  # what starts with the sockets empties /tmp, where this checkout may be
    for unit in ELSEWHERE:
        os.symlink("/dev/null", f"{UNITS}/{unit}")
    shutil.copy2(program("smapid"), INSTALLED)  # the unit has a /tmp of its own
    passed = "".join(f"Environment={name}={value}\n" for name, value in os.environ.items()
                     if name.startswith("SMAPI_") or name in ("PATH", "TMPDIR"))
    put(f"{UNITS}/test.service",
        "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nTimeoutStartSec=infinity\nUMask=0022\n"
        f"StandardOutput=file:{RESULT}\nStandardError=file:{RESULT}\n{passed}Environment=SMAPI_MANAGED=1\n"
        f"ExecStart=/usr/bin/python3 -B {SOURCE}/tests/today.py 1 {os.path.abspath(__file__)}\n"
        f"ExecStopPost=/bin/sh -c 'echo $$EXIT_STATUS >{STATUS}.new && mv {STATUS}.new {STATUS}'\n")
    manager = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
                                "/lib/systemd/systemd", "--system", "--unit=test.service", "--show-status=0"],
                               env={**os.environ, "container": "other"}, stdin=subprocess.DEVNULL)
    while not os.path.exists(STATUS):
        if manager.poll() is not None:
            return f"systemd ended with {manager.returncode}"
        time.sleep(0.1)
    print(read(RESULT), file=sys.stderr, flush=True)
    return int(read(STATUS))


class Main:
    """The unit's main process, as subprocess.Popen shows one."""

    def __init__(self):
        self.pid = int(sh("systemctl", "show", "-P", "MainPID", "smapid.service"))

    def poll(self):
        state = sh("systemctl", "show", "-P", "ActiveState", "smapid.service").strip()
        return None if state in ("active", "activating", "reloading", "deactivating") else state

    def wait(self, _=None):
        while self.poll() is None:
            time.sleep(0.05)
        return int(sh("systemctl", "show", "-P", "ExecMainStatus", "smapid.service"))


class Unit(Lab):
    """The daemon as deploy/systemd has systemd start it."""

    def __init__(self, dropins):
        super().__init__()
        shutil.rmtree(f"{UNITS}/smapid.service.d", ignore_errors=True)
        os.makedirs(f"{UNITS}/smapid.service.d")
        for name in ("smapid.service", *dropins):
            place = UNITS if name == "smapid.service" else f"{UNITS}/smapid.service.d"
            put(f"{place}/{name}", read(f"{SOURCE}/deploy/systemd/{name}"))

    def _spawn(self, argv, environment):
        kept = "".join(f"Environment={name}={value}\n" for name, value in environment.items() if name.startswith("SMAPI_"))
        put(f"{UNITS}/smapid.service.d/test.conf",
            "[Unit]\nDefaultDependencies=no\n"
            f"[Service]\nRestart=no\nExecStart=\nExecStart={' '.join([INSTALLED, *argv[1:]])}\n{kept}"
            f"StandardOutput=append:{self.log_path}\nStandardError=append:{self.log_path}\n")
        sh("systemctl", "daemon-reload")
        started = subprocess.run(["systemctl", "start", "smapid.service"], capture_output=True, text=True, check=False)
        assert not started.returncode, (sh("systemctl", "show", "smapid.service") + read(self.log_path) + started.stderr)
        return Main()

    def stop(self):
        sh("systemctl", "stop", "smapid.service")
        self.process = None


class Lives:
    """What holds with each set of drop-ins, for the types that it is enough for."""

    @classmethod
    def setUpClass(cls):
        cls.lab = Unit(cls.DROPINS)
        cls.addClassCleanup(cls.lab.close)
        cls.lab.start()

    def capabilities(self):
        """Of its bounding set, as bits."""
        status = read(f"/proc/{self.lab.process.pid}/status")
        self.assertIn("NoNewPrivs:\t1", status)
        self.assertIn("Seccomp:\t2", status)
        return int(re.search(r"CapBnd:\s*(\w+)", status).group(1), 16)

    def opens(self, path):
        """By another process, in the machine's namespace."""
        with open(path, "rb") as device:
            device.read(512)

    def test_disks_live_and_outlive_the_daemon(self):
        srs = {kind: self.lab.repository(kind).made() for kind in self.KINDS}
        disks = {}
        for kind, sr in srs.items():
            disk = sr.disk()
            path = sr("vdi_attach", "true", vdi_uuid=disk)["params"]
            sr("vdi_activate", "true", vdi_uuid=disk)
            disks[kind] = disk, path
            with self.subTest(kind):
                self.opens(path)
        before = mounts()
        self.lab.restart()
        self.assertEqual(mounts(), before)
        for kind, sr in srs.items():
            disk, path = disks[kind]
            with self.subTest(kind):
                self.opens(path)
                sr.released(disk)
                sr("vdi_delete", vdi_uuid=disk)
                sr("sr_detach")
                sr("sr_delete")


class Plain(Lives, LabTest):
    """The unit as it is."""

    DROPINS = ()
    KINDS = ("dummy", "file")

    def test_it_may_touch_files_and_no_more(self):
        names = {0: "CHOWN", 1: "DAC_OVERRIDE", 3: "FOWNER"}
        self.assertEqual(self.capabilities(), sum(1 << bit for bit in names))


class Devices(Lives, LabTest):
    """With the drop-in for devices."""

    DROPINS = ("devices.conf",)
    KINDS = ("ext", "nfs", "iscsi")
    KINDS = KINDS + ("lvm",) * DEEP if EVERY_DAY else (KINDS[SEED // 4 % 3],)  # lvm needs what ext needs

    def test_it_may_not_do_what_nothing_of_it_needs(self):
        for name, bit in (("SYS_PTRACE", 19), ("SYS_BOOT", 22), ("SYS_TIME", 25), ("BPF", 39)):
            self.assertFalse(self.capabilities() >> bit & 1, name)


class Outside(unittest.TestCase):
    """What the others are about, from outside."""

    def test_it_lives_under_a_real_systemd(self):
        self.assertEqual(under_systemd(), 0)


def load_tests(loader, _tests, _pattern):
    """Of today's class inside, and of all of them when there is time for all."""
    cases = (Plain, Devices) if EVERY_DAY else ((Plain, Devices)[SEED // 2 % 2],)
    if os.environ.get("SMAPI_MANAGED"):
        kit.initiator = lambda iqn: None
    else:
        cases = (Outside,)
    return unittest.TestSuite(map(loader.loadTestsFromTestCase, cases))
