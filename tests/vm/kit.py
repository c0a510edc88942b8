# SPDX-License-Identifier: LGPL-2.1-or-later
"""For Python that runs inside a guest: real storage brought up and taken down, and what the kernel holds of it.

Everything here is plain: lvm2, open-iscsi, configfs and nfs-utils, and nothing of smapid's. A test that wants to know
whether the daemon left something behind takes held() before and after.
"""
import concurrent.futures
import contextlib
import fcntl
import glob
import hashlib
import os
import re
import shutil
import signal
import struct
import subprocess
import time

IN_GUEST = bool(os.environ.get("SMAPI_GUEST"))
MIB = 1 << 20
SECTOR = 512  # sysfs counts in these, whatever the device's are
BLKZEROOUT = 0x127f  # linux/fs.h
SECONDS = 60  # longer than anything here takes on a busy machine


def sh(*argv, check=True, **keys):
    """The output of a program; with check=False too when it fails."""
    run = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, check=False, **keys)
    text = run.stdout.decode(errors="replace")
    if check and run.returncode:
        raise AssertionError(f"{' '.join(argv)}: {run.returncode}: {text}")
    return text


def put(path, text):
    with open(path, "w", encoding="ascii") as out:
        out.write(str(text))


def read(path):
    with open(path, encoding="utf-8", errors="replace") as text:
        return text.read().strip()


def eventually(condition, seconds=SECONDS, often=0.05):
    """The first true value of condition()."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {condition}")
        time.sleep(often)


def settle():
    sh("udevadm", "settle")


def running(name):
    return bool(sh("pidof", name, check=False).strip())


# Block devices.

def size_of(device):
    return int(read(f"/sys/class/block/{os.path.basename(os.path.realpath(device))}/size")) * SECTOR


def scratch():
    """All scratch disks, by names that stay."""
    return sorted(glob.glob("/dev/disk/by-id/virtio-scratch*") + glob.glob("/dev/disk/by-id/scsi-0QEMU*scratch*"),
                  key=lambda path: int(re.search(r"\d+$", path).group()))


def busy(device):
    """Whether something stands on it: a mount, a mapping, a target."""
    name = os.path.basename(os.path.realpath(device))
    if os.listdir(f"/sys/block/{name}/holders"):
        return True
    try:
        os.close(os.open(device, os.O_RDWR | os.O_EXCL))  # O_EXCL of a block device: nobody else has it so
        return False
    except OSError:
        return True


def wipe(device):
    """As it came from the factory. udev has seen it then."""
    size = size_of(device)
    fd = os.open(device, os.O_WRONLY | os.O_EXCL)
    try:
        fcntl.ioctl(fd, BLKZEROOUT, struct.pack("QQ", 0, size))
    finally:
        os.close(fd)
    settle()


HANDED = "/run/handed"  # scratch disks in the order in which they were last handed out; files that follow read it too


def spare():
    """An empty scratch disk: one that was never handed out, or the one handed out longest ago, wiped."""
    disks, handed = scratch(), read(HANDED).split() if os.path.exists(HANDED) else []
    for disk in [disk for disk in disks if disk not in handed] + [disk for disk in handed if disk in disks]:
        if not busy(disk):
            if disk in handed:
                wipe(disk)
                handed.remove(disk)
            put(HANDED, "\n".join([*handed, disk]))
            return disk
    raise AssertionError(f"something stands on each of {len(disks)} scratch disks")


class Volume:
    """A block device that can grow and shrink: a logical volume of the group "kit" on a scratch disk of its own. lvm2 does
    not look for volumes inside volumes, so what is made of it over iSCSI has no double."""

    disk = None

    def __init__(self, size):
        if not Volume.disk:
            Volume.disk = spare()
            sh("pvcreate", Volume.disk)
            sh("vgcreate", "kit", Volume.disk)
        self.name = f"v{os.urandom(3).hex()}"
        self.path = f"/dev/kit/{self.name}"
        sh("lvcreate", "-y", "-W", "y", "-L", f"{size}b", "-n", self.name, "kit")

    def resize(self, size):
        sh("lvresize", "-f", "-L", f"{size}b", f"kit/{self.name}")

    def remove(self):
        sh("lvremove", "-f", f"kit/{self.name}")


# iSCSI: the kernel's target, through configfs alone.

LIO = "/sys/kernel/config/target"


class Target:
    """An iSCSI target. luns: sizes in bytes, or paths of files or block devices; portals: "address:port". chap and
    incoming: (user, password), of the initiator and of the target; also asked for at discovery then."""

    count = 0

    def __init__(self, iqn, luns=(), portals=("127.0.0.1:3260",), chap=None, incoming=None):
        sh("modprobe", "-a", "target_core_mod", "target_core_file", "target_core_iblock", "iscsi_target_mod")
        for directory in ("pr", "alua"):
            os.makedirs(f"/var/target/{directory}", exist_ok=True)
        self.iqn, self.files, self.stores = iqn, {}, {}
        self.group = f"{LIO}/iscsi/{iqn}/tpgt_1"
        os.makedirs(self.group)
        for lun in luns:
            self.add(lun)
        for portal in portals:
            self.listen(portal)
        attributes = {"generate_node_acls": 1, "demo_mode_write_protect": 0, "cache_dynamic_acls": 1,
                      "authentication": int(bool(chap))}
        for name, value in attributes.items():
            put(f"{self.group}/attrib/{name}", value)
        discovery = f"{LIO}/iscsi/discovery_auth"
        put(f"{discovery}/enforce_discovery_auth", int(bool(chap)))
        for pair, suffix in ((chap, ""), (incoming, "_mutual")):
            for place in (f"{self.group}/auth", discovery) if pair else ():
                put(f"{place}/userid{suffix}", pair[0])
                put(f"{place}/password{suffix}", pair[1])
        self.enable()

    def enable(self, on=True):
        """Off: its sessions end and its portals take none."""
        put(f"{self.group}/enable", int(on))

    def listen(self, portal):
        os.mkdir(f"{self.group}/np/{portal}")

    def silence(self, portal):
        os.rmdir(f"{self.group}/np/{portal}")

    def add(self, what, number=None):
        """A LUN, the next one unless a number is given; its number."""
        number = len(self.stores) if number is None else number
        path, name = what, f"{os.getpid()}-{Target.count}"  # others' may be left
        Target.count += 1
        if isinstance(what, int):
            path = self.files[number] = f"/run/tmp/lun-{name}"
            with open(path, "wb") as out:
                out.truncate(what)
        block = not os.path.isfile(path)
        store = f"{LIO}/core/{'iblock' if block else 'fileio'}_0/disk{name}"
        os.makedirs(store)
        put(f"{store}/control", f"udev_path={path}" if block else f"fd_dev_name={path},fd_dev_size={os.path.getsize(path)}")
        serial = hashlib.sha256(f"{self.iqn} {number}".encode()).hexdigest()[:16]  # the same after a restart
        put(f"{store}/wwn/vpd_unit_serial", serial)
        put(f"{store}/enable", 1)
        os.mkdir(f"{self.group}/lun/lun_{number}")
        os.symlink(store, f"{self.group}/lun/lun_{number}/link")
        self.stores[number] = store
        return number

    def remove(self, number):
        """The LUN is gone for everybody."""
        os.unlink(f"{self.group}/lun/lun_{number}/link")
        os.rmdir(f"{self.group}/lun/lun_{number}")
        os.rmdir(self.stores.pop(number))
        if number in self.files:
            os.unlink(self.files.pop(number))

    def close(self):
        self.enable(False)
        for number in list(self.stores):
            self.remove(number)
        for portal in os.listdir(f"{self.group}/np"):
            self.silence(portal)
        put(f"{LIO}/iscsi/discovery_auth/enforce_discovery_auth", 0)
        os.rmdir(self.group)
        os.rmdir(os.path.dirname(self.group))

    def identity(self, number):
        """Of a LUN, as scsi_id has it."""
        serial = read(f"{self.stores[number]}/wwn/vpd_unit_serial").split()[-1]
        return f"36001405{serial}".ljust(33, "0")

    def sessions(self):
        return int(re.search(r"\d+", read(f"{self.group}/dynamic_sessions") + " 0").group())


class UserTarget:
    """An iSCSI target of tgt, in user space; LUNs count from 1. There is one at a time."""

    SOCKET = "/run/tgtd/socket.0"

    def __init__(self, iqn, files, chap=None):
        self.process = subprocess.Popen(["tgtd", "-f"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(lambda: os.path.exists(self.SOCKET))
        self._admin("new", "target", "--tid", "1", "-T", iqn)
        for number, path in enumerate(files, 1):
            self._admin("new", "logicalunit", "--tid", "1", "--lun", str(number), "-b", path)
        if chap:
            self._admin("new", "account", "--user", chap[0], "--password", chap[1])
            self._admin("bind", "account", "--tid", "1", "--user", chap[0])
        self._admin("bind", "target", "--tid", "1", "-I", "ALL")

    @staticmethod
    def _admin(op, mode, *more):
        sh("tgtadm", "--lld", "iscsi", "--op", op, "--mode", mode, *more)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.unlink(self.SOCKET)  # the next one waits for its own


def initiator(iqn="iqn.2024-01.org.example:host"):
    """open-iscsi as a host has it."""
    sh("modprobe", "iscsi_tcp")
    put("/etc/iscsi/initiatorname.iscsi", f"InitiatorName={iqn}\n")
    if not running("iscsid"):
        sh("iscsid")


def login(iqn, portal="127.0.0.1:3260", lun=0, other=None):
    """A session made by plain iscsiadm; the LUN's disk. other: the name of another initiator, so that one guest plays two
    hosts."""
    interface = "default"
    if other:
        interface = hashlib.sha256(other.encode()).hexdigest()[:8]
        sh("iscsiadm", "-m", "iface", "-o", "new", "-I", interface)
        sh("iscsiadm", "-m", "iface", "-o", "update", "-I", interface, "-n", "iface.initiatorname", "-v", other)
    sh("iscsiadm", "-m", "node", "-o", "new", "-T", iqn, "-p", portal, "-I", interface)
    sh("iscsiadm", "-m", "node", "-T", iqn, "-p", portal, "-I", interface, "--login")
    settle()
    on = False
    for line in sh("iscsiadm", "-m", "session", "-P", "3").splitlines():
        words = line.split()
        if "Iface Name:" in line:
            on = words[2] == interface
        elif "Lun:" in line:
            at = words[-1] == str(lun)
        elif "Attached scsi disk" in line and on and at:
            return "/dev/" + words[3]
    raise AssertionError(f"{iqn} shows no LUN {lun}")


def logout(iqn):
    """Its sessions and records end, and the interfaces of other initiators."""
    sh("iscsiadm", "-m", "node", "-T", iqn, "--logout", check=False)  # there may be none
    sh("iscsiadm", "-m", "node", "-T", iqn, "-o", "delete")
    for path in glob.glob("/etc/iscsi/ifaces/*"):
        sh("iscsiadm", "-m", "iface", "-o", "delete", "-I", os.path.basename(path))


@contextlib.contextmanager
def paused(lab, point, call, *args, **keys):
    """The call in another thread, to be waited for, while it sleeps at a point."""
    acted = len(lab.acted())
    lab.arm(f"{point}:sleep")
    with concurrent.futures.ThreadPoolExecutor(1) as one:
        pending = one.submit(call, *args, **keys)
        eventually(lambda: len(lab.acted()) > acted, often=0.01)
        yield pending


class Multipathd:
    """As a host runs it, but that a disk without any path answers with errors; it looks at paths each second."""

    def __init__(self):
        sh("modprobe", "dm_multipath")
        os.makedirs("/etc/multipath", exist_ok=True)
        for rules in glob.glob("/run/udev/rules.d/*.rules"):  # those that only it asks for
            os.unlink(rules)
        sh("udevadm", "control", "--reload")
        put("/etc/multipath.conf", "defaults {\n polling_interval 1\n}\noverrides {\n no_path_retry fail\n}\n")
        sh("multipathd")
        eventually(lambda: sh("multipathd", "show", "daemon", check=False).startswith("pid"))

    @staticmethod
    def paths(wwid):
        """{name: whether the map of this disk uses it}."""
        text = sh("multipathd", "show", "paths", "raw", "format", "%w %d %t %o")
        rows = [line.split() for line in text.splitlines()]
        return {row[1]: row[2] == "active" for row in rows if row[0] == wwid}

    @staticmethod
    def noted():
        """The disks that are to have a map."""
        with open("/etc/multipath/wwids", encoding="ascii") as notes:
            return [line.strip().strip("/") for line in notes if line.startswith("/")]

    def close(self):
        sh("multipathd", "shutdown")
        eventually(lambda: not running("multipathd"))


def sessions():
    """(target's name, address) of the kernel's sessions."""
    found = []
    for session in glob.glob("/sys/class/iscsi_session/session*"):
        with contextlib.suppress(OSError):
            for connection in glob.glob(f"{session}/device/connection*/iscsi_connection/connection*"):
                found.append((read(f"{session}/targetname"), read(f"{connection}/persistent_address")))
    return sorted(found)


# A wire to another machine: a network namespace, so that it can be cut.

class Wire:
    """Commands that run in peer() are at far, everything else at near."""

    count = 0

    def __init__(self):
        Wire.count += 1
        self.name = f"far{Wire.count}"
        self.near, self.far = f"10.8.{Wire.count}.1", f"10.8.{Wire.count}.2"
        sh("ip", "netns", "add", self.name)
        sh("ip", "link", "add", f"near{Wire.count}", "type", "veth", "peer", "name", "wire", "netns", self.name)
        sh("ip", "addr", "add", f"{self.near}/24", "dev", f"near{Wire.count}")
        sh("ip", "link", "set", f"near{Wire.count}", "up")
        for words in (("addr", "add", f"{self.far}/24", "dev", "wire"), ("link", "set", "lo", "up")):
            sh("ip", "-n", self.name, *words)
        self.cut(False)

    def cut(self, cut=True):
        sh("ip", "-n", self.name, "link", "set", "wire", "down" if cut else "up")

    def close(self):
        sh("ip", "netns", "del", self.name)

    @contextlib.contextmanager
    def peer(self):
        """This thread is on the other side."""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            assert libc.setns(there, 0) == 0, os.strerror(ctypes.get_errno())
            yield
        finally:
            libc.setns(here, 0)
            os.close(here)
            os.close(there)


# NFS.

def nfs_client():
    """What mounts of version 3 need for their locks."""
    sh("modprobe", "nfs")
    os.makedirs("/run/rpc_pipefs", exist_ok=True)
    for kind, place in (("rpc_pipefs", "/run/rpc_pipefs"), ("tmpfs", "/var/lib/nfs")):
        if not os.path.ismount(place):
            sh("mount", "-t", kind, kind, place)
    for directory in ("sm", "sm.bak", "v4recovery"):
        os.makedirs(f"/var/lib/nfs/{directory}", exist_ok=True)
    for leaf in ("etab", "rmtab", "state"):
        open(f"/var/lib/nfs/{leaf}", "a", encoding="ascii").close()
    if not running("rpcbind"):
        sh("rpcbind", "-w")
    if not running("rpc.statd"):
        sh("rpc.statd", "--no-notify")


class NfsServer:
    """The kernel's server, versions 3 and 4, at 127.0.0.1: server.root is an ext4 whose directories are exported, one export
    for each name, under the same path in both versions. There is one at a time."""

    def __init__(self, names=("export",)):
        self.root, self.device = "/run/nfs", spare()
        sh("modprobe", "-a", "nfsd", "nfs")
        sh("mkfs.ext4", "-q", "-F", self.device)
        os.makedirs(self.root, exist_ok=True)
        sh("mount", self.device, self.root)
        for name in names:
            os.mkdir(f"{self.root}/{name}")
        if not os.path.ismount("/proc/fs/nfsd"):
            sh("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
        put("/etc/nfs.conf", f"[exports]\nrootdir={self.root}\n")
        words = "(rw,sync,no_root_squash,no_subtree_check"
        put("/etc/exports", f"/ *{words},fsid=0,crossmnt)\n" +
            "".join(f"/{name} *{words},fsid={number})\n" for number, name in enumerate(names, 1)))
        nfs_client()
        self.start()

    def start(self):
        sh("exportfs", "-ra")
        sh("rpc.nfsd", "--grace-time", "10", "--lease-time", "10", "4")
        sh("rpc.mountd")
        for grace in ("/proc/fs/nfsd/v4_end_grace", "/proc/fs/lockd/nlm_end_grace"):
            with contextlib.suppress(OSError):
                put(grace, "Y")  # there are no locks to be reclaimed, so nobody need wait

    def stop(self):
        """Its clients get no answer."""
        sh("rpc.nfsd", "0")
        sh("pkill", "-x", "rpc.mountd", check=False)
        eventually(lambda: not running("rpc.mountd"))

    def close(self):
        self.stop()
        sh("exportfs", "-ua")
        sh("umount", self.root)
        wipe(self.device)


class Samba:
    """smbd with one share, "iso", of one directory, for one user."""

    def __init__(self, directory, user="guest", password="secret"):
        self.work = "/run/tmp/samba"
        for place in (f"{self.work}/private", "/run/samba"):
            os.makedirs(place, exist_ok=True)
        sh("modprobe", "cifs")
        sh("useradd", "-M", user, check=False)
        conf = [f"{name} directory = {self.work}" for name in ("lock", "state", "cache", "pid")]
        conf += [f"private dir = {self.work}/private", f"log file = {self.work}/log", "security = user",
                 "passdb backend = tdbsam", "load printers = no", "disable spoolss = yes", "[iso]", f"path = {directory}",
                 "read only = no", f"valid users = {user}", "force user = root"]
        put(f"{self.work}/smb.conf", "\n".join(["[global]", *conf, ""]))
        sh("smbpasswd", "-c", f"{self.work}/smb.conf", "-a", "-s", user, input=f"{password}\n{password}\n".encode())
        sh("smbd", "-D", "-s", f"{self.work}/smb.conf")
        eventually(lambda: ":445 " in sh("ss", "-ltn"))

    def close(self):
        os.killpg(int(read(f"{self.work}/smbd.pid")), signal.SIGTERM)
        eventually(lambda: not running("smbd"))
        shutil.rmtree(self.work)


# What the kernel and the host's files hold.

OURS = ("/run/nfs", "/run/netns", "/run/rpc_pipefs", "/var/lib/nfs", "/proc/fs/nfsd")  # where this kit mounts


def mounts():
    """(place, type, source) of every mount but this kit's."""
    found = []
    for line in read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        kind, source = right.split()[:2]
        found.append((left.split()[4].encode().decode("unicode_escape"), kind, source))
    return [mount for mount in found if not mount[0].startswith(OURS)]


def mappings():
    """Names of device-mapper's devices, active logical volumes and multipaths among them; not those of the group "kit"."""
    names = (read(f"{path}/dm/name") for path in glob.glob("/sys/block/dm-*"))
    return sorted(name for name in names if not name.startswith("kit-"))


def loops():
    return sorted(os.path.basename(path) for path in glob.glob("/sys/block/loop*") if os.path.exists(f"{path}/loop"))


def records():
    """open-iscsi's records of nodes, discoveries and interfaces."""
    return sorted(os.path.relpath(os.path.join(top, name), "/etc/iscsi")
                  for part in ("nodes", "send_targets", "ifaces", "static")
                  for top, directories, files in os.walk(f"/etc/iscsi/{part}") for name in directories + files)


def held():
    """All that a storage daemon could leave in a machine, by kind."""
    return {"mounts": sorted(mounts()), "mappings": mappings(), "loops": loops(), "sessions": sessions(),
            "records": records()}


def left(before, after=None):
    """What is held now and was not before, as sentences."""
    after = after or held()
    return [f"{kind}: {thing}" for kind, things in after.items() for thing in things if thing not in before[kind]]


def made_anew(test, sr):
    """The daemon dies, its database is lost, and the host shows what the SR was and how it was reached. sr is attached, in
    a daemon of its own: afterwards nobody may write for a while."""
    import lab as e2e
    before = {vdi: (row["size"], row["label"], row["hidden"]) for vdi, row in sr.contents().items()}
    lab = sr.client.lab
    lab.kill9()
    os.unlink(os.path.join(lab.state, "smapid.db"))
    test.assertIn(f"SR {sr.uuid}: type {sr.kind}, {len(before)} disks", e2e.rebuild(lab))
    lab.start()
    sr("sr_attach", device_config=dict(sr.config))
    test.assertEqual({vdi: (row["size"], row["label"], row["hidden"]) for vdi, row in sr.contents().items()}, before)
    test.assertEqual(e2e.fsck(lab, "--strict"), [])
