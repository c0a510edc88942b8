# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether anybody opens files: inotify."""
import ctypes
import os

IN_ACCESS, IN_MODIFY, IN_ATTRIB, IN_OPEN = 1, 2, 4, 0x20
libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """opened(): whether one of the paths was opened, read or changed since."""

    def __init__(self, *paths):
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for path in paths:
            added = libc.inotify_add_watch(self.fd, os.fsencode(path), IN_ACCESS | IN_MODIFY | IN_ATTRIB | IN_OPEN)
            assert added >= 0, os.strerror(ctypes.get_errno())

    def opened(self):
        try:
            return bool(os.read(self.fd, 65536))
        except BlockingIOError:
            return False

    def close(self):
        os.close(self.fd)
