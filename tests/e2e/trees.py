# SPDX-License-Identifier: LGPL-2.1-or-later
"""Trees of disks in a file SR: what each disk must hold, random steps that change it, and the judges who read it: 7zz,
smapi-image-read and vhd.py."""
import os
import random
import shutil
import subprocess
import tempfile

import vhd
from lab import MEMORY, MIB, program

UNIT = 2 * MIB  # of sizes


def write_pieces(sr, vdi, pieces):
    """Writes (offset, bytes) into a disk nobody has active, as a data path would."""
    path = vhd.find(sr.location, vdi)
    if path.endswith(".raw"):
        with open(path, "r+b") as image:
            for offset, data in pieces:
                image.seek(offset)
                image.write(data)
        return
    text = b"".join(b"%d %d\n%s" % (offset, len(data), data) for offset, data in pieces)
    run = subprocess.run([program("vhd_write"), sr.location, vdi], input=text, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()


def image_read(directory, vdi, path):
    """What smapi-image-read writes into a file."""
    with open(path, "wb") as out:
        run = subprocess.run([program("smapi-image-read"), directory, vdi], stdout=out, stderr=subprocess.PIPE,
                             check=False)
    assert run.returncode == 0, run.stderr.decode()


def holds(path, data):
    with open(path, "rb") as file:
        return file.read() == data


class Disk:
    """What a disk must hold."""

    def __init__(self, data, read_only=False):
        self.data, self.read_only = data, read_only

    @property
    def size(self):
        return len(self.data)

    def grown(self, size):
        return Disk(self.data + bytes(size - self.size), self.read_only)

    def write(self, offset, data):
        self.data = self.data[:offset] + data + self.data[offset + len(data):]


def random_pieces(chance, size, count=3):
    """Up to so many stretches of whole sectors, mostly short."""
    pieces = []
    for _ in range(chance.randint(1, count)):
        sectors = chance.choice((1, 3, 8, 9, 100))
        offset = chance.randrange(0, size // 512) * 512
        pieces.append((offset, chance.randbytes(min(sectors * 512, size - offset))))
    return pieces


class Judges:
    """Read all disks of an SR; those of which no file has changed since they were read are not read again. 7zz takes the
    hidden mark for damage: it sees the directory through links, and bases as copies that show themselves. It wants no
    child larger than its parent: those are vhd.py's alone."""

    def __init__(self, test, sr):
        self.test, self.sr = test, sr
        self.mirror = tempfile.mkdtemp(prefix="smapi-mirror-", dir=MEMORY)
        self.out = os.path.join(self.mirror, "out")
        os.mkdir(self.out)
        self.seen, self.loaded, self.read = {}, {}, {}
        test.addCleanup(shutil.rmtree, self.mirror)

    def _identity(self, name):
        status = os.stat(os.path.join(self.sr.location, name))
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def _load(self, path):
        name = os.path.basename(path)
        identity, image = self.loaded.get(name, (None, None))
        if identity != self._identity(name):
            self.loaded[name] = self._identity(name), vhd.Image(path)
        return self.loaded[name][1]

    def _reflect(self, images):
        now = {image + ".vhd": self._identity(image + ".vhd") for image in images}
        for name in list(self.seen):
            if self.seen[name] != now.get(name):
                os.unlink(os.path.join(self.mirror, name))
                del self.seen[name]
        for name in now.keys() - self.seen.keys():
            source, copy = (os.path.join(place, name) for place in (self.sr.location, self.mirror))
            if images[name[:-4]].hidden:
                shutil.copyfile(source, copy)
                vhd.marked(copy, False)
            else:
                os.symlink(source, copy)
        self.seen = now

    def _unread(self, images, disks):
        """Those whose chain or whose bytes are not what they were."""
        now = {}
        for vdi, disk in disks.items():
            files = tuple(self._identity(os.path.basename(vhd.find(self.sr.location, node)))
                          for node in vhd.lineage(images, vdi))
            now[vdi] = files, disk.data
        changed = {vdi: disk for vdi, disk in disks.items()
                   if vdi not in self.read or self.read[vdi][0] != now[vdi][0] or self.read[vdi][1] is not now[vdi][1]}
        self.read = now
        return changed

    def _by_7zz(self, disks):
        """One 7zz writes all of them."""
        archives = (f"-ai!{vdi}.vhd" for vdi in disks)
        run = subprocess.run(["7zz", "x", "-y", "-o" + self.out, "-an", *archives], cwd=self.mirror,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        self.test.assertEqual(run.returncode, 0, run.stdout.decode())
        for vdi, disk in disks.items():
            path = os.path.join(self.out, vdi + ".img")
            self.test.assertTrue(holds(path, disk.data), f"7zz reads {vdi} otherwise")
            os.unlink(path)

    def sound(self):
        """All images keep the rules; {uuid: vhd.Image} of the VHDs."""
        try:
            images = vhd.judge(self.sr.location, self._load)
        except vhd.Unsound as unsound:
            raise AssertionError(f"{unsound}\n{self._tree()}") from None
        parents = {image.parent for image in images.values()}
        for vdi, image in images.items():
            self.test.assertTrue(not image.hidden or vdi in parents, f"base {vdi} has no child")
        return images

    def _tree(self):
        return "\n".join(sorted(os.listdir(self.sr.location)))

    def _plain(self, images, vdi):
        """Whether 7zz can read it: VHDs alone, none larger than its parent."""
        line = vhd.lineage(images, vdi)
        return line[-1] in images and len({images[node].size for node in line}) == 1

    def agrees(self, vdi, disk):
        """Whether vhd.py reads it so."""
        return vhd.read(self.sr.location, vdi) == disk.data

    def judge(self, disks):
        """All of them read as they must, by everybody; the images."""
        images = self.sound()
        self._reflect(images)
        disks = self._unread(images, disks)
        plain = {vdi: disk for vdi, disk in disks.items() if self._plain(images, vdi)}
        if plain:
            self._by_7zz(plain)
        for vdi, disk in disks.items():
            read = os.path.join(self.out, vdi)
            image_read(self.sr.location, vdi, read)
            self.test.assertTrue(holds(read, disk.data), f"smapid reads {vdi} otherwise")
            os.unlink(read)
            if vdi not in plain:
                self.test.assertTrue(self.agrees(vdi, disk), f"vhd.py reads {vdi} otherwise")
        return images


class Trees:
    """A file SR full of disks, and random steps by several callers in turn. disks: {uuid: Disk}."""

    def __init__(self, test, sr, callers, seed):
        self.test, self.sr = test, sr
        self.callers = callers
        self.chance = random.Random(seed)
        self.disks = {}
        self.judges = Judges(test, sr)

    def caller(self):
        return self.chance.choice(self.callers)

    def create(self, units=None):
        size = (units or self.chance.choice((1, 1, 1, 2, 3))) * UNIT
        keys = {"vdi_sm_config": {"type": "raw"}} if self.chance.random() < 0.1 else {}
        asked = size - self.chance.choice((0, 0, 512, 1000))  # rounded up
        vdi = self.caller().disk(asked if not keys else size, "label", **keys)
        self.disks[vdi] = Disk(bytes(size))
        return vdi

    def is_vhd(self, vdi):
        return vhd.find(self.sr.location, vdi).endswith(".vhd")

    def fork(self, vdi, method):
        made = self.caller()(method, vdi_uuid=vdi, driver_params={})["uuid"]
        self.test.assertNotIn(made, self.disks)
        self.disks[made] = Disk(self.disks[vdi].data, method == "vdi_snapshot")
        return made

    def write(self, vdi):
        pieces = random_pieces(self.chance, self.disks[vdi].size)
        write_pieces(self.sr, vdi, pieces)
        for offset, data in pieces:
            self.disks[vdi].write(offset, data)

    def resize(self, vdi):
        size = self.disks[vdi].size + self.chance.choice((0, 1, 1, 2)) * UNIT
        self.caller()("vdi_resize", str(size), vdi_uuid=vdi)
        self.disks[vdi] = self.disks[vdi].grown(size)

    def delete(self, vdi):
        self.caller()("vdi_delete", vdi_uuid=vdi)
        del self.disks[vdi]

    def writable(self):
        return [vdi for vdi, disk in self.disks.items() if not disk.read_only]

    def pick(self, among=None):
        return self.chance.choice(sorted(among or self.disks))

    def listed(self):
        """Rows, totals and files tell of the same disks, before a scan and after it."""
        images, rows, test = self.judges.judge(self.disks), self.sr.contents(), self.test
        live = {vdi: row for vdi, row in rows.items() if not row["hidden"]}
        test.assertEqual(set(live), set(self.disks))
        test.assertEqual(set(rows), self.sr.images())
        for vdi, disk in self.disks.items():
            row = live[vdi]
            test.assertEqual((int(row["size"]), row["read_only"], row["state"]), (disk.size, disk.read_only, "live"), vdi)
        self.tree_rows(images, rows)
        totals = self.sr.page(limit=1)["sr"]
        test.assertEqual(int(totals["virtual_allocation"]), sum(disk.size for disk in self.disks.values()))
        self.scanned(rows)
        return images

    def tree_rows(self, images, rows):
        """Parents, depths and marks as vhd.py finds them."""
        children = {vdi: sum(image.parent == vdi for image in images.values()) for vdi in rows}
        for vdi, row in rows.items():
            hidden, parent = vdi in images and images[vdi].hidden, images[vdi].parent if vdi in images else None
            self.test.assertEqual(
                (row["hidden"], row["parent"] or None, int(row["depth"]), row["coalescable"]),
                (hidden, parent, len(vhd.lineage(images, vdi)), hidden and children[vdi] == 1), vdi)
            self.test.assertTrue(row["read_only"] or not hidden, f"base {vdi} may be written")

    def scanned(self, before):
        """A scan learns how much disks have taken since, and nothing else."""
        self.caller()("sr_scan")
        after = self.sr.contents()
        for vdi, row in after.items():
            allocated = os.stat(vhd.find(self.sr.location, vdi)).st_blocks * 512
            self.test.assertEqual({**before.pop(vdi), "utilisation": str(allocated)}, row)
        self.test.assertEqual(before, {})
