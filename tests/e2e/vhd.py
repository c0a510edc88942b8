# SPDX-License-Identifier: LGPL-2.1-or-later
"""VHD in Python, from the published format and what Xen's tools add to it, sharing no code with smapid: a judge of its
images, and a maker of images as other managers leave them.

Offsets of the footer: 8 features, 12 version, 16 header's offset, 24 time, 28 creator, 40 original size, 48 size,
56 geometry, 60 type, 64 checksum, 68 uuid, 84 saved, 85 hidden. Of the header: 8 none, 16 BAT's offset, 24 version,
28 entries, 32 block size, 36 checksum, 40 parent's uuid, 56 parent's time, 64 parent's name, 576 eight locators.
"""
import os
import re
import struct
import time
import uuid as uuids

SECTOR, MIB = 512, 1 << 20
BLOCK = 2 * MIB
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
UNUSED, NOWHERE = 0xFFFFFFFF, (1 << 64) - 1
NO_ENTRIES = b"\xff" * 4096
HIDDEN_AT = 85
EPOCH = 946684800  # 2000-01-01
LARGEST, LONGEST_CHAIN = 2040 << 30, 30
SUFFIXES = (".vhd", ".raw")


class Unsound(Exception):
    """What is wrong with an image."""


def need(holds, what):
    if not holds:
        raise Unsound(what)


def checksum(data, at):
    """Of a structure whose own checksum stands at that offset (None: it has none inside)."""
    total = sum(data) if at is None else sum(data) - sum(data[at:at + 4])
    return ~total & 0xFFFFFFFF


def sealed(data, at):
    data = bytearray(data)
    struct.pack_into(">I", data, at, checksum(data, at))
    return bytes(data)


def padded(length, unit=SECTOR):
    return -(-length // unit) * unit


def geometry(size):
    """Cylinders, heads, sectors as the format's appendix computes them."""
    sectors = min(size // SECTOR, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        per_track, heads = 255, 16
        rest = sectors // per_track
    else:
        per_track = 17
        rest = sectors // per_track
        heads = max((rest + 1023) // 1024, 4)
        if rest >= heads * 1024 or heads > 16:
            per_track, heads = 31, 16
            rest = sectors // per_track
        if rest >= heads * 1024:
            per_track, heads = 63, 16
            rest = sectors // per_track
    return rest // heads, heads, per_track


# ---- making


def footer(size, kind=DYNAMIC, uuid=None, hidden=False, creator=b"tap\0", version=0x10003):
    cylinders, heads, sectors = geometry(size)
    data = bytearray(SECTOR)
    struct.pack_into(">8sIIQI4sIIQQHBBI", data, 0, b"conectix", 2, 0x10000, NOWHERE if kind == FIXED else SECTOR,
                     int(time.time()) - EPOCH, creator, version, 0, size, size, cylinders, heads, sectors, kind)
    data[68:84] = uuids.UUID(uuid).bytes if uuid else os.urandom(16)
    data[HIDDEN_AT] = hidden
    return sealed(data, 64)


def locators(name):
    """(code, text) of each, for the parent's file name: all relative."""
    wide = (".\\" + name).encode("utf-16-le")
    return ((b"MacX", f"file://./{name}".encode()), (b"W2ku", wide), (b"W2ru", wide))


def header(entries, table=1536, parent=None):
    """parent: (file name, its uuid's 16 bytes, its time, [(code, text, offset)])."""
    data = bytearray(1024)
    struct.pack_into(">8sQQIII", data, 0, b"cxsparse", NOWHERE, table, 0x10000, entries, BLOCK)
    if parent:
        name, uuid, when, found = parent
        data[40:56] = uuid
        struct.pack_into(">I", data, 56, when)
        wide = name.encode("utf-16-be")
        data[64:64 + len(wide)] = wide
        for i, (code, text, offset) in enumerate(found):
            struct.pack_into(">4sIIIQ", data, 576 + 24 * i, code, SECTOR, len(text), 0, offset)
    return sealed(data, 36)


class Maker:
    """An image as Xen's tools make it. write() takes whole sectors; save() puts it into a directory."""

    def __init__(self, size, uuid=None, parent=None, hidden=False, batmap=True):
        """parent: a Maker that was saved, the name of a raw image, or None."""
        self.size, self.uuid, self.parent, self.hidden = size, uuid or str(uuids.uuid4()), parent, hidden
        self.batmap = batmap
        self.blocks = {}  # number: (bitmap, data)

    @property
    def name(self):
        return self.uuid + ".vhd"

    def write(self, offset, data):
        for at in range(0, len(data), SECTOR):
            number, within = divmod(offset + at, BLOCK)
            bitmap, content = self.blocks.setdefault(number, (bytearray(SECTOR), bytearray(BLOCK)))
            sector = within // SECTOR
            bitmap[sector // 8] |= 0x80 >> sector % 8
            content[within:within + SECTOR] = data[at:at + SECTOR]
        return self

    def _parent(self, directory, at):
        """What the header says of the parent, and the locators' sectors."""
        if not self.parent:
            return None, b""
        name = self.parent if isinstance(self.parent, str) else self.parent.name
        uuid = bytes(16) if isinstance(self.parent, str) else uuids.UUID(self.parent.uuid).bytes
        found = [(code, text, at + SECTOR * i) for i, (code, text) in enumerate(locators(name))]
        when = int(os.stat(os.path.join(directory, name)).st_mtime) - EPOCH
        return (name, uuid, when, found), b"".join(text.ljust(SECTOR, b"\0") for _, text, _ in found)

    def _batmap(self, entries, at):
        covered = bytearray(padded(-(-entries // 8)))
        for number, (bitmap, _) in self.blocks.items():
            if bitmap == b"\xff" * SECTOR:
                covered[number // 8] |= 0x80 >> number % 8
        head = bytearray(SECTOR)
        struct.pack_into(">8sQIII", head, 0, b"tdbatmap", at + SECTOR, len(covered) // SECTOR, 0x10002,
                         checksum(covered, None))
        return bytes(head) + bytes(covered)

    def bytes(self, directory="."):
        entries = -(-self.size // BLOCK)
        table = bytearray(b"\xff" * (4 * entries)).ljust(padded(4 * entries), b"\0")
        batmap = self._batmap(entries, 1536 + len(table)) if self.batmap else b""
        parent, texts = self._parent(directory, 1536 + len(table) + len(batmap))
        at, rest = 1536 + len(table) + len(batmap) + len(texts), []
        for number in sorted(self.blocks):
            place = padded(at + SECTOR, 4096) - SECTOR  # the data begins on a page
            struct.pack_into(">I", table, 4 * number, place // SECTOR)
            rest.append(bytes(place - at) + bytes(self.blocks[number][0]) + bytes(self.blocks[number][1]))
            at = place + SECTOR + BLOCK
        end = footer(self.size, DIFFERENCING if self.parent else DYNAMIC, self.uuid, self.hidden,
                     version=0x10003 if self.batmap else 0x10000)  # the first of its versions knew no batmap
        return b"".join([end, header(entries, 1536, parent), table, batmap, texts, *rest, end])

    def save(self, directory):
        with open(os.path.join(directory, self.name), "wb") as out:
            out.write(self.bytes(directory))
        return self


def marked(path, hidden):
    """Sets or clears the hidden byte in place, in every footer the image has."""
    with open(path, "r+b") as image:
        length = image.seek(0, os.SEEK_END)
        for at in {0, length - SECTOR}:
            image.seek(at)
            data = bytearray(image.read(SECTOR))
            if data[:8] == b"conectix":
                data[HIDDEN_AT] = hidden
                image.seek(at)
                image.write(sealed(data, 64))


# ---- judging


class Image:
    """One image, read and judged: size, hidden, kind, parent (the uuid its locators lead to, or None)."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as image:
            self.length = image.seek(0, os.SEEK_END)
            image.seek(0)
            self._read_all(image)

    def _read_all(self, image):
        image.seek(self.length - SECTOR)
        end = image.read(SECTOR)
        need(end[:8] == b"conectix", "no footer at the end")
        need(struct.unpack_from(">I", end, 64)[0] == checksum(end, 64), "checksum of the footer")
        self.size, = struct.unpack_from(">Q", end, 48)
        self.kind, = struct.unpack_from(">I", end, 60)
        self.uuid = str(uuids.UUID(bytes=end[68:84]))
        self.hidden, self.creator = end[HIDDEN_AT] != 0, end[28:32]
        self.geometry = struct.unpack_from(">HBB", end, 56)
        self.parent, self.parent_id, self.table = None, None, {}
        if self.kind != FIXED:
            image.seek(0)
            need(image.read(SECTOR) == end, "the footer and its copy differ")
            self._read_header(image, struct.unpack_from(">Q", end, 16)[0])

    def _read_header(self, image, at):
        image.seek(at)
        head = image.read(1024)
        need(head[:8] == b"cxsparse", "no header")
        need(struct.unpack_from(">I", head, 36)[0] == checksum(head, 36), "checksum of the header")
        table, _, self.entries, self.block = struct.unpack_from(">QIII", head, 16)
        need(self.block == BLOCK and self.entries * BLOCK >= self.size, "fewer entries than blocks")
        metadata = [(0, SECTOR), (at, 1024), (table, padded(4 * self.entries))]
        if self.kind == DIFFERENCING:
            metadata += self._read_parent(image, head)
        image.seek(table)
        self._judge_table(image.read(4 * self.entries), metadata)

    def _read_parent(self, image, head):
        self.parent_id = head[40:56]
        names, places = {head[64:576].decode("utf-16-be").split("\0")[0]}, []
        for i in range(8):
            code, space, length, _, offset = struct.unpack_from(">4sIIIQ", head, 576 + 24 * i)
            if code == bytes(4):
                continue
            image.seek(offset)
            text = image.read(length)
            text = text.decode("utf-8" if code == b"MacX" else "utf-16-le")
            relative = text.startswith("file://./" if code == b"MacX" else ".\\")
            need(relative and text.count("/") <= 3, f"a locator that is not relative: {text}")
            names.add(text.removeprefix("file://./").removeprefix(".\\"))
            places.append((offset, space))
        need(len(names) == 1 and len(places) == 3, f"parents {names}, {len(places)} locators")
        name = names.pop()
        need(name.endswith(SUFFIXES), f"a parent named {name}")
        self.parent_name, self.parent = name, name[:-4]
        return places

    def _judge_table(self, raw, taken):
        """Every block within the file, on none of the others and none of the metadata."""
        for at in range(0, len(raw), len(NO_ENTRIES)):  # a volume has a million entries, nearly all of them unused
            part = raw[at:at + len(NO_ENTRIES)]
            for number, sector in enumerate(struct.unpack(f">{len(part) // 4}I", part)) if part != NO_ENTRIES else ():
                if sector != UNUSED:
                    self.table[at // 4 + number] = sector * SECTOR
                    taken.append((sector * SECTOR, SECTOR + BLOCK))
        end = 0
        for at, length in sorted(taken):
            need(at >= end, f"two things at {at}")
            end = at + length
        need(end <= self.length - SECTOR, "a block over the footer")

    def laid_on(self, below):
        """The disk's bytes, given those of its parent (or None)."""
        disk = bytearray(self.size)
        if below is not None:
            disk[:min(len(below), self.size)] = below[:self.size]
        with open(self.path, "rb") as image:
            if self.kind == FIXED:
                return bytearray(image.read(self.size))
            for number, at in self.table.items():
                image.seek(at)
                self._lay_block(disk, number * BLOCK, image.read(SECTOR), image.read(BLOCK))
        return disk

    def _lay_block(self, disk, base, bitmap, data):
        if bitmap == b"\xff" * SECTOR:
            length = min(BLOCK, self.size - base)
            disk[base:base + length] = data[:length]
            return
        for byte, bits in enumerate(bitmap):
            for bit in range(8) if bits else ():
                at = (byte * 8 + bit) * SECTOR
                if bits & (0x80 >> bit) and base + at < self.size:
                    disk[base + at:base + at + SECTOR] = data[at:at + SECTOR]


def find(directory, uuid):
    """The path of a disk's one image."""
    there = [path for path in (os.path.join(directory, uuid + suffix) for suffix in SUFFIXES) if os.path.lexists(path)]
    need(len(there) == 1, f"{uuid} has {len(there)} images")
    return there[0]


def chain(directory, uuid):
    """The images of a disk, leaf first; a raw one as None at the end."""
    images = []
    while uuid:
        path = find(directory, uuid)
        images.append(None if path.endswith(".raw") else Image(path))
        need(len(images) <= LONGEST_CHAIN, "a chain without end")
        uuid = images[-1] and images[-1].parent
    return images


def read(directory, uuid):
    """All bytes of a disk, through its chain."""
    disk, images = None, chain(directory, uuid)
    if images[-1] is None:
        below = images[-2].parent if len(images) > 1 else uuid
        with open(find(directory, below), "rb") as raw:
            disk = raw.read()
        images.pop()
    for image in reversed(images):
        disk = image.laid_on(disk)
    return bytes(disk)


def lineage(images, vdi):
    """uuids from a disk to its base, of {uuid: Image}; longer than any chain when it goes round."""
    line = [vdi]
    while vdi in images and images[vdi].parent and len(line) <= LONGEST_CHAIN:
        vdi = images[vdi].parent
        line.append(vdi)
    return line


def judge(directory, load=Image):
    """Every VHD of an SR's directory by the rules of today's manager, as {uuid: Image}. Unsound when one breaks them.
    load may remember images by their path."""
    found = {}
    for name in sorted(os.listdir(directory)):
        if not re.fullmatch(r"[0-9a-f-]{36}\.vhd", name):
            continue
        image = found[name[:-4]] = load(os.path.join(directory, name))
        need(image.size % BLOCK == 0 and BLOCK <= image.size <= LARGEST, f"{name}: size {image.size}")
    for name, image in found.items():
        line = lineage(found, name)
        need(len(line) <= LONGEST_CHAIN, f"{name} has {len(line)} images")
        need(line[-1] in found or os.path.exists(os.path.join(directory, line[-1] + ".raw")), f"no {line[-1]}")
        if image.parent in found:
            need(found[image.parent].hidden, f"{image.parent} is a parent, and not hidden")
            need(image.parent_id == uuids.UUID(found[image.parent].uuid).bytes, f"{name}: its parent's uuid")
            need(found[image.parent].size <= image.size, f"{name} is smaller than its parent")
    return found
