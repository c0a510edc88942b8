# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes recordings of this directory anew from the real programs, in a guest:

    tests/vm/run --disks 3 --share tests/replay -- /usr/bin/python3 -B tests/replay/record.py [ext] [iscsi] [nfs] [smb]

Each scenario brings the condition about, runs the command that the daemon runs, and writes down what it says; the form is
that of unit/replay_help.h. Commands are those of the unit tests that replay them: a driver that says other words needs
them changed here and there. lvm/ and iscsiadm/ but for nothing.txt were recorded by hand, from real programs too; the
others come from here."""
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "vm"), os.path.join(HERE, "..", "e2e")]
import kit  # noqa: E402
from kit import MIB, put, sh  # noqa: E402

POINT = "/run/sr-mount/sr"
NFS = "acdirmin=0,acdirmax=0,timeo={},retrans={},retry=0,nosuid,nodev,noexec"
HARD, SOFT = NFS.format(100, 2), NFS.format(50, 3)
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}


class Recording:
    """One file."""

    def __init__(self, name, remark):
        self.name, self.lines = name, ["# " + remark]

    def _command(self, argv, text):
        words = (f"'{word}'" if word == "" or " " in word else word for word in argv)
        self.lines.append("> " + " ".join(words))
        self.lines += ["= " + line for line in text.splitlines()]

    def run(self, *argv, text="", wanted=None):
        """Runs it to its end. wanted: words that it must say, for the scenario to be what it is meant to be."""
        done = subprocess.run(argv, input=text.encode(), capture_output=True, env=ENVIRONMENT, cwd="/", timeout=120, check=False)
        out, err = done.stdout.decode(), done.stderr.decode()
        assert (wanted in out + err) if wanted else done.returncode == 0, (argv, done)
        self._command(argv, text)
        self.lines.append(f"< {done.returncode}")
        self.lines += ["! " + line for line in err.splitlines()]
        self.lines += [("\\" if line[:2] in ("> ", "= ", "< ", "! ", "# ") else "") + line for line in out.splitlines()]

    def killed(self, *argv, seconds=3):
        """Its time is up before it ends."""
        child = subprocess.Popen(argv, env=ENVIRONMENT, cwd="/", start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"{argv} ended with {child.wait(seconds)}")
        os.killpg(child.pid, signal.SIGKILL)
        self._command(argv, "")
        self.lines.append("< killed")

    def missing(self, *argv):
        """As the daemon's runner says it; no program says anything."""
        self._command(argv, "")
        self.lines.append("< missing")

    def save(self):
        with open(os.path.join(HERE, self.name), "w", encoding="utf-8") as out:
            out.write("\n".join(self.lines) + "\n")
        print("recorded", self.name, flush=True)


def version(package):
    return sh("dpkg-query", "-W", "-f", "${Version}", package)


def unmounted(path=POINT):
    sh("umount", path, check=False)


@contextlib.contextmanager
def still():
    """A file system is at POINT whose device takes nothing in."""
    disk = kit.spare()
    sh("dmsetup", "create", "kit-still", input=f"0 {kit.size_of(disk) // 512} linear {disk} 0\n".encode())
    sh("mkfs.ext4", "-q", "/dev/mapper/kit-still")
    sh("mount", "/dev/mapper/kit-still", POINT)
    put(f"{POINT}/unwritten", "x" * 100000)
    sh("dmsetup", "suspend", "--nolockfs", "--noflush", "kit-still")
    yield
    sh("dmsetup", "resume", "kit-still")
    kit.eventually(lambda: "kit-still" not in sh("dmsetup", "remove", "kit-still", check=False))


def nfs():
    """nfs/mounts.txt, nfs/exports.txt and mounts/unmounts.txt."""
    server = kit.NfsServer(["export"])
    sr, source = f"{server.root}/export/sr", "127.0.0.1:/export/sr"
    os.mkdir(sr)
    mounts = Recording("nfs/mounts.txt", f"mount.nfs of nfs-common {version('nfs-common')} against the kernel's server.")
    command = ("/sbin/mount.nfs", source, POINT, "-o", f"hard,proto=tcp,vers=4.2,{HARD}")
    mounts.run(*command)
    unmounted()
    mounts.run(*command[:-1], command[-1] + ",noac")
    unmounted()
    mounts.run("/sbin/mount.nfs", "[::1]:/export/sr", POINT, "-o", f"soft,proto=tcp6,vers=3,{SOFT}")
    unmounted()
    sh("rpc.nfsd", "0")
    sh("rpc.nfsd", "--no-nfs-version", "4.2", "4")
    mounts.run(*command, wanted="not supported")
    server.stop()
    server.start()
    os.rename(sr, sr + ".away")
    mounts.run(*command, wanted="No such file")
    os.rename(sr + ".away", sr)
    shutil.copy("/etc/exports", "/run/tmp/exports")
    put("/etc/exports", "/ 10.9.8.7(rw,fsid=0)\n/export 10.9.8.7(rw,fsid=1)\n")
    sh("exportfs", "-ra")
    sh("exportfs", "-f")
    mounts.run(*command, wanted="mount.nfs: ")
    shutil.copy("/run/tmp/exports", "/etc/exports")
    sh("exportfs", "-ra")
    server.stop()
    mounts.run(*command, wanted="refused")
    put("/etc/nsswitch.conf", "hosts: files\n")  # a name that nobody has, not a server of names that does not answer
    mounts.run("/sbin/mount.nfs", "nowhere.invalid:/export/sr", *command[2:], wanted="resolve")
    server.start()
    exports = Recording("nfs/exports.txt", f"showmount of nfs-common {version('nfs-common')}")
    with open("/etc/hosts", "a", encoding="ascii") as hosts:
        hosts.write("127.0.0.1 filer\n")
    os.makedirs(f"{server.root}/with blank")
    os.makedirs(f"{server.root}/a<b")
    put("/etc/exports", open("/run/tmp/exports", encoding="ascii").read() + '"/with blank" 10.0.0.0/8(ro,fsid=7,no_subtree_check)'
        ' 10.1.0.0/16(ro,fsid=7,no_subtree_check)\n"/a<b" (ro,fsid=8,no_subtree_check)\n')
    sh("exportfs", "-ra")
    exports.run("/sbin/showmount", "--no-headers", "--exports", "filer")
    unmounts = Recording("mounts/unmounts.txt", f"umount of util-linux {version('util-linux')}")
    plain = ("/bin/umount", "--internal-only", "--no-canonicalize", POINT)
    sh(*command)
    unmounts.run(*plain)
    sh(*command)
    with open(f"{POINT}/held", "w", encoding="ascii"):
        unmounts.run(*plain, wanted="busy")
    unmounted()
    with still():
        unmounts.killed(*plain)
        unmounts.run(*plain[:-1], "--force", "--lazy", POINT, wanted="not mounted")  # it left the list before it waited
    server.stop()
    with socket.create_server(("127.0.0.1", 2049), backlog=64):  # takes connections, and answers nothing
        mounts.killed(*command)
    mounts.missing(*command)
    exports.run("/sbin/showmount", "--no-headers", "--exports", "filer", wanted="clnt_create")
    for recording in (mounts, exports, unmounts):
        recording.save()
    unmounted()
    server.start()
    shutil.copy("/run/tmp/exports", "/etc/exports")
    server.close()


def smb():
    """smb/mounts.txt."""
    os.makedirs("/run/tmp/share", exist_ok=True)
    server = kit.Samba("/run/tmp/share", user="user", password="p,w")
    with open("/etc/hosts", "a", encoding="ascii") as hosts:
        hosts.write("127.0.0.1 filer\n")
    text = "username=user\npassword=p,w\n"
    common = "cache=none,nosuid,nodev,noexec"
    mounts = Recording("smb/mounts.txt", f"mount.cifs of cifs-utils {version('cifs-utils')} against Samba {version('samba')}")
    command = ("/sbin/mount.cifs", "//filer/iso", POINT, "-o")
    mounts.run(*command, f"credentials=/dev/stdin,vers=3.0,{common}", text=text)
    unmounted()
    mounts.run(*command, f"credentials=/dev/stdin,vers=3.0,{common},seal", text="domain=DOM\n" + text)
    unmounted()
    mounts.run(*command, f"guest,vers=3.0,{common}", wanted="error(13)")
    mounts.run("/sbin/mount.cifs", "//filer/nothing", POINT, "-o", f"credentials=/dev/stdin,vers=3.0,{common}", text=text, wanted="error(2)")
    mounts.run("/sbin/mount.cifs", "//nowhere.invalid/iso", POINT, "-o", f"guest,vers=3.0,{common}", wanted="resolve")
    server.close()
    mounts.run(*command, f"guest,vers=3.0,{common}", wanted="mount error(1")
    mounts.save()


def ext():
    """ext/file_systems.txt."""
    disk = kit.spare()
    sh("vgcreate", "g", disk)
    sh("lvcreate", "-y", "-L", "64m", "-n", "v", "g")
    os.makedirs("/run/tmp/at", exist_ok=True)
    uuid, device = "01234567-89ab-4def-8123-456789abcdef", "/dev/g/v"
    make = ("/sbin/mkfs.ext4", "-q", "-U", uuid, "-L", "smapi-01234567", device)
    check = ("/sbin/e2fsck", "-p", device)
    systems = Recording("ext/file_systems.txt", f"mkfs.ext4 and e2fsck of e2fsprogs {version('e2fsprogs')}")
    systems.run(*make)
    sh("mount", device, "/run/tmp/at")
    systems.run(*make, wanted="mounted")
    put("/run/tmp/at/file", "x" * 100000)
    sh("sync")
    sh("dd", f"if={device}", "of=/run/tmp/copy", "bs=1M")
    sh("umount", "/run/tmp/at")
    systems.run(*check, wanted="clean")
    sh("dd", "if=/run/tmp/copy", f"of={device}", "bs=1M", "conv=fsync")
    systems.run(*check, wanted="recovering journal")
    sh("mkfs.ext4", "-q", "-F", device)
    for request in ("clri <2>", "set_super_value state 0"):  # without its root, and not unmounted in order
        sh("debugfs", "-w", "-R", request, device)
    systems.run(*check, wanted="UNEXPECTED INCONSISTENCY")
    systems.missing(*check)
    systems.save()
    sh("vgremove", "-f", "g")


def iscsi():
    """iscsiadm/nothing.txt."""
    iqn = "iqn.2024-01.org.example:store"
    command = ("/sbin/iscsiadm", "-m", "discoverydb", "-t", "sendtargets", "-p", "127.0.0.1:3260", "-I", "smapi-x", "-o",
               "nonpersistent", "-D")
    nothing = Recording("iscsiadm/nothing.txt", f"iscsiadm of open-iscsi {version('open-iscsi')}: nothing offered, no daemon.")
    kit.initiator()
    os.makedirs("/etc/iscsi/ifaces", exist_ok=True)
    put("/etc/iscsi/ifaces/smapi-x", "iface.iscsi_ifacename = smapi-x\niface.transport_name = tcp\n")
    target = kit.Target(iqn, [4 * MIB])
    put(f"{target.group}/attrib/generate_node_acls", 0)
    put(f"{target.group}/attrib/demo_mode_discovery", 0)
    nothing.run(*command, wanted="iscsiadm: ")
    for pid in map(int, sh("pidof", "iscsid").split()):
        os.kill(pid, signal.SIGKILL)
    kit.eventually(lambda: not kit.running("iscsid"))
    put("/etc/iscsi/iscsid.conf", "iscsid.startup = /bin/false\n")  # nobody starts it again
    nothing.run(*command, wanted="iscsiadm: ")
    nothing.save()
    target.close()


SCENARIOS = {"nfs": nfs, "smb": smb, "ext": ext, "iscsi": iscsi}

if __name__ == "__main__":
    os.makedirs(POINT, exist_ok=True)
    failed = False
    for scenario in sys.argv[1:] or SCENARIOS:
        try:
            SCENARIOS[scenario]()
        except Exception as broken:  # the others are recorded all the same
            failed = True
            print(scenario, type(broken).__name__, broken, file=sys.stderr, flush=True)
    sys.exit(failed)
