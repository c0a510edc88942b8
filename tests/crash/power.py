# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a power cut may leave of a recorded run, as a model of what POSIX promises and no file system more than that:

  - fsync(file) makes durable what was written to it before, fdatasync too; until then each write, truncation and
    allocation may have come to the disk or not, each for itself, and a write may be torn: its first sectors alone, its
    last alone, or its length without its content.
  - fsync(directory) makes its entries durable; until then each change of an entry may have come to the disk or not, but
    the changes of one name come in their order, and a rename comes whole or not at all. fsync of a file says nothing of
    its name.
  - the directory of links (mount_base), which stands for /run, is empty afterwards.

States are numbered sets of the run's calls; Tree.build makes the directories such a set stands for, and Tree.identity
tells which of them are the same to a reader: those whose files are, the database and its log being read as one: a page is
what the log's whole commits say it is, else what the database has.
"""
import functools
import hashlib
import itertools
import os
import shutil
import stat
import struct

WINDOW = 4          # the last calls not synced of which every subset is tried; those before are lost one by one
TEARS = (512, 4096)
SKIPPED = "smapid.reserve"
DATABASE, LOG = ".db", "-wal"
CACHE = 256 << 20
DATA = ("write", "truncate", "punch", "allocate")


@functools.lru_cache(20000)
def _sum(data, one, two, order):
    for x, y in struct.iter_unpack(order + "II", data):
        one = (one + x + two) & 0xffffffff
        two = (two + y + one) & 0xffffffff
    return one, two


def committed(log):
    """Up to where SQLite's log has whole commits: frames of one salt whose sums follow from each other, the last of
    them a commit's (its second number is not 0)."""
    if len(log) < 32:
        return 0
    magic, _, page, _, *salt_and_sums = struct.unpack_from(">8I", log)
    order = ">" if magic & 1 else "<"
    sums = _sum(log[:24], 0, 0, order)
    if magic & ~1 != 0x377f0682 or sums != tuple(salt_and_sums[2:]):
        return 0
    at, good = 32, 0
    while at + 24 + page <= len(log):
        _, commit, *told = struct.unpack_from(">6I", log, at)
        sums = _sum(log[at + 24:at + 24 + page], *_sum(log[at:at + 8], *sums, order), order)
        if told[:2] != salt_and_sums[:2] or tuple(told[2:]) != sums:
            break
        at += 24 + page
        good = at if commit else good
    return good


def merged(database, log):
    """What a reader finds in a database with that log: its pages in order."""
    good = committed(log)
    if not good:
        return database
    page, pages, count = struct.unpack_from(">I", log, 8)[0], {}, 0
    for at in range(32, good, 24 + page):
        number, commit = struct.unpack_from(">2I", log, at)
        pages[number] = log[at + 24:at + 24 + page]
        count = commit or count
    return b"".join(pages.get(n) or database[(n - 1) * page:n * page].ljust(page, b"\0") for n in range(1, count + 1))


class Node:
    """A file or directory that the run began with or made."""

    def __init__(self, kind, mode, content):
        self.kind, self.mode, self.content = kind, mode, content  # content: bytes, {name: inode}, or where a link leads


class Tree:
    """The directories as they were when recording began."""

    def __init__(self, root):
        self.nodes = {}
        self.root = self._read(root)

    def _read(self, path):
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            content = {name: self._read(os.path.join(path, name)) for name in os.listdir(path)}
            node = Node("directory", 0o700, content)
        elif stat.S_ISLNK(status.st_mode):
            node = Node("link", 0, os.readlink(path))
        else:
            with open(path, "rb") as file:
                node = Node("file", 0o600, b"" if path.endswith(SKIPPED) else file.read())
        self.nodes[status.st_ino] = node
        return status.st_ino

    def build(self, run, applied, torn, where):
        """Makes in where what is left when of the run's calls only those applied came to the disk, one of them (torn:
        (number, how)) in part. Returns {real inode: recorded inode}."""
        nodes, _ = self._after(run, applied, torn)
        shown = {}
        self._write(nodes, self.root, where, shown)
        mounts = os.path.join(where, "mount")
        shutil.rmtree(mounts, ignore_errors=True)
        os.mkdir(mounts, 0o755)
        return shown

    def _after(self, run, applied, torn):
        """The nodes then, and of each file that was written which calls wrote it."""
        nodes = {inode: Node(n.kind, n.mode, dict(n.content) if n.kind == "directory" else n.content)
                 for inode, n in self.nodes.items()}
        wrote = {}
        for number in sorted(applied):
            how = torn[1] if torn and torn[0] == number else None
            change = run.changes[number]
            node = nodes.get(change.inode)
            if not change.is_data:
                change.rename(nodes)
            elif node and node.kind == "file":
                wrote[change.inode] = wrote.get(change.inode, ()) + ((number, how),)
                node.content = run.content(change, wrote[change.inode], node.content)
        return nodes, wrote

    def identity(self, run, applied, torn):
        nodes, wrote = self._after(run, applied, torn)
        total = hashlib.sha256()

        def add(inode, path):
            node = nodes[inode]
            total.update(f"{path} {inode}\n".encode())
            if node.kind != "directory":
                total.update(run.digest((inode, wrote.get(inode, ())), node.content))
                return
            for name in sorted(node.content):
                log = node.content.get(name + LOG) if name.endswith(DATABASE) else None
                if log:
                    total.update(name.encode() + database(node.content[name], log))
                elif not name.endswith(LOG):
                    add(node.content[name], f"{path}/{name}")

        def database(*inodes):
            keys = [(inode, wrote.get(inode, ())) for inode in inodes]
            return run.digest(tuple(keys), *(nodes[inode].content for inode in inodes))

        add(self.root, "")
        return total.digest()

    def _write(self, nodes, inode, path, shown):
        node = nodes[inode]
        if node.kind == "directory":
            if not os.path.isdir(path):
                os.mkdir(path, node.mode)
            for name, child in node.content.items():
                self._write(nodes, child, os.path.join(path, name), shown)
        elif node.kind == "link":
            os.symlink(node.content, path)
        elif inode in shown.values():  # a second name
            os.link(self._paths[inode], path)
            return
        else:
            _write_sparse(path, node.content, node.mode)
        if node.kind == "file":
            self._paths = getattr(self, "_paths", {})
            self._paths[inode] = path
        shown[os.lstat(path).st_ino] = inode


ZEROS = bytes(65536)


def _write_sparse(path, content, mode):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        os.ftruncate(fd, len(content))
        for at in range(0, len(content), len(ZEROS)):
            piece = content[at:at + len(ZEROS)]
            if piece != ZEROS[:len(piece)]:
                os.pwrite(fd, piece, at)
    finally:
        os.close(fd)


class Change:
    """One recorded call that changed something: the content of a file (inode), or entries of directories."""

    def __init__(self, record, names, made):
        self.record, self.inode, self.names, self.made = record, record.inode, names, made
        self.is_data = not names

    def entries(self):
        return {(directory, name) for directory, name, _ in self.names}

    def directories(self):
        return {directory for directory, _, _ in self.names}

    def rename(self, nodes):
        """What it does to entries."""
        for inode, node in self.made:
            nodes.setdefault(inode, Node(node.kind, node.mode, {} if node.kind == "directory" else node.content))
        for directory, name, inode in self.names:
            if directory not in nodes:
                continue  # its own making did not come to the disk
            entries = nodes[directory].content
            if inode:
                entries[name] = inode
            else:
                entries.pop(name, None)

    def written(self, content, how):
        r = self.record
        if r.op == "truncate":
            return content[:r.length] + bytes(max(0, r.length - len(content)))
        if r.op == "allocate":
            return content + bytes(max(0, r.offset + r.length - len(content)))
        if r.op == "punch":
            end = min(len(content), r.offset + r.length)
            return content[:r.offset] + bytes(max(0, end - r.offset)) + content[max(end, r.offset):]
        data = r.data
        whole = content + bytes(max(0, r.offset + len(data) - len(content)))
        if how == "zeros":
            return whole
        if how and how[0] == "head":
            return laid(content, r.offset, data[:how[1]])
        if how and how[0] == "tail":
            return laid(whole, r.offset + how[1], data[how[1]:])
        return laid(whole, r.offset, data)


def laid(content, offset, data):
    content += bytes(max(0, offset + len(data) - len(content)))
    return content[:offset] + data + content[offset + len(data):]


class Run:
    """The changes of a recorded run, and when each became durable."""

    def __init__(self, tree, records, answered, blind=()):
        """answered: after how many records the call was answered. blind: names of syncs that are not believed, to see
        whether anyone notices."""
        self.answered = answered
        self.changes, self.synced_at, self.positions = [], [], []
        self._paths = {}
        self._contents, self._cached, self._digests = {}, 0, {}
        self._learn(tree, tree.root, "")
        for position, record in enumerate(records):
            if record.error:
                continue
            if record.op in ("fsync", "fdatasync"):
                directory = record.is_directory
                if ("directory" if directory else "file") not in blind:
                    self._sync(record.inode, directory, position)
            else:
                change = self._change(record)
                if change:
                    self.changes.append(change)
                    self.positions.append(position)
                    self.synced_at.append(None)
        self.length = len(records)

    def _learn(self, tree, inode, path):
        self._paths[path] = inode
        node = tree.nodes[inode]
        if node.kind == "directory":
            for name, child in node.content.items():
                self._learn(tree, child, os.path.join(path, name))

    def _entry(self, path):
        """Directory's inode and name of a path."""
        path = path.rstrip("/")
        above, name = os.path.split(path)
        return self._paths[above], name

    def _change(self, r):
        if r.path.endswith(SKIPPED):
            return None
        if r.op in DATA:
            return Change(r, [], [])
        if r.op in ("create", "create_empty"):
            return self._creation(r)
        if r.op in ("mkdir", "symlink"):
            self._paths[r.path] = r.inode
            node = Node("directory", 0o700, {}) if r.op == "mkdir" else Node("link", 0, r.data.decode())
            return Change(r, [(*self._entry(r.path), r.inode)], [(r.inode, node)])
        if r.op in ("unlink", "rmdir"):
            self._paths.pop(r.path, None)
            return Change(r, [(*self._entry(r.path), None)], [])
        if r.op == "link":
            self._paths[r.path2] = r.inode
            return Change(r, [(*self._entry(r.path2), r.inode)], [])
        if r.op == "rename":
            return self._rename(r)
        return None  # modes, owners and times are not judged

    def _creation(self, r):
        if not r.other:
            self._paths[r.path] = r.inode
            return Change(r, [(*self._entry(r.path), r.inode)], [(r.inode, Node("file", 0o600, b""))])
        if r.op == "create":
            return None
        r.op, r.length = "truncate", 0
        return Change(r, [], [])

    def _rename(self, r):
        names = [(*self._entry(r.path), None), (*self._entry(r.path2), r.inode)]
        for path in [p for p in self._paths if p == r.path or p.startswith(r.path + "/")]:
            self._paths[r.path2 + path[len(r.path):]] = self._paths.pop(path)
        return Change(r, names, [])

    def _sync(self, inode, directory, position):
        for number, change in enumerate(self.changes):
            hit = inode in change.directories() if directory else change.is_data and change.inode == inode
            if hit and self.synced_at[number] is None:
                self.synced_at[number] = position

    def content(self, change, wrote, before):
        """Of a file after the calls wrote, of which change is the last."""
        found = self._contents.get((change.inode, wrote))
        if found is None:
            found = change.written(before, wrote[-1][1])
            self._cached += len(found)
            if self._cached > CACHE:
                self._contents, self._cached = {}, len(found)
            self._contents[change.inode, wrote] = found
        return found

    def digest(self, key, content, log=None):
        """Of a file, or of a database and its log; key: which they are, and what wrote them."""
        if key not in self._digests:
            read = content.encode() if isinstance(content, str) else content if log is None else merged(content, log)
            self._digests[key] = hashlib.sha256(read).digest()
        return self._digests[key]

    # ---- states

    def _durable(self, cut):
        """Changes that are on the disk for sure, and those that may be, when the run is cut before that position."""
        durable, pending = [], []
        for number, position in enumerate(self.positions):
            if position < cut:
                synced = self.synced_at[number]
                (durable if synced is not None and synced < cut else pending).append(number)
        return durable, pending

    def _in_order(self, kept, pending):
        """The changes of one name come in their order."""
        for number in kept:
            names = self.changes[number].entries()
            if any(n < number and n not in kept and self.changes[n].entries() & names for n in pending):
                return False
        return True

    def _subsets(self, pending):
        window, before = pending[-WINDOW:], pending[:-WINDOW]
        for size in range(len(window) + 1):
            for chosen in itertools.combinations(window, size):
                yield frozenset(before) | frozenset(chosen)
        yield from (frozenset(pending) - {lost} for lost in before)
        yield frozenset()
        yield frozenset(n for n in pending if self.changes[n].is_data)
        yield frozenset(n for n in pending if not self.changes[n].is_data)

    def _tears(self, number):
        r = self.changes[number].record
        if r.op != "write":
            return
        for size in TEARS:
            if len(r.data) > size:
                yield "head", size
                yield "tail", size
        yield "zeros"

    def states(self):
        """(applied, torn, answered) of every state, each once. answered: the caller may have been told of success."""
        seen = set()
        for cut in range(self.length + 1):
            durable, pending = self._durable(cut)
            for kept in self._subsets(pending):
                if not self._in_order(kept, pending):
                    continue
                applied = frozenset(durable) | kept
                torn = [None] + [(n, how) for n in pending[-WINDOW:] if n in kept for how in self._tears(n)]
                for tear in torn:
                    state = applied, tear, cut >= self.answered
                    if state not in seen:
                        seen.add(state)
                        yield state
