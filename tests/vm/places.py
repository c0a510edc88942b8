# SPDX-License-Identifier: LGPL-2.1-or-later
"""Places for repositories of every type in a guest: a device, a directory of a server, a target for each. lab.py reads this
when it runs in a guest, so Lab.repository(kind) works there for all types.

Places are not given back, but for targets by who makes many: when disks run short, the one that was handed out longest ago
and on which nothing stands is handed out again, wiped.
"""
import os
import unittest

import kit
import lab
from kit import MIB

DISK = 256 * MIB  # of LUNs that carry a volume group or a file system
LUNS = (4 * MIB, 4 * MIB, 8 * MIB, 8 * MIB, 16 * MIB, 16 * MIB)  # of a target whose LUNs are disks
HOST = "iqn.2024-01.org.example:host"

_servers = {}


def server(name, make):
    """One for all repositories, made when first asked for; its like may be in the next file that runs in this guest."""
    if name not in _servers:
        _servers[name] = make()
        unittest.addModuleCleanup(_servers[name].close)
    return _servers[name]


def device(_, __):
    return {"device": kit.spare()}


def nfs(_, sr):
    root = server("nfs", lambda: kit.NfsServer(["export"])).root
    path = f"/export/{sr[:8]}"
    os.mkdir(root + path)
    return {"server": "127.0.0.1", "serverpath": path}


def smb(_, sr):
    top = f"{lab.tempfile.gettempdir()}/smb"
    os.makedirs(f"{top}/{sr[:8]}")
    server("smb", lambda: kit.Samba(top))
    return {"server": f"\\\\127.0.0.1\\iso\\{sr[:8]}", "username": "guest", "password": "secret"}


def iso(_, sr):
    """A directory with two discs."""
    path = f"{lab.tempfile.gettempdir()}/iso-{sr[:8]}"
    os.mkdir(path)
    for name in ("first.iso", "second.iso"):
        with open(f"{path}/{name}", "wb") as out:
            out.write(name.encode() + bytes(4 * MIB - len(name)))
    return {"location": path, "legacy_mode": "true"}


def target(sr, luns):
    """A target of the SR's own, and the keys that lead to it."""
    kit.initiator(HOST)
    iqn = target_name(sr)
    _servers[iqn] = kit.Target(iqn, luns)
    return {"target": "127.0.0.1", "targetIQN": iqn, "localIQN": HOST}


def target_name(sr):
    return f"iqn.2024-01.org.example:{sr[:8]}"


def give_back(sr):
    """The target of an SR that is gone, with the RAM that its LUNs take."""
    if target_name(sr) in _servers:
        _servers.pop(target_name(sr)).close()


def iscsi(_, sr):
    return target(sr, LUNS)


def over_iscsi(_, sr):
    return {**target(sr, [DISK]), "LUNid": "0"}


PLACES = {"ext": device, "lvm": device, "nfs": nfs, "smb": smb, "iso": iso, "iscsi": iscsi, "lvmoiscsi": over_iscsi,
          "extoiscsi": over_iscsi}
lab.PLACES.update(PLACES)
