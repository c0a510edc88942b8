# SPDX-License-Identifier: LGPL-2.1-or-later
"""Disks of every type in a guest, as people without smapid see them: written as a data path would, read by plain programs,
and compared with the rows. of(kind) knows a type's."""
import contextlib
import glob
import os
import re
import struct
import subprocess
import tempfile

import kit
import places
import vhd
from kit import MIB, sh
from lab import program, type_row


def plainly(path, size):
    """A copy as 7zz likes it: it takes the hidden mark for damage, and wants no more entries than the disk has blocks."""
    vhd.marked(path, 0)
    blocks = -(-size // vhd.BLOCK)
    with open(path, "r+b") as image:
        image.seek(512)
        head = bytearray(image.read(1024))
        struct.pack_into(">I", head, 28, blocks)
        image.seek(512)
        image.write(vhd.sealed(bytes(head), 36))


def write_at(path, pieces):
    """All of it, down to the device."""
    fd = os.open(path, os.O_WRONLY)
    try:
        for offset, data in pieces:
            assert os.pwrite(fd, data, offset) == len(data)
        os.fsync(fd)
    finally:
        os.close(fd)


class Disks:
    """Of a type. FORMATS: what vdi_create may be asked for; FORKED: those of which others can be made. Image reads a VHD of
    the type's."""

    FORMATS = ("vhd", "raw")
    FORKED = ("vhd",)
    SIZE = 4 * MIB
    Image = vhd.Image

    def __init__(self, test, kind):
        self.test, self.kind = test, kind
        self.offers = type_row(kind)["offers"]

    def create(self, sr, vdi, form, size=None):
        return sr.disk(size or self.SIZE, vdi_uuid=vdi, vdi_sm_config={"type": form})

    def live(self, rows):
        """Those that somebody asked for."""
        return {vdi: row for vdi, row in rows.items() if not row["hidden"]}

    def read_only(self, row):
        return row["read_only"]

    def write(self, sr, vdi, pieces):
        """(offset, bytes) each, whole sectors, into a disk that is active."""
        raw = self.raw_path(sr, vdi)
        if os.path.exists(raw):
            write_at(raw, pieces)
            return
        text = b"".join(b"%d %d\n%s" % (offset, len(data), data) for offset, data in pieces)
        run = subprocess.run([program("vhd_write"), os.path.dirname(raw), vdi], input=text, capture_output=True, check=False)
        assert run.returncode == 0, run.stderr.decode()

    def read(self, sr, vdi):
        """The disk's bytes, as vhd.py has them, and as 7zz where all of the chain are VHDs of one size."""
        with self.copied(sr, vdi) as (directory, names):
            disk, sizes = None, set()
            for name in reversed(names):
                path = os.path.join(directory, name)
                if self.is_raw(path):
                    with open(path, "rb") as raw:
                        disk = raw.read()
                    sizes.add(None)
                else:
                    image = self.Image(path)
                    disk = bytes(image.laid_on(disk))
                    sizes.add(image.size)
            if sizes == {len(disk)}:
                self.by_7zz(directory, names, disk)
        return disk

    def by_7zz(self, directory, names, disk):
        for name in names:
            plainly(os.path.join(directory, name), len(disk))
        run = subprocess.run(["7zz", "x", "-so", "-tVHD", names[0]], cwd=directory, capture_output=True, check=False,
                             timeout=120)
        self.test.assertEqual(run.returncode, 0, run.stderr)
        self.test.assertEqual(run.stdout, disk, "7zz and vhd.py read different disks")

    def consistent(self, sr):
        """After a scan, no disk without an image, no image without a disk, nothing half done; the rows."""
        sr("sr_scan")
        rows = sr.contents()
        self.medium(sr, rows)
        self.test.assertEqual({row["state"] for row in rows.values()} - {"live"}, set(), rows)
        return rows

    def medium(self, sr, rows):
        raise NotImplementedError

    def gone(self, sr):
        """Of an SR that was deleted nothing is left on the medium."""
        raise NotImplementedError


class FileDisks(Disks):
    def directory(self, sr):
        """Where plain programs find the images: for nfs on the server."""
        if self.kind == "nfs":
            return f"{places.server('nfs', None).root}{sr.config['serverpath']}/{sr.uuid}"
        return sr.location

    def raw_path(self, sr, vdi):
        return os.path.join(sr.location, vdi + ".raw")

    @staticmethod
    def is_raw(path):
        return path.endswith(".raw")

    @contextlib.contextmanager
    def copied(self, sr, vdi):
        """A directory with copies of the disk's images; their names, its own first."""
        with tempfile.TemporaryDirectory() as directory:
            names = []
            while vdi:
                path = vhd.find(self.directory(sr), vdi)
                names.append(os.path.basename(path))
                sh("cp", "--sparse=always", path, directory)
                vdi = None if self.is_raw(path) else vhd.Image(path).parent
            yield directory, names

    def carry(self, sr, vdi, other, new):
        """The image, copied into another SR under another name by plain programs."""
        path = vhd.find(self.directory(sr), vdi)
        sh("cp", "--sparse=always", path, os.path.join(self.directory(other), new + os.path.splitext(path)[1]))

    def medium(self, sr, rows):
        names = set(os.listdir(self.directory(sr))) - {"sr.smapi", "lost+found"}
        images = {("%s.raw" if row["format"] == "raw" else "%s.vhd") % vdi for vdi, row in rows.items()}
        labels = {f"{vdi}.smapi" for vdi in rows}
        self.test.assertEqual(names - labels, images)
        found = vhd.judge(self.directory(sr))
        self.test.assertEqual({vdi: image.parent for vdi, image in found.items()},
                              {vdi: row["parent"] or None for vdi, row in rows.items() if row["format"] != "raw"})

    def gone(self, sr):
        if self.kind == "nfs":
            self.test.assertEqual(os.listdir(os.path.dirname(self.directory(sr))), [])
        elif "device" in sr.config:
            for device in sr.config["device"].split(","):
                self.test.assertEqual(sh("wipefs", "-n", device), "")


class Volume(vhd.Image):
    """A VHD in a volume, copied out: its parent is named as a volume is."""

    def _read_parent(self, image, head):
        self.parent_id, names, found = head[40:56], set(), []
        for i in range(8):
            code, space, length, _, offset = struct.unpack_from(">4sIIIQ", head, 576 + 24 * i)
            if code != bytes(4):
                image.seek(offset)
                text = image.read(length).decode("utf-8" if code == b"MacX" else "utf-16-le")
                names.add(re.fullmatch(r"(?:file://\./|\.\\)((?:LV|VHD)-[0-9a-f-]{36})", text).group(1))
                found.append((offset, space))
        vhd.need(len(names) == 1 and len(found) == 3, f"parents {names}, {len(found)} locators")
        self.parent_name = names.pop()
        return found


def group(sr):
    return "VG_XenStorage-" + sr.uuid


def volumes(sr):
    """name: (bytes, attributes, tags), by plain lvm2."""
    found = {}
    for line in sh("lvs", "--noheadings", "--units", "b", "--nosuffix", "--separator", ";", "-o",
                   "lv_name,lv_size,lv_attr,lv_tags", group(sr)).splitlines():
        if ";" in line:
            name, size, attributes, tags = line.strip().split(";")
            found[name] = (int(size), attributes, set(tags.split(",")) - {""})
    return found


def segments(sr):
    """name: [(device, its bytes from, how many)], in the order of a volume's bytes, by plain lvm2."""
    found = {}
    for line in sh("pvs", "--segments", "--noheadings", "--units", "b", "--nosuffix", "--separator", ";", "-O", "seg_start_pe",
                   "-S", f"vg_name={group(sr)} && lv_name!=''", "-o",
                   "lv_name,pv_name,pe_start,vg_extent_size,pvseg_start,pvseg_size").splitlines():
        name, device, *numbers = line.strip().split(";")
        start, extent, at, count = map(int, numbers)
        found.setdefault(name, []).append((device, start + at * extent, count * extent))
    return found


def active(sr):
    """Volumes of the SR that the kernel has now."""
    mapped = group(sr).replace("-", "--") + "-"
    names = (kit.read(path) for path in glob.glob("/sys/block/dm-*/dm/name"))
    return {name[len(mapped):].replace("--", "-") for name in names if name.startswith(mapped)}


class LvmDisks(Disks):
    FORKED = ("vhd", "raw")
    Image = Volume

    def raw_path(self, sr, vdi):
        return f"/dev/{group(sr)}/LV-{vdi}"

    @staticmethod
    def is_raw(path):
        return os.path.basename(path).startswith("LV-")

    @staticmethod
    def chain(sr, vdi):
        """The volumes of a disk, itself first, by the rows."""
        rows, names = sr.contents(), []
        while vdi:
            names.append(("LV-" if rows[vdi]["format"] == "raw" else "VHD-") + vdi)
            vdi = rows[vdi]["parent"]
        return names

    @contextlib.contextmanager
    def copied(self, sr, vdi):
        """A directory with copies of the disk's volumes, by plain lvm2 and dd from their devices; their names."""
        names, found = self.chain(sr, vdi), segments(sr)
        with tempfile.TemporaryDirectory() as directory:
            for name in names:
                for device, at, length in found[name]:
                    sh("dd", f"if={device}", f"of={directory}/{name}", "bs=1M", "iflag=direct,skip_bytes,count_bytes",
                       f"skip={at}", f"count={length}", "oflag=append", "conv=notrunc")
            yield directory, names

    def carry(self, sr, vdi, other, new):
        """The volume, copied into another SR under another name by plain programs."""
        (name,), size = self.chain(sr, vdi), volumes(sr)[self.chain(sr, vdi)[0]][0]
        copy = name.split("-")[0] + "-" + new
        sh("lvcreate", "-y", "-Wn", "-L", f"{size}b", "-n", copy, group(other))
        with self.copied(sr, vdi) as (directory, _):
            sh("dd", f"if={directory}/{name}", f"of=/dev/{group(other)}/{copy}", "bs=1M", "conv=fsync")
        sh("lvchange", "-an", f"{group(other)}/{copy}")

    def medium(self, sr, rows):
        names = set(volumes(sr)) - {"MGT"}
        self.test.assertEqual(names, {("LV-" if row["format"] == "raw" else "VHD-") + vdi for vdi, row in rows.items()})
        self.test.assertEqual(active(sr), set())

    def gone(self, sr):
        self.test.assertNotIn(group(sr), sh("vgs"))
        for device in sr.config["device"].split(",") if "device" in sr.config else ():
            self.test.assertEqual(sh("blkid", "-p", device, check=False), "")


class LunDisks(Disks):
    """Whose disks the target makes: a create takes one, a delete gives it back with what it holds."""

    FORMATS = ("lun",)

    def create(self, sr, vdi, form, size=None):
        return sr.disk(size or self.SIZE)

    def live(self, rows):
        return {vdi: row for vdi, row in rows.items() if row["managed"]}

    @staticmethod
    def device(row):
        """By what the kernel knows of its LUNs: where calls go on beside this one, udev's names come late."""
        name = "naa." + row["sm_config"]["SCSIid"][1:]
        found = [path.split("/")[3] for path in glob.glob("/sys/block/sd*/device/wwid") if kit.read(path) == name]
        assert len(found) == 1, (name, found)
        return "/dev/" + found[0]

    def write(self, sr, vdi, pieces):
        write_at(self.device(sr.contents()[vdi]), pieces)

    def read(self, sr, vdi):
        """As the host has it, past its cache, and as the target keeps it."""
        row = sr.contents()[vdi]
        device = self.device(row)
        sh("blockdev", "--flushbufs", device)
        with open(device, "rb") as disk:
            data = disk.read()
        target = places._servers[sr.config["targetIQN"]]
        with open(target.files[int(row["sm_config"]["LUNid"])], "rb") as file:
            self.test.assertEqual(file.read(), data, "the target keeps other bytes than the host reads")
        return data

    def medium(self, sr, rows):
        self.test.assertEqual(sorted(int(row["sm_config"]["LUNid"]) for row in rows.values()),
                              sorted(places._servers[sr.config["targetIQN"]].files))

    def gone(self, sr):
        self.test.assertEqual(sorted(glob.glob(f"/dev/smapid/{sr.uuid}/*")), [])


class IsoDisks(Disks):
    """Discs that are there, and images made beside them."""

    FORMATS = ("img",)

    def create(self, sr, vdi, form, size=None):
        return sr.disk(size or self.SIZE, vdi_uuid=vdi)

    def live(self, rows):
        return rows

    @staticmethod
    def path(sr, vdi):
        return os.path.join(sr.config["location"], sr.contents()[vdi]["location"])

    def write(self, sr, vdi, pieces):
        write_at(self.path(sr, vdi), pieces)

    def read(self, sr, vdi):
        with open(self.path(sr, vdi), "rb") as image:
            return image.read()

    def medium(self, sr, rows):
        names = set(os.listdir(sr.config["location"])) - {f"{vdi}.smapi" for vdi in rows}
        self.test.assertEqual(names, {row["location"] for row in rows.values()})

    def gone(self, sr):
        self.test.assertEqual(set(os.listdir(sr.config["location"])), {"first.iso", "second.iso"})


LAYOUTS = {"file": FileDisks, "lvm": LvmDisks, "lun": LunDisks, "iso": IsoDisks}


def of(test, kind):
    return LAYOUTS[type_row(kind)["layout"]](test, kind)
