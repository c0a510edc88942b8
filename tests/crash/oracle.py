# SPDX-License-Identifier: LGPL-2.1-or-later
"""What must be true after a crash, and a recipe for each changing method: how to prepare for it, do it, and tell from
outside whether it was done."""
import os

from lab import MIB, Fault, new_uuid


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
    have heard of."""
    if sr.kind != "file" or not os.path.isdir(sr.location):
        return
    test.assertEqual(sr.litter(), set())
    rows = listed(sr)
    if rows is not None and "sr.smapi" in sr.names():
        test.assertEqual(set(rows) - sr.images(), set(), "disks without an image")
        test.assertEqual(sr.images() - set(rows) - strangers, set(), "images that are no disks")


def picture(sr):
    """All that can be seen of an SR: names, sizes, inodes and times on the medium, and the rows."""
    files = None
    if sr.kind == "file" and os.path.isdir(sr.location):
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
    repeated = ()   # faults a repeat without operation id may meet when it was done
    strangers = frozenset()

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
        if sr.kind == "file":
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
        if sr.kind == "file":
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


class SrDetach(Recipe):
    def act(self, sr, op=None):
        sr("sr_detach", op=op)

    def done(self, sr):
        return not attached(sr)


class SrScan(Recipe):
    def prepare(self, sr):
        super().prepare(sr)
        self.expected = {self.vdi}
        if sr.kind == "file":
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


class VdiUpdate(Recipe):
    def act(self, sr, op=None):
        sr("vdi_update", vdi_uuid=self.vdi, name_label="new", op=op)

    def done(self, sr):
        label = sr.contents()[self.vdi]["label"]
        self.test.assertIn(label, ("label", "new"))
        return label == "new"


class VdiIntroduce(Recipe):
    def prepare(self, sr):
        super().prepare(sr)
        self.made = new_image(sr) if sr.kind == "file" else new_uuid()
        self.strangers = {self.made}

    def act(self, sr, op=None):
        sr("vdi_introduce", vdi_location=self.made, new_uuid=self.made, vdi_sm_config={}, op=op)

    def final(self, sr):
        self.test.assertIn(self.made, sr.contents())


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


class VdiSnapshot(Recipe):
    undone = True
    method = "vdi_snapshot"

    def act(self, sr, op=None):
        sr(self.method, vdi_uuid=self.vdi, driver_params={}, op=op)

    def done(self, sr):
        rows = {vdi: row for vdi, row in sr.contents().items() if not row.get("hidden")}
        self.test.assertIn(self.vdi, rows)
        return len(rows) > 1


class VdiClone(VdiSnapshot):
    method = "vdi_clone"


class VdiResize(Recipe):
    def act(self, sr, op=None):
        sr("vdi_resize", str(8 * MIB), vdi_uuid=self.vdi, op=op)

    def done(self, sr):
        size = int(sr.contents()[self.vdi]["size"])
        self.test.assertIn(size, (4 * MIB, 8 * MIB))
        return size == 8 * MIB


RECIPES = {"sr_create": SrCreate, "sr_delete": SrDelete, "sr_attach": SrAttach, "sr_detach": SrDetach, "sr_scan": SrScan,
           "vdi_create": VdiCreate, "vdi_update": VdiUpdate, "vdi_introduce": VdiIntroduce, "vdi_delete": VdiDelete,
           "vdi_attach": VdiAttach, "vdi_detach": VdiDetach, "vdi_activate": VdiActivate,
           "vdi_deactivate": VdiDeactivate, "vdi_snapshot": VdiSnapshot, "vdi_clone": VdiClone, "vdi_resize": VdiResize}


def new_image(sr):
    """A raw image in a file SR that no one has told the daemon of; its uuid."""
    vdi = new_uuid()
    with open(os.path.join(sr.location, vdi + ".raw"), "wb") as image:
        image.truncate(2 * MIB)
    return vdi
