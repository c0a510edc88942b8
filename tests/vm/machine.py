# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest: Debian's own kernel under QEMU's software emulation, this machine's root beneath a layer of RAM, scratch disks,
and one command that runs in it as root. What the guest does to the root is gone with it; nothing stays mounted here.

README.md says why each option stands where it stands.
"""
import compileall
import fcntl
import glob
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
CACHE = os.environ.get("SMAPI_VM_CACHE", "/var/cache/smapi-vm")
KERNEL = "linux-image-cloud-amd64"
# In the initramfs: what the root stands on.
MODULES = ("virtio_pci", "virtiofs", "overlay", "virtio_console", "virtio_rng", "virtio_blk")
# Rules of udevd that nothing but multipathd asks for, and that start programs at each event of each disk. Deep tests have
# them all.
UNASKED = ("55-scsi-sg3_id", "58-scsi-sg3_symlink", "60-kpartx", "60-multipath", "60-nfs", "68-del-part-nodes", "99-nfs")
VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
TESTS = ("", "contract", "e2e", "vm")  # directories of Python that guests run
TIMED_OUT, BROKEN = 124, 125  # statuses of a machine that came to no end, or to none of the command's
OFTEN = 0.05


class Unavailable(Exception):
    """No guest can be had on this machine; the sentence says why."""


def output(*argv, **keys):
    run = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **keys)
    if run.returncode:
        raise Unavailable(f"{shlex.join(argv)}: {run.stdout.decode(errors='replace').strip()[-1000:]}")
    return run.stdout


class Kernel:
    """The kernel package, fetched and unpacked (never installed) below CACHE, and an initramfs beside it."""

    def __init__(self):
        """Makes what is missing; one process at a time."""
        if os.geteuid() != 0:
            raise Unavailable("a guest needs root, for the mount namespaces that its root is shared from")
        os.makedirs(CACHE, exist_ok=True)
        with open(os.path.join(CACHE, "lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            output(os.path.join(SOURCE, "deploy", "install-packages"), os.path.join(HERE, "packages"))
            self.directory = os.path.join(CACHE, self._fetched())
            self.image = os.path.join(self.directory, "vmlinux")
            self.modules = os.path.join(self.directory, "lib", "modules")
            self.release = os.listdir(self.modules)[0]
            self.initramfs = self._initramfs()

    def _fetched(self):
        """The name of the newest kernel that is here, fetched if there is none."""
        have = sorted(glob.glob(os.path.join(CACHE, "linux-image-*")), key=os.path.getmtime)
        return os.path.basename(have[-1]) if have else self._fetch()

    def _fetch(self):
        package = self._package()
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            output("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package, cwd=work)
            root = os.path.join(work, "root")
            output("dpkg-deb", "-x", glob.glob(os.path.join(work, "*.deb"))[0], root)
            output("depmod", "-b", root, package.removeprefix("linux-image-"))
            packed = glob.glob(os.path.join(root, "boot", "vmlinuz-*"))[0]
            self._unpack_image(packed, os.path.join(root, "vmlinux"))
            shutil.rmtree(os.path.join(root, "boot"))
            shutil.rmtree(os.path.join(root, "usr"))
            os.rename(root, os.path.join(CACHE, package))
        return package

    def _package(self):
        """The package that KERNEL, which is empty, depends on."""
        for _ in range(2):
            for line in output("apt-cache", "depends", KERNEL).decode().splitlines():
                word = line.split()
                if word[0] == "Depends:" and word[1].startswith("linux-image-"):
                    return word[1]
            output("apt-get", "-qq", "update")
        raise Unavailable(f"no package {KERNEL} to be had")

    @staticmethod
    def _unpack_image(packed, image):
        """The bare ELF image inside starts a second sooner than the packed one; it is packed by lz4."""
        with open(packed, "rb") as source:
            data = source.read()
        begin = data.find(b"\x02\x21\x4c\x18")
        bare = subprocess.run(["lz4", "-dc"], input=data[begin:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              check=False).stdout if begin > 0 else b""  # it complains about what follows
        with open(image, "wb") as out:
            out.write(bare if bare.startswith(b"\x7fELF") else data)

    def _initramfs(self):
        init = os.path.join(HERE, "initramfs-init")
        with open(init, "rb") as text:
            key = hashlib.sha256(text.read() + " ".join(MODULES).encode()).hexdigest()[:16]
        path = os.path.join(self.directory, f"initramfs-{key}")
        if os.path.exists(path):
            return path
        with tempfile.TemporaryDirectory(dir=CACHE) as root:
            for name in ("bin", "proc", "sys", "dev", "below", "above", "root", "modules"):
                os.mkdir(os.path.join(root, name))
            shutil.copy(shutil.which("busybox"), os.path.join(root, "bin"))
            shutil.copy(init, os.path.join(root, "init"))
            os.chmod(os.path.join(root, "init"), 0o755)
            with open(os.path.join(root, "modules", "order"), "w", encoding="ascii") as order:
                for module in self._needed():
                    shutil.copy(module, os.path.join(root, "modules"))
                    print(os.path.basename(module), file=order)
            names = "\n".join(sorted(os.path.relpath(os.path.join(top, name), root)
                                     for top, directories, files in os.walk(root) for name in directories + files))
            with open(path + ".new", "wb") as out:
                subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=names.encode(), stdout=out, cwd=root,
                               check=True)
        os.rename(path + ".new", path)
        return path

    def _needed(self):
        """Paths of MODULES and what they need, in the order of loading."""
        paths = {}
        for module in MODULES:
            shown = output("modprobe", "-d", self.directory, "-S", self.release, "--show-depends", module).decode()
            paths.update((line.split()[1], None) for line in shown.splitlines() if line.startswith("insmod "))
        return list(paths)


class Machine:
    """One guest. start, then wait or kill; close removes what is left. The guest dies with the thread that started it.

    command: argv. disks: how many scratch disks of disk_size (/dev/vda, ...; /dev/sda, ... with scsi); files: raw images
    to follow them, kept; shared: the same, for two machines at once. disk_options: more properties of the scratch disks.
    shares: directories that both sides write to. link: the path of a socket; with address the machine is one end of a
    wire, and the one that listens is started first. memory in MiB. stdout and stderr: descriptors.
    """

    def __init__(self, command, *, disks=2, disk_size="1G", scsi=False, disk_options="", files=(), shared=(), shares=(),
                 environment=(), directory=None, memory=2048, cpus=1, console=None, link=None, listens=False, address="",
                 name="guest", stdout=1, stderr=2):
        self.kernel = Kernel()
        self._compile()
        self._sweep()
        self.work = tempfile.mkdtemp(prefix=f"smapi-vm-{os.getpid()}-")
        self.console = console or os.path.join(self.work, "console")
        self.streams = (os.dup(stdout), os.dup(stderr))  # QEMU takes no descriptor below 3
        self.children, self.qemu = [], None
        self.shares = [os.path.realpath(share) for share in shares]
        directory = os.path.realpath(directory or os.getcwd())
        for path in (directory, self.kernel.directory, SOURCE):
            self._check_visible(path)
        self._orders(command, directory, environment, address, name)
        self.argv = self._argv(memory, cpus)
        for number in range(disks):
            path = os.path.join(self.work, f"disk{number}")
            output("truncate", "-s", disk_size, path)
            self._disk(path, f"scratch{number}", scsi, disk_options)
        for number, path in enumerate(files):
            self._disk(path, f"file{number}", scsi, disk_options)
        for number, path in enumerate(shared):
            self._disk(path, f"shared{number}", scsi, disk_options, "share-rw=on", "file.locking=off")
        if scsi:
            self.argv[1:1] = ["-device", "virtio-scsi-pci"]
        if link:
            self._wire(link, listens)

    @staticmethod
    def _compile():
        """The tests, beside them, where the guest finds it done: there it would take seconds."""
        for name in TESTS:
            compileall.compile_dir(os.path.join(SOURCE, "tests", name), maxlevels=0, quiet=2)

    @staticmethod
    def _sweep():
        """What one that was killed has left."""
        for path in glob.glob(os.path.join(tempfile.gettempdir(), "smapi-vm-*-*")):
            if not os.path.exists(f"/proc/{os.path.basename(path).split('-')[2]}"):
                shutil.rmtree(path, ignore_errors=True)

    def _check_visible(self, path):
        at_root = os.stat(path).st_dev == os.stat("/").st_dev
        if not at_root and not any(path == share or path.startswith(share + "/") for share in self.shares):
            raise Unavailable(f"{path} is not on the root file system, and a guest sees nothing else")

    def _orders(self, command, directory, environment, address, name):
        """What the guest reads: files in a directory that it and this side share."""
        lab = os.path.join(self.work, "lab")
        os.mkdir(lab)
        script = [f"cd {shlex.quote(directory)}"]
        script += [f"export {key}={shlex.quote(value)}" for key, value in dict(environment).items()]
        script += ["exec " + shlex.join(command)]
        for leaf, text in (("command", "\n".join(script)), ("address", address), ("name", name)):
            self._write(os.path.join(lab, leaf), text + "\n")
        unasked = () if "SMAPI_DEEP" in dict(environment) else UNASKED
        self._write(os.path.join(lab, "unasked"), "".join(rules + ".rules\n" for rules in unasked))
        self._write(os.path.join(lab, "shares"), "".join(share + "\n" for share in self.shares))
        shutil.copy(os.path.join(HERE, "guest-init"), lab)

    @staticmethod
    def _write(path, text):
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)

    def _argv(self, memory, cpus):
        words = ("console=ttyS0 quiet panic=-1 mitigations=off norandmaps audit=0 apparmor=0 selinux=0 "
                 "cgroup_disable=memory init_on_alloc=0 cryptomgr.notests rcupdate.rcu_expedited=1 clocksource=hpet "
                 f"net.ifnames=0 lab.modules={self.kernel.modules}")
        out, err = self.streams
        return ["qemu-system-x86_64", "-M", "q35,memory-backend=ram", "-accel", "tcg,thread=multi",
                "-cpu", "qemu64,+rdrand", "-smp", str(cpus), "-m", str(memory),
                "-object", f"memory-backend-memfd,id=ram,size={memory}M,share=on",
                "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                "-kernel", self.kernel.image, "-initrd", self.kernel.initramfs, "-append", words,
                "-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console",
                "-device", "virtio-rng-pci", "-device", "virtio-serial-pci,max_ports=4",
                "-add-fd", f"fd={out},set=1", "-chardev", "file,id=out,path=/dev/fdset/1,append=on",
                "-add-fd", f"fd={err},set=2", "-chardev", "file,id=err,path=/dev/fdset/2,append=on",
                "-device", "virtserialport,chardev=out,name=lab.out",
                "-device", "virtserialport,chardev=err,name=lab.err"]

    def _disk(self, path, serial, scsi, options, *more):
        drive = ",".join(filter(None, (f"file={path},if=none,id={serial},format=raw,cache=unsafe,discard=unmap",
                                       *(word for word in more if word.startswith("file.")))))
        device = ",".join(filter(None, ("scsi-hd" if scsi else "virtio-blk-pci", f"drive={serial},serial={serial}",
                                        options, *(word for word in more if not word.startswith("file.")))))
        self.argv += ["-drive", drive, "-device", device]

    def _wire(self, link, listens):
        number = os.urandom(3).hex(":")
        self.argv += ["-netdev", f"stream,id=wire,server={'on' if listens else 'off'},addr.type=unix,addr.path={link}",
                      "-device", f"virtio-net-pci,netdev=wire,mac=52:54:00:{number},romfile="]

    def _child(self, argv, **keys):
        """A child that the kernel ends with this thread."""
        child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *argv], stdin=subprocess.DEVNULL, **keys)
        self.children.append(child)
        return child

    def _serve(self, tag, directory, cache, access):
        """One virtiofsd, in a mount namespace of its own, where access holds for the directory."""
        socket, mount = os.path.join(self.work, f"{tag}.socket"), os.path.join(self.work, f"{tag}.mount")
        os.mkdir(mount)
        script = ('mount --bind "$1" "$2" && { [ "$3" = rw ] || mount -o remount,bind,ro "$2"; } && '
                  f'exec setpriv --pdeathsig KILL {VIRTIOFSD} --socket-path="$5" '
                  '-o "source=$2,cache=$4,sandbox=chroot" -o xattr -o log_level=err')
        log = os.path.join(self.work, f"{tag}.log")
        with open(log, "wb") as out:
            child = self._child(["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", directory, mount,
                                 access, cache, socket], stdout=out, stderr=out)
        deadline = time.monotonic() + 30
        while not os.path.exists(socket):
            if child.poll() is not None or time.monotonic() > deadline:
                with open(log, encoding="utf-8", errors="replace") as text:
                    raise Unavailable(f"virtiofsd does not serve {directory}: {text.read().strip()}")
            time.sleep(OFTEN / 5)
        self.argv += ["-chardev", f"socket,id={tag},path={socket}",
                      "-device", f"vhost-user-fs-pci,chardev={tag},tag={tag},queue-size=512"]

    def start(self):
        """On failure nothing runs."""
        try:
            self._serve("root", "/", "always", "ro")
            self._serve("lab", os.path.join(self.work, "lab"), "none", "rw")
            for number, share in enumerate(self.shares):
                self._serve(f"share{number}", share, "auto", "rw")
            self.qemu = self._child(self.argv, pass_fds=self.streams)
        except BaseException:
            self.close()
            raise
        return self

    def status(self):
        """Of the command; None while there is none."""
        try:
            with open(os.path.join(self.work, "lab", "status"), encoding="ascii") as text:
                return int(text.read())
        except FileNotFoundError:
            return None

    def wait(self, seconds):
        """Waits for the end and closes. The command's status, TIMED_OUT, or BROKEN when the guest itself failed; then the
        end of its console is on stderr."""
        try:
            try:
                self.qemu.wait(seconds)
            except subprocess.TimeoutExpired:
                self._complain(f"time limit of {seconds} s reached", 5)
                return TIMED_OUT
            status = self.status()
            if status is None:
                self._complain(f"the guest ended without a result (QEMU: {self.qemu.returncode})", 60)
                return BROKEN
            return status
        finally:
            self.close()

    def _complain(self, sentence, lines):
        tail = []
        if os.path.exists(self.console):
            with open(self.console, encoding="utf-8", errors="replace") as text:
                tail = text.read().splitlines()[-lines:]
        print(f"vm: {sentence}; its console:", *tail, sep="\n", file=sys.stderr)

    def kill(self):
        """Power is cut."""
        self.qemu.kill()
        self.qemu.wait()
        self.close()

    def close(self):
        for child in reversed(self.children):  # the guest before what serves it
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                try:
                    child.wait(10)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
        for stream in self.streams:
            os.close(stream)
        self.children, self.streams = [], ()
        shutil.rmtree(self.work, ignore_errors=True)
