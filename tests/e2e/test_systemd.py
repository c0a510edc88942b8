# SPDX-License-Identifier: LGPL-2.1-or-later
"""The front under a service manager: sockets that are passed, what it is told, the watchdog, and the units."""
import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from front_lab import DAEMON, SOURCE, Front, Pki, Wire, post
from lab import program

pki = None
# Puts the descriptors named in $FDS to 3, 4, … as sd_listen_fds(3) wants them, and becomes the daemon.
PASS = """
import os, sys
fds = [int(fd) for fd in os.environ.pop("FDS").split()]
for target, fd in enumerate([os.dup2(fd, 100 + i) for i, fd in enumerate(fds)], 3):
    os.dup2(fd, target, inheritable=True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(fds))
os.execv(sys.argv[1], sys.argv[1:])
"""


def setUpModule():
    global pki
    pki = Pki()


def tearDownModule():
    pki.close()


class Managed(Front):
    """The front with sockets passed to it, as a list of (name, socket), and somebody who listens to what it tells."""

    def __init__(self, passed=(), watchdog=None, names=None, **settings):
        self.passed = list(passed)
        self.home = tempfile.mkdtemp(prefix="managed-")
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(os.path.join(self.home, "notify"))
        self.manager.settimeout(10)
        names = ":".join(name for name, _ in self.passed) if names is None else names
        environment = {"NOTIFY_SOCKET": os.path.join(self.home, "notify"), "LISTEN_FDNAMES": names,
                       "FDS": " ".join(str(sock.fileno()) for _, sock in self.passed)}
        if watchdog:
            environment["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
        for _, sock in self.passed:
            sock.set_inheritable(True)
        super().__init__(pki, environment, **settings)
        for name, sock in self.passed:
            if name == "https":
                self.port = sock.getsockname()[1]
            if name == "socket":
                self.socket = sock.getsockname()

    def argv(self, **other):
        return ["/usr/bin/python3", "-c", PASS, *super().argv(**other)]

    def start(self, log, environment):
        return subprocess.Popen(self.argv(), stderr=log, stdin=subprocess.DEVNULL, close_fds=False,
                                env={**os.environ, **environment})

    def told(self, seconds=10):
        self.manager.settimeout(seconds)
        return dict(line.split("=", 1) for line in self.manager.recv(4096).decode().split("\n"))

    def close(self):
        try:
            super().close()
        finally:
            self.manager.close()
            shutil.rmtree(self.home, ignore_errors=True)


class SystemdTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="systemd-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def managed(self, *passed, **more):
        front = Managed(passed, **more)
        self.addCleanup(front.close)
        return front

    def tcp(self):
        sock = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(sock.close)
        return sock

    def unix(self, name="passed"):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(os.path.join(self.dir, name))
        sock.listen()
        self.addCleanup(sock.close)
        return sock

    def answers(self, wire, method="fake.x"):
        with wire:
            wire.send(post(method))
            return wire.answer().value()


class Sockets(SystemdTest):
    def test_both_sockets_may_be_passed(self):
        front = self.managed(("socket", self.unix()), ("https", self.tcp()))
        for wire in (front.admin(), front.unix()):
            self.assertEqual(self.answers(wire), "fake.x")
        self.assertEqual(os.listdir(front.dir).count("sock"), 0)  # none of its own was made

    def test_one_may_be_passed_and_the_other_opened(self):
        front = self.managed(("socket", self.unix()))
        for wire in (front.admin(), front.unix()):
            self.assertEqual(self.answers(wire), "fake.x")

    def test_nameless_sockets_are_told_apart_by_family(self):
        tcp, unix = self.tcp(), self.unix()
        front = self.managed(("https", tcp), ("socket", unix), names="smapid-a.socket:smapid-b.socket")
        for wire in (front.admin(), front.unix()):
            self.assertEqual(self.answers(wire), "fake.x")

    def test_callers_wait_while_the_daemon_is_replaced(self):
        tcp, unix = self.tcp(), self.unix()
        first = self.managed(("https", tcp), ("socket", unix))
        self.assertEqual(self.answers(first.admin()), "fake.x")
        first.terminate()
        self.assertEqual(first.ended(), 0)
        raw, local = first.raw(), first.unix()  # nobody is there, the socket is
        local.send(post("fake.later"))
        second = self.managed(("https", tcp), ("socket", unix))
        self.assertEqual(self.answers(local, "fake.again"), "fake.later")
        with Wire(second.context(pki.pair("admin-alice")).wrap_socket(raw, server_hostname="localhost")) as wire:
            self.assertEqual(self.answers(wire), "fake.x")

    def test_sockets_meant_for_another_process_are_left_alone(self):
        front = Front(pki, {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "https:socket"})
        self.addCleanup(front.close)
        self.assertEqual(self.answers(front.admin()), "fake.x")

    def test_what_is_no_such_socket_refuses_the_start(self):
        plain, datagram = socket.socket(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(plain.close)
        self.addCleanup(datagram.close)
        for name, sockets, names, words in (
                ("not listening", [plain], "https", "no listening stream socket"),
                ("datagrams", [datagram], "socket", "no listening stream socket"),
                ("wrong family", [self.tcp()], "socket", "wrong family"),
                ("wrong family too", [self.unix("a")], "https", "wrong family"),
                ("two of a kind", [self.tcp(), self.tcp()], "https:https", "two sockets were passed")):
            with self.subTest(name):
                for sock in sockets:
                    sock.set_inheritable(True)
                run = subprocess.run(["/usr/bin/python3", "-c", PASS, DAEMON, "--config", "/dev/null"], close_fds=False,
                                     env={**os.environ, "FDS": " ".join(str(s.fileno()) for s in sockets),
                                          "LISTEN_FDNAMES": names}, capture_output=True, text=True, timeout=20)
                self.assertEqual((run.returncode, words in run.stderr), (78, True), run.stderr)


class Notify(SystemdTest):
    def test_ready_reloading_and_stopping_are_told_in_order(self):
        front = self.managed()
        ready = front.told()
        self.assertEqual(ready["READY"], "1")
        self.assertIn(f":{front.port}", ready["STATUS"])
        before = time.monotonic_ns() // 1000
        os.kill(front.process.pid, signal.SIGHUP)
        reloading = front.told()
        self.assertEqual(reloading["RELOADING"], "1")
        self.assertTrue(before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000)
        self.assertEqual(front.told()["READY"], "1")
        front.terminate()
        self.assertEqual(front.told()["STOPPING"], "1")

    def test_the_watchdog_is_told_often_enough_and_only_while_the_store_answers(self):
        front = self.managed(watchdog=6)
        self.assertEqual(front.told()["READY"], "1")
        for _ in range(2):
            self.assertEqual(front.told(4)["WATCHDOG"], "1")
        with self.stopped(front.process.pid, "store"):
            front.manager.settimeout(0)
            with self.assertRaises(BlockingIOError):
                while True:
                    front.manager.recv(4096)
            with self.assertRaises(TimeoutError):
                front.told(4.5)
        self.assertEqual(front.told(4)["WATCHDOG"], "1")

    @contextlib.contextmanager
    def stopped(self, pid, name):
        """One thread of a process stands still meanwhile."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        seize, interrupt, detach = 0x4206, 0x4207, 17
        thread = self.thread_named(pid, name)
        if libc.ptrace(seize, thread, None, None) < 0:
            self.skipTest(f"ptrace: {os.strerror(ctypes.get_errno())}")
        self.assertEqual(libc.ptrace(interrupt, thread, None, None), 0)
        os.waitpid(thread, 0x40000000)
        try:
            yield
        finally:
            libc.ptrace(detach, thread, None, None)

    def thread_named(self, pid, name):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/comm", encoding="ascii") as comm:
                if comm.read().strip() == name:
                    return int(task)
        self.fail(f"no thread is named {name}")

    def test_a_start_that_fails_is_not_told_ready(self):
        home = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(home.close)
        home.bind(os.path.join(self.dir, "notify"))
        run = subprocess.run([DAEMON, "--config", "/dev/null", "--set", "tls.key=/nonexistent", "--set",
                              f"server.state={self.dir}/state"], capture_output=True, timeout=20,
                             env={**os.environ, "NOTIFY_SOCKET": os.path.join(self.dir, "notify")})
        self.assertEqual(run.returncode, 78)
        home.setblocking(False)
        self.assertEqual(home.recv(4096), b"STOPPING=1")


class Units(unittest.TestCase):
    place = os.path.join(SOURCE, "deploy/systemd")

    def text(self, name):
        with open(os.path.join(self.place, name), encoding="ascii") as unit:
            return unit.read()

    def test_they_name_the_sockets_as_the_daemon_knows_them(self):
        for unit, name in (("smapid.socket", "socket"), ("smapid-https.socket", "https")):
            self.assertIn(f"\nFileDescriptorName={name}\n", self.text(unit))
        self.assertIn("\nType=notify\n", self.text("smapid.service"))

    def test_they_restart_what_failed_but_not_what_cannot_work(self):
        service = self.text("smapid.service")
        statuses = re.search(r"^RestartPreventExitStatus=(.*)$", service, re.M).group(1).split()
        self.assertEqual(statuses, ["64", "78"])

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd is not installed")
    def test_systemd_finds_nothing_wrong_with_them(self):
        with tempfile.TemporaryDirectory() as work:
            names = sorted(n for n in os.listdir(self.place) if n.endswith((".service", ".socket")))
            for name in names:
                text = self.text(name).replace("/usr/sbin/smapid", program("smapid"))
                with open(os.path.join(work, name), "w", encoding="ascii") as out:
                    out.write(text)
            run = subprocess.run(["systemd-analyze", "verify", "--man=no", *(os.path.join(work, n) for n in names)],
                                 capture_output=True, text=True, timeout=60)
            ours = [line for line in (run.stdout + run.stderr).splitlines() if "smapid" in line]
            self.assertEqual((run.returncode, ours), (0, []))
            spoilt = os.path.join(work, "smapid.service")
            with open(spoilt, "a", encoding="ascii") as out:
                out.write("Nonsense=1\n")
            run = subprocess.run(["systemd-analyze", "verify", "--man=no", spoilt], capture_output=True, text=True,
                                 timeout=60)
            self.assertIn("Nonsense", run.stdout + run.stderr)  # it does look


if __name__ == "__main__":
    unittest.main()
