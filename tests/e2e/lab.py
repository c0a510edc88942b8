# SPDX-License-Identifier: LGPL-2.1-or-later
"""A laboratory: one smapid with state, certificates, sockets and SR directories of its own, all beneath one temporary
directory. It ends only the processes it started.

Environment: SMAPI_BUILD, the build directory; SMAPI_DEEP, a factor by which rounds() multiplies; SMAPI_SEED, a number
for what the quick form does in turn, without it the day's; SMAPI_SANITIZE, set when the build carries a sanitizer (times and memory are then not judged).
"""
import atexit
import contextlib
import datetime
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import uuid as uuids

from client import (BridgeClient, CurlClient, Fault, HttpError, ProxyClient, TlsClient,  # noqa: F401 (also for
                    UnixClient)  # importers)

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("SMAPI_BUILD", os.path.join(SOURCE, "build", "dev"))
SANITIZED = bool(os.environ.get("SMAPI_SANITIZE"))
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
MIB = 1 << 20
OFTEN = 0.05 if os.environ.get("SMAPI_GUEST") else 0.002  # to look whether it is ready: in a guest it costs the daemon its time
ALARMS = re.compile(r"Sanitizer|runtime error:|Assertion .* failed|^.*PROMISE", re.M)


DEEP = bool(os.environ.get("SMAPI_DEEP"))
EVERY_DAY = DEEP or bool(os.environ.get("SMAPI_EVERY_DAY"))  # all that quick forms do on any day
SEED = int(os.environ.get("SMAPI_SEED") or datetime.date.today().toordinal())  # of what the quick form does today
deep = unittest.skipUnless(DEEP, "takes minutes in a guest: tests/run --deep")


def each_day(test):
    """Marks a test, or a class of them, that today.py always runs."""
    test.each_day = True
    return test


def one_day(case):
    """Marks a class whose start takes long: today.py gives its tests one day together."""
    case.one_day = True
    return case


def raises(*codes):
    """Marks a test that raises these fault codes by their conditions, and holds it to that: each must have come over the
    wire when it ends. test_fault_codes.py reads the marks of all tests and says which codes nothing raises."""
    def marked(test):
        @functools.wraps(test)
        def run(self, *args):
            Fault.seen.clear()
            test(self, *args)
            missing = set(codes) - Fault.seen
            assert not missing, f"marked as raising {sorted(missing)}, which did not come"
        return run
    return marked


def rounds(quick):
    """How often a test repeats: quick times the factor SMAPI_DEEP."""
    return quick * int(os.environ.get("SMAPI_DEEP") or 1)


def new_uuid():
    return str(uuids.uuid4())


def boot_id():
    """Of this machine's kernel."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as text:
        return text.read().strip()


def kernel_has(device):
    """One of those that stand in /proc/misc. A node of it in /dev may be there without."""
    with open("/proc/misc", encoding="ascii") as devices:
        return device in devices.read().split()


def program(name):
    """A program of the build, wherever in it that is."""
    for place in ("", "server", "server/bin", "bin", "tests/tools"):
        path = os.path.join(BUILD, place, name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise FileNotFoundError(f"no {name} in {BUILD}")


# What makes a place for a new SR and gives its device_config, by type; tests of other types add theirs.
PLACES = {"dummy": lambda lab, sr: {}, "file": lambda lab, sr: {"location": os.path.join(lab.dir, f"place-{sr[:8]}")}}
# The types that tests of every type are about. Tests that run where more can be had set SMAPI_KINDS before they import
# this, and make entries of PLACES.
KINDS = tuple(os.environ.get("SMAPI_KINDS", "file dummy").split())

POINTS_IN_GUESTS = ("iscsi_", "fence_", "mount_", "multipath_", "volume_")  # of types that need one: tests/vm passes these points
_described = None


def describe():
    """smapid --describe: the rows the tests are computed from."""
    global _described
    if _described is None:
        run = subprocess.run([program("smapid"), "--describe"], capture_output=True, check=True, timeout=60)
        _described = json.loads(run.stdout)
    return _described


def type_row(kind):
    return next(row for row in describe()["types"] if row["name"] == kind)


def fsck(lab, *more):
    """smapid --fsck: the differences, each a dict of kind, sr, object and text. Works with and without the daemon."""
    run = subprocess.run([program("smapid"), "--config", lab.config_path, "--fsck", "--json", *more], timeout=300,
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == (1 if found else 0) and not run.stderr, (run.returncode, run.stdout, run.stderr)
    return found


def take_over_run(lab, sr, *more, known=False):
    """smapid --take-over: its exit status, what it told and why not."""
    word = [] if known else ["--sr", ",".join([sr.kind, *(f"{key}={value}" for key, value in sr.config.items())])]
    run = subprocess.run([program("smapid"), "--config", lab.config_path, "--take-over", sr.uuid, *word, *more],
                         timeout=300, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return run.returncode, run.stdout, run.stderr


def owner_of(lab, sr, **how):
    """The server that owns an SR, as a lab's sees it."""
    status, told, why = take_over_run(lab, sr, **how)
    assert status in (0, 1) and not why, (status, told, why)
    return re.search(r"belongs to (?:this server,|server) ([0-9a-f-]{36})", told).group(1)


def take_over(lab, sr, reason="a test", **how):
    """Makes the lab's server the owner."""
    status, told, why = take_over_run(lab, sr, "--owner", owner_of(lab, sr, **how), "--reason", reason, **how)
    assert status == 0, (status, told, why)
    return told
def rebuild(lab, *more, status=0):
    """What --rebuild says about a daemon that does not run."""
    run = subprocess.run([program("smapid"), "--config", lab.config_path, "--rebuild", *more], timeout=120,
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert run.returncode == status, (run.returncode, run.stdout, run.stderr)
    return run.stdout + run.stderr


def store_sql(lab, text):
    """Changes rows of a daemon that does not run."""
    subprocess.run([program("store_sql"), os.path.join(lab.state, "smapid.db"), text], timeout=60, check=True)


class Pki:
    """Certificates, made when first asked for, once for the whole run."""

    _shared = None

    @classmethod
    def shared(cls):
        if cls._shared is None:
            cls._shared = cls()
        return cls._shared

    def __init__(self, directory=None):
        """directory: one that is kept, and used again when there are some in it."""
        self.dir = directory or tempfile.mkdtemp(prefix="smapi-pki-")
        self.ca = os.path.join(self.dir, "ca.crt")
        if not directory:
            atexit.register(shutil.rmtree, self.dir, ignore_errors=True)
        if not os.path.exists(self.ca):
            self._make("init")
        if not os.path.exists(os.path.join(self.dir, "server.crt")):
            self._make("server", "localhost", "127.0.0.1")

    def _make(self, *args):
        subprocess.run([os.path.join(SOURCE, "certs", "make-pki"), self.dir, *args], check=True, capture_output=True)

    def identity(self, role, name):
        """Path of the certificate of role ("host", "admin", "operator", "reader") without its suffix."""
        path = os.path.join(self.dir, f"{role}-{name}")
        if not os.path.exists(path + ".crt"):
            self._make(role, name)
        return path


FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


class Lab:
    """See start, restart, kill9, stop, close. Clients are made by unix, host, admin, operator, reader."""

    START_SECONDS = 30

    def __init__(self, pki=None, in_memory=False, directory=None):
        """in_memory: the daemon's state, but for the media, is on tmpfs where there is one: as good for all but a power
        cut, and faster. directory: of one that is gone, by a power cut for instance; this one goes on with it."""
        self.pki = pki or Pki.shared()
        self.dir = directory or tempfile.mkdtemp(prefix="smapi-")
        self.socket = os.path.join(self.dir, "sock")
        self.state = os.path.join(self.dir, "state")
        self._memory = tempfile.mkdtemp(prefix="smapi-", dir=MEMORY) if in_memory and MEMORY else None
        if self._memory:
            self.state = os.path.join(self._memory, "state")
        self.mounts = os.path.join(self.dir, "mount")
        self.log_path = os.path.join(self.dir, "log")
        self._arming = os.path.join(self.dir, "point")
        self._date = os.path.join(self.dir, "date")
        self.local_host = str(uuids.uuid5(uuids.NAMESPACE_URL, directory)) if directory else new_uuid()
        self.port = None
        self.process = None
        self.prefix = []  # a program, with its arguments, that becomes the daemon
        self.environment = {}  # more of it, for the daemon alone
        self.clients = []
        os.makedirs(self.state, 0o700, exist_ok=bool(directory))
        os.makedirs(self.mounts, 0o755, exist_ok=bool(directory))
        self.config_path = self._write_config()

    def _write_config(self):
        sections = {
            "server": {"listen": "127.0.0.1", "port": 0, "socket": self.socket, "state": self.state,
                       "mount_base": self.mounts, "host": self.local_host},
            "tls": {"certificate": os.path.join(self.pki.dir, "server.crt"),
                    "key": os.path.join(self.pki.dir, "server.key"), "client_ca": self.pki.ca},
            "log": {"programs": 0},  # asking them takes longer than a start
        }
        path = os.path.join(self.dir, "smapid.conf")
        with open(path, "w", encoding="ascii") as out:
            for section, keys in sections.items():
                out.write(f"[{section}]\n")
                out.writelines(f"{key} = {value}\n" for key, value in keys.items())
        return path

    # Life of the daemon.

    def arm(self, spec):
        """From now on the daemon, running or yet to be started, acts so: see point.h, "<name>:<action>:<n>"."""
        with open(self._arming + ".new", "w", encoding="ascii") as out:
            out.write(spec)
        os.rename(self._arming + ".new", self._arming)

    def disarm(self):
        """A point that was armed and not reached acts no more."""
        self.arm("*:kill:1000000000")

    def acted(self):
        """The points that acted since the start, in order."""
        return re.findall(r"^point (\w+)$", self.log(), re.M)

    def launch(self, point=None, **settings):
        """Starts it and does not wait. point: as by arm; settings: section__key=value for --set."""
        assert self.process is None, "it runs already"
        if point:
            self.arm(point)
        for client in self.clients:
            client.close()
        environment = {**os.environ, "SMAPI_POINT": "@" + self._arming, **self.environment}
        argv = [*self.prefix, program("smapid"), "--config", self.config_path]
        for name, value in settings.items():
            argv += ["--set", f"{name.replace('__', '.', 1)}={value}"]
        self._log_start = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        self.process = self._spawn(argv, environment)

    def _spawn(self, argv, environment):
        with open(self.log_path, "ab") as log:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    def on_another_boot(self, boot):
        """From its next start on the daemon sees this boot id, as after a restart of the machine."""
        path = os.path.join(self.dir, "boot_id")
        with open(path, "w", encoding="ascii") as out:
            out.write(boot + "\n")
        self.prefix = ["unshare", "--mount", "sh", "-c",
                       'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"', path]

    def at_another_time(self, seconds):
        """From its next start on the daemon's CLOCK_BOOTTIME is this far from the machine's."""
        self.prefix = ["unshare", "--time", "--boottime", str(seconds)]

    def at_another_date(self, words):
        """The daemon's wall clock, and no other, is so far from the machine's ("+20d", "-30s"): at once, or from its next
        start when it was not started so. It is much slower with it."""
        with open(self._date + ".new", "w", encoding="ascii") as out:
            out.write(words)
        os.rename(self._date + ".new", self._date)
        self.environment = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": self._date, "FAKETIME_NO_CACHE": "1",
                            "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def start(self, point=None, **settings):
        """Starts it and waits until it serves and every SR's recovery has been tried."""
        self.launch(point, **settings)
        if not self.wait_ready():
            raise AssertionError(f"smapid ended with {self.end_status()} while starting:\n{self.log()}")
        return self

    def wait_ready(self):
        """True once it is ready, False when it died before."""
        deadline = time.monotonic() + self.START_SECONDS
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"smapid is not ready after {self.START_SECONDS} s:\n{self.log()}")
            if self._listening() and self._ready():
                return True
            time.sleep(OFTEN)
        return False

    def _listening(self):
        line = re.search(r"^.*\bready\b.*$", self.log(), re.M)
        port = line and re.search(r"(?:port[ =]|127\.0\.0\.1:)(\d+)", line.group())
        if port:
            self.port = int(port.group(1))
        return bool(line)

    def _ready(self):
        try:
            client = UnixClient(self)
            with contextlib.closing(client):
                return client.get("/readyz").status == 200
        except (OSError, EOFError):
            return False
        except Exception as broken:  # http.client: it died while answering
            if type(broken).__module__ == "http.client":
                return False
            raise

    def log(self):
        """What this start has logged so far."""
        with open(self.log_path, encoding="utf-8", errors="replace") as text:
            text.seek(self._log_start)
            return text.read()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def end_status(self, seconds=20):
        """Waits for it to end by itself; the exit status, negative for a signal."""
        status = self.process.wait(seconds)
        self.process = None
        return status

    def died(self, seconds=20):
        """Whether it died of SIGKILL, as an armed point makes it."""
        return self.end_status(seconds) == -signal.SIGKILL

    def kill9(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.end_status()

    def stop(self):
        """Ends it in order; it must agree."""
        os.kill(self.process.pid, signal.SIGTERM)
        status = self.end_status()
        alarm = ALARMS.search(self.log())
        assert status == 0 and not alarm, f"smapid ended with {status}:\n{self.log()[-4000:]}"

    def end(self):
        """Ends it by kill -9 if it still runs."""
        if self.alive():
            self.kill9()
        self.process = None

    def restart(self, **settings):
        self.stop()
        return self.start(**settings)

    def close(self):
        """Stops what runs and removes everything."""
        try:
            if self.alive():
                self.stop()
        finally:
            self.end()
            for client in self.clients:
                client.close()
            shutil.rmtree(self.dir, ignore_errors=True)
            if self._memory:
                shutil.rmtree(self._memory, ignore_errors=True)

    def resident_kib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s*(\d+)", status.read()).group(1))

    # Who calls.

    def _keep(self, client):
        self.clients.append(client)
        return client

    def unix(self, dialect="spec"):
        return self._keep(UnixClient(self, dialect))

    def tls(self, role, name, dialect="spec"):
        return self._keep(TlsClient(self, self.pki.identity(role, name), dialect))

    def host(self, host, dialect="spec"):
        return self.tls("host", host, dialect)

    def admin(self):
        return self.tls("admin", "alice")

    def operator(self):
        return self.tls("operator", "olga")

    def reader(self):
        return self.tls("reader", "rita")

    def curl(self, host, dialect="spec"):
        return self._keep(CurlClient(self, self.pki.identity("host", host), dialect))

    def bridge(self):
        """Calls as xapi makes them."""
        return self._keep(BridgeClient(self, program("smapi-bridge")))

    def proxy(self, host):
        return self._keep(ProxyClient(self.host(host)))

    def leases(self, client=None, **keys):
        """All leases, by epoch, as smapi.lease_list shows them."""
        found, after = {}, 0
        while after != "":
            page = (client or self.unix()).call("smapi.lease_list", path="/RPC2", dialect="spec", limit=1000,
                                                **({"after": int(after)} if after else {}), **keys)
            found.update((int(row["epoch"]), row) for row in page["leases"])
            after = page["next"]
        return found

    # Places.

    def repository(self, kind, client=None, location=None):
        """An SR that does not exist yet, with a place for it."""
        sr = new_uuid()
        config = {"location": location} if location else PLACES[kind](self, sr)
        return Repository(client or self.unix(), kind, sr, config)


class Repository:
    """An SR as one client sees it: sr("vdi_create", "2097152", name=…) fills in what every call carries."""

    def __init__(self, client, kind, uuid, config):
        self.client, self.kind, self.uuid, self.config = client, kind, uuid, config

    def by(self, client):
        """The same SR, called by another."""
        return Repository(client, self.kind, self.uuid, self.config)

    @property
    def layout(self):
        return type_row(self.kind)["layout"]

    @property
    def location(self):
        """The directory its images are in."""
        return self.config.get("location") or os.path.join(self.client.lab.mounts, self.uuid)

    def __call__(self, method, *args, op=None, dialect=None, **keys):
        keys = {"sr_uuid": self.uuid, "device_config": self.config, **keys}
        return self.client.call(method, path=f"/sm/{self.kind}", op=op, dialect=dialect, args=list(args), **keys)

    def body(self, method, *args, **keys):
        """The bytes of such a call, for Client.post."""
        from client import BODIES
        keys = {"sr_uuid": self.uuid, "device_config": self.config, "args": list(args), **keys}
        return BODIES[self.client.dialect](method, keys)

    def made(self):
        """Created, and attached to the caller."""
        self("sr_create", "0")
        self("sr_attach")
        return self

    def disk(self, size=4 * MIB, *more, **keys):
        """The uuid of a new disk."""
        return self("vdi_create", str(size), *more, **keys)["uuid"]

    def probe(self):
        return self.client.call("sr_probe", path=f"/sm/{self.kind}", args=[], device_config=self.config)

    def page(self, **keys):
        """One answer of smapi.sr_contents."""
        return self.client.call("smapi.sr_contents", path=f"/sm/{self.kind}", dialect="spec", sr_uuid=self.uuid, **keys)

    def contents(self):
        """Rows of all its disks, by uuid."""
        disks, after = {}, ""
        while True:
            page = self.page(limit=1000, after=after)
            disks.update((row["uuid"], row) for row in page["vdis"])
            after = page["next"]
            if not after:
                return disks

    def delete_disks(self):
        """Those that were asked for; hidden bases beneath them go with the last."""
        for vdi, row in self.contents().items():
            if not row["hidden"]:
                self("vdi_delete", vdi_uuid=vdi)

    def epoch(self):
        """Of the activation that was just answered."""
        return int(self.client.last.header("X-SMAPI-Epoch"))

    def activated(self, vdi, writable="true"):
        """Attaches and activates; the epoch."""
        self("vdi_attach", writable, vdi_uuid=vdi)
        self("vdi_activate", writable, vdi_uuid=vdi)
        return self.epoch()

    def released(self, vdi):
        self("vdi_deactivate", vdi_uuid=vdi)
        self("vdi_detach", vdi_uuid=vdi)

    # What a file SR's directory holds.

    def names(self):
        return set(os.listdir(self.location))

    def images(self):
        """uuids of the disks whose images are there."""
        found = (re.fullmatch(r"([0-9a-f-]{36})\.(raw|vhd)", name) for name in self.names())
        return {match.group(1) for match in found if match}

    def litter(self):
        """Our own names that belong to no disk: unpublished images, doomed ones, sidecars without an image. Claims that
        followed another stay."""
        images = self.images()
        return {name for name in self.names() if name.endswith(".smapi") and name != "sr.smapi" and
                name.removesuffix(".smapi") not in images and not re.match("[0-9a-f]{8}-take-", name)}


class Plays:
    """Outside programs that do as a test says: while play(name, word, script) is in force, /sbin/<name> runs this shell script
    instead of itself when one of its arguments is word. lab: a Lab that was not started yet; it gets a mount namespace, unless
    this is a guest. more: shell commands in that namespace, before the daemon starts."""

    STAND_IN = """#!/bin/sh
for play in {plays}/{name}:*; do
    [ -e "$play" ] || continue
    for word in "$@"; do
        if [ "$word" = "${{play##*:}}" ]; then . "$play"; fi
    done
done
case "$0" in */{name}) ;; *) set -- "${{0##*/}}" "$@";; esac  # lvm's other names
exec {real}/{name} "$@"
"""

    def __init__(self, lab, *names, more=""):
        self.dir = os.path.join(lab.dir, "plays")
        real = os.path.join(lab.dir, "real")
        os.mkdir(self.dir)
        os.mkdir(real)
        binds = ""
        for name in names:
            shutil.copy(f"/sbin/{name}", real)
            stand_in = os.path.join(real, f"{name}.sh")
            with open(stand_in, "w", encoding="ascii") as out:
                out.write(self.STAND_IN.format(plays=self.dir, name=name, real=real))
            os.chmod(stand_in, 0o755)
            binds += f"mount --bind {stand_in} /sbin/{name}\n"
        if os.environ.get("SMAPI_GUEST"):
            subprocess.run(["sh", "-ec", binds + more], check=True)
            return
        lab.prefix = ["unshare", "--mount", "sh", "-ec", f'{binds}{more}\nexec "$@"', "sh", *lab.prefix]

    @contextlib.contextmanager
    def play(self, name, word, script):
        path = os.path.join(self.dir, f"{name}:{word}")
        with open(path, "w", encoding="ascii") as out:
            out.write(script)
        try:
            yield
        finally:
            os.unlink(path)

    def fails(self, name, word, status=5):
        return self.play(name, word, f"echo '  {name} {word} does not want to' >&2; exit {status}\n")


class LabTest(unittest.TestCase):
    """Tests that share one running smapid per class. SRs are new for each test."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.addClassCleanup(cls.lab.close)
        cls.lab.start()

    @contextlib.contextmanager
    def refused(self, code, *naming):
        """The block ends with this fault, whose sentence holds each of these texts."""
        try:
            yield
        except Fault as fault:
            self.assertEqual(fault.code, code, fault.text)
            for text in naming:
                self.assertIn(text, fault.text)
        else:
            self.fail(f"not refused with {code}")


if os.environ.get("SMAPI_GUEST"):
    sys.path.insert(0, os.path.join(SOURCE, "tests", "vm"))
    import places  # noqa: F401, E402 (makes entries of PLACES)
