# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls that connect and disconnect an SR, killed at every fault point they pass: what the daemon then finds when it is
started again is brought to an end, and nothing of it stays on the host or on the medium."""
import contextlib
import http.client
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e")]
import kit  # noqa: E402
from lab import Fault  # noqa: E402

BROKEN = (OSError, http.client.HTTPException)
LIMIT = 40  # more points than any of these calls passes
BEFORE = {"sr_create": (), "sr_attach": ("sr_create",), "sr_detach": ("sr_create", "sr_attach"),
          "sr_delete": ("sr_create",)}


def call(sr, method, op=None):
    return sr(method, *(("0",) if method == "sr_create" else ()), op=op)


def patiently(sr, method):
    """The call, again when a target does not answer in time: machine and guest may have much else to do."""
    for left in reversed(range(4)):
        try:
            return call(sr, method)
        except Fault as fault:
            if fault.code != 141 or not left:
                raise


def once(lab, sr, method, spec):
    """The call, during which an armed point acts; the point's name, or None when it is not passed."""
    lab.arm(spec)
    before = len(lab.acted())
    try:
        call(sr, method)
        ended = None
    except BROKEN:
        assert lab.died(), "the connection broke but no point killed"
        return lab.acted()[-1]
    except Fault as fault:
        ended = fault
    lab.disarm()
    acted = lab.acted()[before:]
    assert ended is None or acted, ended
    return acted[0] if acted else None


def finish(test, sr, method):
    """From wherever the call stopped to the end of the SR's life."""
    if method == "sr_create":
        try:
            patiently(sr, "sr_create")
        except Fault as fault:
            test.assertEqual(fault.code, 42, fault.text)
    if method != "sr_delete":
        patiently(sr, "sr_attach")
        sr("sr_scan")
        for disc in sr.contents() if sr.layout == "iso" else ():  # an SR is not deleted while it has disks
            sr("vdi_delete", vdi_uuid=disc)
        call(sr, "sr_detach")
    test.clean()
    patiently(sr, "sr_delete")


def trial(test, lab, new, gone, method, spec, counted=contextlib.nullcontext):
    """One call of which one point acts. The point's name, or None. counted: of what is judged then."""
    sr = new()
    for earlier in BEFORE[method]:
        patiently(sr, earlier)
    point = once(lab, sr, method, spec)
    if not lab.alive():
        lab.start()
    with test.subTest(method=method, point=point, spec=spec), counted() if point else contextlib.nullcontext():
        if method == "sr_attach" and point not in (None, "result_committed"):
            test.clean()
        finish(test, sr, method)
        test.clean()
        gone(sr)
    return point


def at(test, lab, new, gone, method, *points):
    """Killed at these points, and failed at them."""
    for point in points:
        for action in ("kill", "eio"):
            test.assertEqual(trial(test, lab, new, gone, method, f"{point}:{action}:1"), point)


def everywhere(test, lab, new, gone):
    """Killed and failed at all points of all these calls. new(): an SR that does not exist; gone(sr): its medium is as it
    was before. test.clean(): the host is."""
    for method in BEFORE:
        for action in ("kill", "eio"):
            for n in range(1, LIMIT):
                if not trial(test, lab, new, gone, method, f"*:{action}:{n}"):
                    break
            print(f"{method}: {action} at {n - 1} points", flush=True)  # how far one came that is ended
            test.assertLess(n, LIMIT - 1, "it passes points without end")


def unplugged(test, lab, new, gone, method, point):
    """Killed there, and the host comes back as after a power cut: without a session, and without the password, which only
    calls bring. What the call left on the medium is not taken for nothing, and a repeat of the call ends it."""
    sr = new()
    test.addCleanup(test.end, sr)
    for earlier in BEFORE[method]:
        call(sr, earlier)
    test.assertEqual(once(lab, sr, method, f"{point}:kill"), point)
    kit.sh("iscsiadm", "-m", "session", "-u")
    lab.start()
    bare = {key: value for key, value in sr.config.items() if key != "chappassword"}
    for _ in range(2):
        with test.refused(47, "its password is not kept"):
            sr("sr_attach", device_config=bare)
        test.clean()
    call(sr, method)
    if method == "sr_create":
        call(sr, "sr_attach")
        call(sr, "sr_detach")
        call(sr, "sr_delete")
    test.clean()
    gone(sr)
