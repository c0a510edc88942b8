# SPDX-License-Identifier: LGPL-2.1-or-later
"""What must be true after a crash, and a recipe for each changing method: how to prepare for it, do it, and tell from
outside whether it was done."""
import functools
import json
import os
import threading
import time

import vhd
from lab import KINDS, MIB, Fault, boot_id, describe, new_uuid, type_row
from trees import write_pieces

CONTENT = (512, b"once" * 1024), (2 * MIB, b"more" * 128)  # what is written into a disk
LATER = (1024, b"then" * 256), (3 * MIB, b"last" * 512)


def listed(sr):
    """Disks of the SR, or None when it is not served."""
    try:
        return sr.contents()
    except Fault as fault:
        if fault.code != 47:
            raise
        return None


def consistent(test, sr, strangers=frozenset()):
    """Nothing half-made is left, and what is on the medium is what is served; strangers: images the daemon need not
    have heard of, and disks that may be in quarantine."""
    if sr.layout != "file" or not os.path.isdir(sr.location):
        return
    test.assertEqual(sr.litter(), set())
    rows = listed(sr)
    if rows is not None and "sr.smapi" in sr.names():
        test.assertEqual(set(rows) - sr.images(), set(), "disks without an image")
        test.assertEqual(sr.images() - set(rows) - strangers, set(), "images that are no disks")
        tree(test, sr, rows, strangers)
        checked(test, sr, strangers)


def checked(test, sr, strangers):
    """smapid's own check of everything finds nothing; it is asked over the socket, as smapid --fsck does."""
    found = sr.client.call("smapi.sr_fsck", sr_uuid=sr.uuid, strict="true")["differences"]
    test.assertEqual([one for one in found if one["kind"] not in ("disk_unknown", "disk_quarantined", "sr_unreachable") or
                      one["object"] not in strangers], [])


def tree(test, sr, rows, strangers=frozenset()):
    """VHDs keep the rules of their format and their rows say of them what is so; no base is without a child."""
    images = vhd.judge(sr.location)
    parents = {image.parent for image in images.values()}
    for vdi, image in images.items():
        test.assertTrue(not image.hidden or vdi in parents, f"base {vdi} has no child")
        if vdi in rows and not (vdi in strangers and rows[vdi]["state"] == "quarantined"):
            row = rows[vdi]
            test.assertEqual((int(row["size"]), row["hidden"], row["parent"] or None, row["state"]),
                             (image.size, image.hidden, image.parent, "live"), vdi)


@functools.lru_cache(16)
def laid(*layers):
    """The bytes of a disk of 4 MiB after such writes."""
    disk = bytearray(4 * MIB)
    for pieces in layers:
        for offset, data in pieces:
            disk[offset:offset + len(data)] = data
    return bytes(disk)


def picture(sr):
    """All that can be seen of an SR: names, sizes, inodes and times on the medium, and the rows."""
    files = None
    if sr.layout == "file" and os.path.isdir(sr.location):
        files = {}
        for name in sr.names():
            status = os.stat(os.path.join(sr.location, name))
            files[name] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return files, listed(sr)


def attached(sr):
    """Whether the caller has the SR attached."""
    try:
        sr("vdi_attach", "false", vdi_uuid=new_uuid())
    except Fault as fault:
        if fault.code in (46, 47):
            return fault.code == 46
        raise
    raise AssertionError("a disk that does not exist was attached")


class Recipe:
    """prepare and act use the daemon; done tells whether the call's effect is there (None: not to be told without
    changing it); final checks that it is, once the call was repeated."""

    undone = False  # without an operation id it is undone unless its result was committed
    past = frozenset()  # points of the file layout from which on it is completed all the same
    repeated = ()   # faults a repeat without operation id may meet when it was done
    strangers = frozenset()
    layouts = ("file", "dummy")

    def __init__(self, test, rival):
        self.test = test
        self.rival = rival  # a client of another host

    def prepare(self, sr):
        sr.made()
        self.vdi = sr.disk(4 * MIB, "label")

    def done(self, _sr):
        return None

    def final(self, sr):
        self.test.assertIs(self.done(sr), True)


class SrCreate(Recipe):
    undone = True
    repeated = (42,)

    def prepare(self, sr):
        pass

    def act(self, sr, op=None):
        sr("sr_create", "0", op=op)

    def done(self, sr):
        if listed(sr) is not None:
            return True
        if sr.layout == "file":
            self.test.assertFalse(os.path.exists(sr.location), "an undone sr_create leaves its directory")
        return False

    def final(self, sr):
        sr("sr_attach")
        self.test.assertEqual(sr.contents(), {})


class SrDelete(Recipe):
    def prepare(self, sr):
        sr.made()

    def act(self, sr, op=None):
        sr("sr_delete", op=op)

    def done(self, sr):
        if listed(sr) is not None:
            sr("sr_update")
            return False
        if sr.layout == "file":
            self.test.assertFalse(os.path.exists(sr.location), "a deleted SR leaves its directory")
        return True


class SrAttach(Recipe):
    def prepare(self, sr):
        super().prepare(sr)
        sr("sr_detach")

    def act(self, sr, op=None):
        sr("sr_attach", op=op)

    def done(self, sr):
        return attached(sr)

    def final(self, sr):
        self.test.assertEqual(set(sr.contents()), {self.vdi})


class TakeOver(Recipe):
    """Of an SR whose marker says that it is another server's."""

    layouts = ("file",)
    past = frozenset({"claim_linked", "claim_published", "effects_done"})
    strangers = frozenset({""})  # while it is that server's the check cannot look at it

    def prepare(self, sr):
        super().prepare(sr)
        sr("sr_detach")
        marker = os.path.join(sr.location, "sr.smapi")
        with open(marker, encoding="ascii") as text:
            record = json.load(text)
        self.owner = record["server"] = new_uuid()
        record["op"] = new_uuid()
        with open(marker + ".new", "w", encoding="ascii") as out:
            json.dump(record, out)
        os.rename(marker + ".new", marker)

    def act(self, sr, op=None):
        sr("smapi.sr_take_over", owner=self.owner, reason="a test", op=op)

    def done(self, sr):
        answer = sr("smapi.sr_take_over")
        self.test.assertEqual(answer["ours"], answer["owner"] != self.owner)
        return answer["ours"]

    def final(self, sr):
        super().final(sr)
        sr("sr_attach")
        self.test.assertEqual(set(sr.contents()), {self.vdi})
        sr("sr_detach")


class SrDetach(Recipe):
    def act(self, sr, op=None):
        sr("sr_detach", op=op)

    def done(self, sr):
        return not attached(sr)


class SrScan(Recipe):
    def prepare(self, sr):
        super().prepare(sr)
        self.expected = {self.vdi}
        if sr.layout == "file":
            self.strangers = {new_image(sr)}
            self.expected |= self.strangers

    def act(self, sr, op=None):
        sr("sr_scan", op=op)

    def final(self, sr):
        self.test.assertEqual(set(sr.contents()), self.expected)


class VdiCreate(Recipe):
    undone = True
    repeated = (43,)

    def prepare(self, sr):
        super().prepare(sr)
        self.made = new_uuid()

    def act(self, sr, op=None):
        sr("vdi_create", str(4 * MIB), "made", vdi_uuid=self.made, op=op)

    def done(self, sr):
        self.test.assertIn(self.vdi, sr.contents())
        return self.made in sr.contents()

    def final(self, sr):
        row = sr.contents()[self.made]
        self.test.assertEqual((row["label"], int(row["size"])), ("made", 4 * MIB))


class VdiCreateRaw(VdiCreate):
    layouts = ("file",)

    def act(self, sr, op=None):
        sr("vdi_create", str(4 * MIB), "made", vdi_uuid=self.made, vdi_sm_config={"type": "raw"}, op=op)


class VdiUpdate(Recipe):
    def act(self, sr, op=None):
        sr("vdi_update", vdi_uuid=self.vdi, name_label="new", op=op)

    def done(self, sr):
        label = sr.contents()[self.vdi]["label"]
        self.test.assertIn(label, ("label", "new"))
        return label == "new"


class VdiIntroduce(Recipe):
    suffix = ".vhd"

    def prepare(self, sr):
        super().prepare(sr)
        self.made = new_image(sr, self.suffix) if sr.layout == "file" else new_uuid()
        self.strangers = {self.made}

    def act(self, sr, op=None):
        sr("vdi_introduce", vdi_location=self.made, new_uuid=self.made, vdi_sm_config={}, op=op)

    def final(self, sr):
        self.test.assertIn(self.made, sr.contents())


class VdiIntroduceRaw(VdiIntroduce):
    suffix = ".raw"
    layouts = ("file",)


class VdiDelete(Recipe):
    def act(self, sr, op=None):
        sr("vdi_delete", vdi_uuid=self.vdi, op=op)

    def done(self, sr):
        return self.vdi not in sr.contents()


class VdiAttach(Recipe):
    def act(self, sr, op=None):
        sr("vdi_attach", "true", vdi_uuid=self.vdi, op=op)

    def final(self, sr):
        with self.test.assertRaises(Fault) as refused:
            sr("sr_detach")
        self.test.assertEqual(refused.exception.code, 16)


class VdiDetach(Recipe):
    def prepare(self, sr):
        super().prepare(sr)
        sr("vdi_attach", "true", vdi_uuid=self.vdi)

    def act(self, sr, op=None):
        sr("vdi_detach", vdi_uuid=self.vdi, op=op)

    def final(self, sr):
        sr("sr_detach")
        sr("sr_attach")


class VdiActivate(Recipe):
    def prepare(self, sr):
        super().prepare(sr)
        sr("vdi_attach", "true", vdi_uuid=self.vdi)
        sr.by(self.rival)("sr_attach")

    def act(self, sr, op=None):
        sr("vdi_activate", "true", vdi_uuid=self.vdi, op=op)

    def held(self, sr):
        """Whether the rival is kept out."""
        rival = sr.by(self.rival)
        try:
            rival.activated(self.vdi)
            return False
        except Fault as fault:
            self.test.assertEqual(fault.code, 24, fault.text)
            return True
        finally:
            rival.released(self.vdi)

    def done(self, sr):
        return self.held(sr)


class VdiDeactivate(VdiActivate):
    def prepare(self, sr):
        super().prepare(sr)
        sr("vdi_activate", "true", vdi_uuid=self.vdi)

    def act(self, sr, op=None):
        sr("vdi_deactivate", vdi_uuid=self.vdi, op=op)

    def done(self, sr):
        return not self.held(sr)


class TreeRecipe(Recipe):
    """A disk with content; what live disks hold is told by reading them."""

    layouts = ("file",)

    def prepare(self, sr):
        super().prepare(sr)
        self.fill(sr, self.vdi, CONTENT)

    def fill(self, sr, vdi, pieces):
        if sr.layout == "file":
            write_pieces(sr, vdi, pieces)

    def live(self, sr):
        """Live disks; each must hold what holds() says."""
        rows = {vdi for vdi, row in sr.contents().items() if not row["hidden"]}
        for vdi in rows if sr.layout == "file" else ():
            self.test.assertIn(vhd.read(sr.location, vdi), self.holds(vdi), vdi)
        return rows

    def holds(self, _vdi):
        return (laid(CONTENT),)

    def fork(self, sr, method="vdi_clone"):
        return sr(method, vdi_uuid=self.vdi, driver_params={})["uuid"]


class VdiSnapshot(TreeRecipe):
    undone = True
    past = {"fork_published", "fork_second_made", "hide_written", "fork_hidden", "effects_done"}
    method = "vdi_snapshot"
    layouts = Recipe.layouts

    def prepare(self, sr):
        super().prepare(sr)
        self.before = self.live(sr)

    def act(self, sr, op=None):
        sr(self.method, vdi_uuid=self.vdi, driver_params={}, op=op)

    def done(self, sr):
        live = self.live(sr)
        self.test.assertLessEqual(self.before, live)
        return live > self.before


class VdiClone(VdiSnapshot):
    method = "vdi_clone"


class VdiSnapshotAgain(VdiSnapshot):
    """Of a disk that holds nothing of its own."""

    layouts = ("file",)

    def prepare(self, sr):
        super().prepare(sr)
        self.before = {self.vdi, self.fork(sr)}


class VdiCloneOfSnapshot(VdiClone):
    layouts = ("file",)

    def prepare(self, sr):
        super().prepare(sr)
        self.fill(sr, self.vdi, CONTENT)
        made = self.fork(sr, "vdi_snapshot")
        self.before, self.vdi = {self.vdi, made}, made


class VdiDeleteTree(TreeRecipe):
    """The last leaf goes, and all that was below it."""

    def prepare(self, sr):
        super().prepare(sr)
        for _ in range(2):
            sr("vdi_delete", vdi_uuid=self.fork(sr))
            self.fill(sr, self.vdi, CONTENT)

    def act(self, sr, op=None):
        sr("vdi_delete", vdi_uuid=self.vdi, op=op)

    def done(self, sr):
        return self.vdi not in self.live(sr)

    def final(self, sr):
        self.test.assertEqual((sr.contents(), sr.names()), ({}, {"sr.smapi"}))


class VdiDeleteLeaf(VdiDeleteTree):
    """One of two leaves goes, the other and their base stay."""

    def prepare(self, sr):
        TreeRecipe.prepare(self, sr)
        self.other, self.vdi = self.vdi, self.fork(sr)

    def final(self, sr):
        self.test.assertEqual(self.live(sr), {self.other})
        self.test.assertEqual(len(sr.images()), 2)


class VdiDeleteRaw(VdiDelete):
    layouts = ("file",)

    def prepare(self, sr):
        sr.made()
        self.vdi = sr.disk(4 * MIB, vdi_sm_config={"type": "raw"})


class VdiResize(TreeRecipe):
    layouts = Recipe.layouts
    size = 8 * MIB

    def act(self, sr, op=None):
        sr("vdi_resize", str(self.size), vdi_uuid=self.vdi, op=op)

    def done(self, sr):
        size = int(sr.contents()[self.vdi]["size"])
        self.test.assertIn(size, (4 * MIB, self.size))
        self.intact(sr, size)
        return size == self.size

    def intact(self, sr, size):
        if sr.layout == "file":
            self.test.assertEqual(vhd.read(sr.location, self.vdi), laid(CONTENT) + bytes(size - 4 * MIB))


class VdiResizeRaw(VdiResize):
    layouts = ("file",)

    def prepare(self, sr):
        sr.made()
        self.vdi = sr.disk(4 * MIB, vdi_sm_config={"type": "raw"})
        self.fill(sr, self.vdi, CONTENT)


class VdiResizeTable(VdiResize):
    """So large that its first blocks make room for the table."""

    layouts = ("file",)
    size = 4 << 30

    def intact(self, sr, size):
        image = vhd.Image(vhd.find(sr.location, self.vdi))
        self.test.assertEqual((image.size, max(image.table)), (size, 1))
        image.size = 4 * MIB
        self.test.assertEqual(image.laid_on(None), laid(CONTENT))


class VdiResizeLeaf(VdiResize):
    """Of a disk with a parent."""

    layouts = ("file",)

    def prepare(self, sr):
        super().prepare(sr)
        self.fork(sr)


class VdiCompose(TreeRecipe):
    """A child is put on top of another disk; its old base keeps its other child."""

    def prepare(self, sr):
        super().prepare(sr)
        self.other = self.fork(sr)
        self.fill(sr, self.vdi, LATER)
        self.parent = sr.disk(4 * MIB)
        self.fill(sr, self.parent, CONTENT)

    def act(self, sr, op=None):
        sr("vdi_compose", self.parent, vdi_uuid=self.vdi, op=op)

    def done(self, sr):
        composed = sr.contents()[self.vdi]["parent"] == self.parent
        self.test.assertEqual(self.live(sr), {self.vdi, self.other} | (set() if composed else {self.parent}))
        return composed

    def holds(self, vdi):
        return (laid(CONTENT, LATER if vdi == self.vdi else ()),)


class VdiEpochBegin(TreeRecipe):
    """What was written since the fork is forgotten."""

    def prepare(self, sr):
        super().prepare(sr)
        self.other = self.fork(sr)
        self.fill(sr, self.vdi, LATER)

    def act(self, sr, op=None):
        sr("vdi_epoch_begin", vdi_uuid=self.vdi, vdi_on_boot="reset", op=op)

    def holds(self, vdi):
        return (laid(CONTENT),) if vdi == self.other else (laid(CONTENT), laid(CONTENT, LATER))

    def done(self, sr):
        self.test.assertEqual(self.live(sr), {self.vdi, self.other})
        return vhd.read(sr.location, self.vdi) == laid(CONTENT)


class VdiResolve(TreeRecipe):
    """Of a disk that was set aside because its image was away while it was to be reset."""

    repeated = (46,)

    def prepare(self, sr):
        super().prepare(sr)
        self.other = self.fork(sr)
        image = os.path.join(sr.location, self.vdi + ".vhd")
        os.rename(image, image + ".away")
        with self.test.assertRaises(Fault):
            sr("vdi_epoch_begin", vdi_uuid=self.vdi, vdi_on_boot="reset")
        os.rename(image + ".away", image)
        self.test.assertEqual(sr.contents()[self.vdi]["state"], "quarantined")
        self.strangers = {self.vdi}

    def act(self, sr, op=None):
        sr("smapi.vdi_resolve", vdi_uuid=self.vdi, op=op)

    def done(self, sr):
        return sr.contents()[self.vdi]["state"] == "live"

    def final(self, sr):
        self.test.assertEqual(self.live(sr), {self.vdi, self.other})


class FromConfig(Recipe):
    """As a host does it at its start: a document and nothing else."""

    layouts = ("file",)
    method = "vdi_attach_from_config"

    def prepare(self, sr):
        super().prepare(sr)
        sr("sr_detach")

    def act(self, sr, op=None):
        sr.client.call(self.method, path=f"/sm/{sr.kind}", op=op, sr_uuid=sr.uuid, vdi_uuid=self.vdi, device_config=sr.config)

    def done(self, sr):
        if not attached(sr):
            return False
        try:
            sr("sr_detach")
        except Fault as fault:
            self.test.assertEqual(fault.code, 16)
            return True
        sr("sr_attach")
        return False


class FromConfigBack(FromConfig):
    method = "vdi_detach_from_config"

    def prepare(self, sr):
        Recipe.prepare(self, sr)
        sr("vdi_attach", "true", vdi_uuid=self.vdi)

    def done(self, sr):
        return not super().done(sr)


NONCE = new_uuid()


class HostRegister(Recipe):
    """The local host's one agent: whatever dies, it gets its session."""

    layouts = ("dummy",)

    def call(self, sr, method, op=None):
        sr.client.call(method, path="/RPC2", op=op, host_boot_id=boot_id(), nonce=NONCE)

    def act(self, sr, op=None):
        self.call(sr, "smapi.host_register", op)

    def final(self, sr):
        self.call(sr, "smapi.host_renew")


class HostRenew(HostRegister):
    def prepare(self, sr):
        super().prepare(sr)
        self.call(sr, "smapi.host_register")

    def act(self, sr, op=None):
        self.call(sr, "smapi.host_renew", op)


class LeaseBreak(Recipe):
    """Of another host's lease, on a type that can fence."""

    layouts = ("dummy",)

    def prepare(self, sr):
        super().prepare(sr)
        self.theirs = sr.by(self.rival)
        self.theirs("sr_attach")
        self.epoch = self.theirs.activated(self.vdi)
        self.host = sr.contents()[self.vdi]["leases"][0]["host"]
        self.evidence = "fenced" if type_row(sr.kind)["fencing"] in ("vdi", "host") else "ha"

    def act(self, sr, op=None):
        sr.client.call("smapi.lease_break", path="/RPC2", op=op, sr_uuid=sr.uuid, vdi_uuid=self.vdi, host=self.host,
                       epoch=str(self.epoch), evidence=self.evidence, reason="a test")

    def done(self, sr):
        leases = sr.contents()[self.vdi]["leases"]
        return not leases or leases[0]["state"] in ("revoking", "quarantined") and None

    def final(self, sr):
        self.test.assertIs(self.done(sr), True)
        self.test.assertGreater(sr.activated(self.vdi), self.epoch)
        sr.released(self.vdi)


class HostBreak(LeaseBreak):
    """The same for all leases of that host, which are this one."""

    def act(self, sr, op=None):
        answer = sr.client.call("smapi.host_break", path="/RPC2", op=op, host=self.host, epoch=str(self.epoch),
                                evidence=self.evidence, reason="a test")
        for row in answer["left"]:
            raise Fault(int(row["code"]), row["why"])


class HostUnregister(Recipe):
    """Of another host, which gives the lease back that it has."""

    layouts = ("dummy",)
    repeated = (37,)

    def prepare(self, sr):
        super().prepare(sr)
        self.words = {"host_boot_id": new_uuid(), "nonce": new_uuid()}
        self.rival.call("smapi.host_register", path="/RPC2", **self.words)
        self.theirs = sr.by(self.rival)
        self.theirs("sr_attach")
        self.epoch = self.theirs.activated(self.vdi)

    def act(self, sr, op=None):
        self.rival.call("smapi.host_unregister", path="/RPC2", op=op, release=True, **self.words)

    def done(self, sr):
        """The session is over; while it is not, its lease is there, or going, or gone."""
        hosts = sr.client.call("smapi.lease_list", path="/RPC2")["hosts"]
        if all(row["boot"] != self.words["host_boot_id"] for row in hosts):
            self.test.assertEqual(sr.contents()[self.vdi]["leases"], [])
            return True
        return None

    def final(self, sr):
        if not self.done(sr):
            self.act(sr)
        self.test.assertIs(self.done(sr), True)
        self.test.assertGreater(sr.activated(self.vdi), self.epoch)
        sr.released(self.vdi)


RECIPES = {"smapi.sr_take_over": [TakeOver], "smapi.lease_break": [LeaseBreak], "smapi.host_break": [HostBreak], "smapi.host_register": [HostRegister],
           "smapi.host_renew": [HostRenew], "smapi.host_unregister": [HostUnregister], "sr_create": [SrCreate], "sr_delete": [SrDelete], "sr_attach": [SrAttach], "sr_detach": [SrDetach],
           "sr_scan": [SrScan], "vdi_create": [VdiCreate, VdiCreateRaw], "vdi_update": [VdiUpdate],
           "vdi_introduce": [VdiIntroduce, VdiIntroduceRaw], "vdi_delete": [VdiDelete, VdiDeleteRaw, VdiDeleteLeaf, VdiDeleteTree],
           "vdi_attach": [VdiAttach], "vdi_detach": [VdiDetach], "vdi_activate": [VdiActivate],
           "vdi_deactivate": [VdiDeactivate], "vdi_snapshot": [VdiSnapshot, VdiSnapshotAgain],
           "vdi_clone": [VdiClone, VdiCloneOfSnapshot],
           "smapi.vdi_resolve": [VdiResolve], "vdi_compose": [VdiCompose], "vdi_epoch_begin": [VdiEpochBegin],
           "vdi_attach_from_config": [FromConfig], "vdi_detach_from_config": [FromConfigBack],
           "vdi_resize": [VdiResize, VdiResizeRaw, VdiResizeTable, VdiResizeLeaf]}


def changing():
    """Rows of the methods that change something."""
    return [row for row in describe()["methods"] if row["effect"] != "reads"]


def series():
    """(kind, method's row, recipe) of all that types offer."""
    return [(kind, row, recipe) for kind in KINDS for row in changing()
            if not row["capability"] or row["capability"] in type_row(kind)["offers"]
            for recipe in RECIPES[row["name"]] if type_row(kind)["layout"] in recipe.layouts]


def new_image(sr, suffix=".vhd"):
    """An image in a file SR that no one has told the daemon of; its uuid."""
    if suffix == ".vhd":
        return vhd.Maker(2 * MIB).save(sr.location).uuid
    vdi = new_uuid()
    with open(os.path.join(sr.location, vdi + suffix), "wb") as image:
        image.truncate(2 * MIB)
    return vdi


def kill_under_load(test, lab, workers, seconds, calls=0):
    """Runs all workers, each on a thread of its own, and kills the daemon after so long, and after so many acknowledged
    calls of all of them."""
    running, failures, before = threading.Event(), [], sum(worker.acknowledged for worker in workers)
    running.set()
    threads = [threading.Thread(target=worker.run, args=(running,)) for worker in workers]
    hook, threading.excepthook = threading.excepthook, lambda args: failures.append(args.exc_value)
    try:
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        while sum(worker.acknowledged for worker in workers) - before < calls and not failures:
            time.sleep(0.002)
        lab.kill9()
        running.clear()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = hook
    test.assertEqual(failures, [])
