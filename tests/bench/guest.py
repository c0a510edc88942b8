# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ratios of types that need a kernel with device-mapper, iSCSI and NFS: what a call takes against the plain programs that
it needs, in the same guest, in turns. Seconds of software emulation say nothing; their quotients do, those of each turn, of
which the median is the ratio: a machine that is busy for a while is so for both.

    tests/vm/run --disks 4 --timeout 900 --env SMAPI_BUILD=$PWD/build/release -- /usr/bin/python3 -B tests/bench/guest.py [TYPE...]

A type is a function decorated by @of("TYPE"); it yields rows: (name, ours, floor, goal), ours and floor functions that
take nothing, or pairs of them of which the second undoes the first and is not measured; goal the largest ratio that is
good, or None."""
import contextlib
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
os.environ.setdefault("SMAPI_GUEST", "1")
sys.path[:0] = [os.path.join(HERE, "..", "vm"), os.path.join(HERE, "..", "e2e")]
import execs  # noqa: E402
import kit  # noqa: E402
from lab import MIB, Lab, Repository, new_uuid  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "7"))
GROUPS = {}


def of(kind):
    def keep(rows):
        GROUPS[kind] = rows
        return rows
    return keep


def seconds(what):
    do, undo = what if isinstance(what, tuple) else (what, lambda: None)
    begun = time.monotonic()
    do()
    taken = time.monotonic() - begun
    undo()
    return taken


def plainly(argv):
    """The same program as a shell would start it, with nothing but what the daemon told it."""
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


def commands_of(lab, call):
    """The words of all programs that a call starts, in order."""
    with execs.traced(lab) as found:
        call()
    return [program.words for program in found]


@of("lvm")
def lvm(lab):
    """vdi_create and vdi_attach against the very commands that one of each starts, run again by themselves."""
    sr = Repository(lab.unix("xapi"), "lvm", new_uuid(), {"device": kit.spare(), "allocation": "thin"}).made()
    twin = Repository(sr.client, "lvm", new_uuid(), {"device": kit.spare(), "allocation": "thin"}).made()
    for one in (sr, twin):
        one.disk(2 * MIB, vdi_sm_config={"type": "vhd"})
    vdi = new_uuid()
    create = commands_of(lab, lambda: sr.disk(2 * MIB, vdi_uuid=vdi, vdi_sm_config={"type": "vhd"}))
    temporary = next(word for words in create for word in words if word.startswith("tmp_"))[4:12]
    print("lvm vdi_create starts:", ", ".join(words[1] for words in create))

    def elsewhere(word):
        """On the twin, so that the daemon finds its own group as it left it."""
        return word.replace(sr.uuid, twin.uuid).replace(sr.config["device"], twin.config["device"])

    def floor():
        name, op = new_uuid(), new_uuid()[:8]
        for words in create:
            plainly([elsewhere(word).replace(vdi, name).replace(temporary, op) for word in words])
    yield "lvm vdi_create, against its lvm2 commands", \
        lambda: sr.disk(2 * MIB, vdi_sm_config={"type": "vhd"}), floor, 1.3

    def attached():
        sr("vdi_attach", "true", vdi_uuid=vdi)

    def detached():
        sr("vdi_detach", vdi_uuid=vdi)
    attach = commands_of(lab, attached)
    detached()
    print("lvm vdi_attach starts:", ", ".join(words[1] for words in attach))
    volume = f"VG_XenStorage-{sr.uuid}/VHD-{vdi}"

    def plain():
        for words in attach:
            plainly(words)
        subprocess.run(["lvchange", "-an", volume], check=True, capture_output=True)
    yield "lvm vdi_attach and vdi_detach, against lvchange -ay and -an", lambda: (attached(), detached()), plain, None
    before = len(sr.contents())
    print(f"lvm sr_scan of {before} volumes starts:",
          ", ".join(words[1] for words in commands_of(lab, lambda: sr("sr_scan"))) or "nothing")


def over_iscsi(lab, kind, **config):
    """An SR on a target of its own that is attached and detached, and what its attach does by plain open-iscsi."""
    iqn, portal = f"iqn.2024-01.org.example:{kind}", "127.0.0.1:3260"
    kit.initiator("iqn.2024-01.org.example:host")
    kit.Target(iqn, [128 * MIB])
    sr = Repository(lab.unix("xapi"), kind, new_uuid(), {"target": "127.0.0.1", "targetIQN": iqn, **config}).made()
    sr("sr_detach")

    def login():
        for words in (("-m", "discovery", "-t", "sendtargets", "-p", portal), ("-m", "node", "-T", iqn, "-p", portal, "-l")):
            plainly(["/sbin/iscsiadm", *words])
        while not any(name.startswith("scsi-36001405") for name in os.listdir("/dev/disk/by-id")):
            time.sleep(0.01)

    def logout():
        plainly(["/sbin/iscsiadm", "-m", "node", "-T", iqn, "-p", portal, "-u"])
        plainly(["/sbin/iscsiadm", "-m", "node", "-T", iqn, "-o", "delete"])
    return sr, login, logout


@of("iscsi")
def iscsi(lab):
    sr, login, logout = over_iscsi(lab, "iscsi")

    def attach():
        sr("sr_attach")

    def detach():
        sr("sr_detach")
    yield "iscsi sr_attach, against discovery and login until the disk is there", (attach, detach), (login, logout), 1.2
    yield "iscsi sr_attach and sr_detach, against the same and logout", \
        lambda: (attach(), detach()), lambda: (login(), logout()), 1.2
    attach()
    disk = sr.disk(MIB)
    print("iscsi sr_attach and vdi_attach of what is connected start:", ", ".join(words[0] for words in commands_of(
        lab, lambda: (attach(), sr.activated(disk)))) or "nothing")
    sr.released(disk)
    detach()


@of("lvmoiscsi")
def lvmoiscsi(lab):
    sr, login, logout = over_iscsi(lab, "lvmoiscsi", LUNid="0")
    yield "lvmoiscsi sr_attach and sr_detach, against discovery, login, pvs and logout", \
        lambda: (sr("sr_attach"), sr("sr_detach")), lambda: (login(), plainly(["/sbin/pvs"]), logout()), 1.2


def measure(ours, floor):
    """Medians of ours, of the floor, and of their quotients, in turns, after a round of each that does not count."""
    seconds(ours), seconds(floor)
    pairs = [(seconds(ours), seconds(floor)) for _ in range(ROUNDS)]
    return [statistics.median(values) for values in (*zip(*pairs), [one / other for one, other in pairs])]


def main(kinds):
    missed = 0
    with contextlib.closing(Lab()) as lab:
        lab.start()
        for kind in kinds or GROUPS:
            for name, ours, floor, goal in GROUPS[kind](lab):
                mine, least, ratio = measure(ours, floor)
                verdict = "" if goal is None else "ok" if ratio <= goal else "MISSED"
                missed += verdict == "MISSED"
                print(f"| {name} | {mine * 1000:.0f} ms | {least * 1000:.0f} ms | {ratio:.2f}x | "
                      f"{'' if goal is None else f'<= {goal}x'} | {verdict} |", flush=True)
    return missed > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
