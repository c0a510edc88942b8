# SPDX-License-Identifier: LGPL-2.1-or-later
"""The judges of lease histories accept what is right and see what is wrong: each history here was made by hand.

A history is calls and the server's trail. A call is "begin-end who what": "rw 5" and "ro 5" an activation and its epoch, "rw !24"
refused, "rw ?" unknown; "off", "off #5" with the epoch named; "w5" a write; "see A:rw:5 B:ro:6" a reading; "break5". The trail's
lines: A+rw5 taken, A-rw5 released, A*rw5 broken, A/rw5 gone with its disk.
"""
import os
import re
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import figures  # noqa: E402
from lease_history import OK, REFUSED, UNKNOWN, Event, Op, disk_order, search, witness  # noqa: E402

GOOD = {
    "nothing at all": ("", ""),
    "one host takes and lets go": ("1-2 A rw 1; 3-4 A off", "A+rw1 A-rw1"),
    "two read": ("1-2 A ro 1; 3-4 B ro 2; 5-6 C see A:ro:1 B:ro:2", "A+ro1 B+ro2"),
    "a writer keeps the next out until it lets go": (
        "1-2 A rw 1; 3-4 B rw !24; 5-6 A off; 7-8 B rw 2", "A+rw1 A-rw1 B+rw2"),
    "a reader keeps a writer out": ("1-2 A ro 1; 3-4 B rw !24; 5-6 C ro 2", "A+ro1 C+ro2"),
    "the same again has the same epoch": ("1-2 A rw 1; 3-4 A rw 1; 5-6 A rw 1", "A+rw1"),
    "epochs leave gaps": ("1-2 A rw 7; 3-4 A off; 5-6 A rw 1048583", "A+rw7 A-rw7 A+rw1048583"),
    "two ask at once and either may win": ("1-5 A rw !24; 2-4 B rw 1", "B+rw1"),
    "a refusal by one that let go before the answer came": (
        "1-2 A rw 1; 3-9 B rw !24; 4-5 A off; 6-7 C see", "A+rw1 A-rw1"),
    "an answer that got lost took effect": ("1-5 A rw ?; 6-7 B rw !24; 8-9 A rw 1", "A+rw1"),
    "an answer that got lost took none": ("1-5 A rw ?; 6-7 B rw 1", "B+rw1"),
    "a release that got lost took effect": ("1-2 A rw 1; 3-5 A off ?; 6-7 B rw 2", "A+rw1 A-rw1 B+rw2"),
    "a release that got lost took none": ("1-2 A rw 1; 3-5 A off ?; 6-7 B rw !24", "A+rw1"),
    "a call that was given up arrives late": (
        "1-9 A rw ?; 2-3 C see; 4-5 C see A:rw:1; 6-7 B rw !24", "A+rw1"),
    "a break frees the disk": ("1-2 A rw 1; 3-4 X break1; 5-6 B rw 2", "A+rw1 A*rw1 B+rw2"),
    "a release of what its holder did not know it had": (
        "1-9 A rw ?; 2-6 A off; 7-8 B rw 2", "A+rw1 A-rw1 B+rw2"),
    "a break of what nobody had seen granted": (
        "1-9 A rw 1; 2-8 X break1; 10-11 B rw 2", "A+rw1 A*rw1 B+rw2"),
    "a break of what is not held is refused": (
        "1-2 A rw 1; 3-4 A off; 5-6 X break1 !37; 7-8 B rw 2", "A+rw1 A-rw1 B+rw2"),
    "a release of what was broken is no release": (
        "1-2 A rw 1; 3-4 X break1; 5-6 B rw 2; 7-8 A off; 9-10 C rw !24", "A+rw1 A*rw1 B+rw2"),
    "a release that names an older epoch is none": (
        "1-2 A rw 1; 3-4 A off; 5-6 A rw 2; 7-8 A off #1; 9-10 B rw !24", "A+rw1 A-rw1 A+rw2"),
    "a late write is refused": (
        "1-2 A rw 1; 3-4 A w1; 5-6 A off; 7-8 B rw 2; 9-10 A w1 !37; 11-12 B w2", "A+rw1 A-rw1 B+rw2"),
    "writes at once in either order": ("1-2 A rw 1; 3-10 A w1; 4-5 A off; 6-7 B rw 2; 8-11 B w2", "A+rw1 A-rw1 B+rw2"),
    "live migration": (
        "1-2 S rw 1; 3-4 T rw !24; 5-6 S off; 7-8 T rw 2; 9-10 S rw !24; 11-12 T w2", "S+rw1 S-rw1 T+rw2"),
    "a disk that is deleted takes its leases along": ("1-2 A rw 1; 3-4 C see A:rw:1", "A+rw1 A/rw1"),
}

# What is wrong -> calls, trail, the judges that must see it: of them w(itness), s(earch), d(isk).
BAD = {
    "two writers": ("1-2 A rw 1; 3-4 B rw 2", "A+rw1 B+rw2", "ws"),
    "a reader beside a writer": ("1-2 A rw 1; 3-4 B ro 2", "A+rw1 B+ro2", "ws"),
    "a writer beside a reader": ("1-2 A ro 1; 3-4 B rw 2", "A+ro1 B+rw2", "ws"),
    "a stale reading": ("1-2 A rw 1; 3-4 A off; 5-6 C see A:rw:1", "A+rw1 A-rw1", "ws"),
    "a reading that misses a lease": ("1-2 A rw 1; 3-4 C see", "A+rw1", "ws"),
    "a reading of the wrong mode": ("1-2 A ro 1; 3-4 C see A:rw:1", "A+ro1", "ws"),
    "a reading from the future": ("1-2 C see A:rw:1; 3-4 A rw 1", "A+rw1", "ws"),
    "two readings that go back": (
        "1-9 A rw 1; 2-3 C see A:rw:1; 4-5 D see", "A+rw1", "ws"),
    "a release that was lost": ("1-2 A rw 1; 3-4 A off; 5-6 B rw !24", "A+rw1 A-rw1", "ws"),
    "a grant that was lost": ("1-2 A rw 1; 3-4 B rw 2; 5-6 C see B:rw:2", "B+rw2", "ws"),
    "a silent steal": ("1-2 A rw 1; 3-4 B rw 2", "A+rw1 A-rw1 B+rw2", "ws"),
    "a break that nobody asked for": ("1-2 A rw 1; 3-4 C see A:rw:1", "A+rw1 A*rw1", "w"),
    "a resurrection": ("1-2 A rw 1; 3-4 X break1; 5-6 A rw 1", "A+rw1 A*rw1", "ws"),
    "a write after a break": ("1-2 A rw 1; 3-4 X break1; 5-6 B rw 2; 7-8 A w1", "A+rw1 A*rw1 B+rw2", "ws"),
    "a break of another's epoch": ("1-2 A rw 2; 3-4 X break1", "A+rw2", "ws"),
    "an epoch given twice": ("1-2 A rw 1; 3-4 A off; 5-6 B rw 1", "A+rw1 A-rw1 B+rw1", "ws"),
    "an epoch that goes back": ("1-2 A rw 5; 3-4 A off; 5-6 B rw 4", "A+rw5 A-rw5 B+rw4", "ws"),
    "a new epoch for what is held": ("1-2 A rw 1; 3-4 A rw 2", "A+rw1", "ws"),
    "granted when the server had forgotten who writes": (
        "1-2 A rw 1; 3-4 B rw 1048577; 5-6 A rw 1", "B+rw1048577", "ws"),
    "a late write": ("1-2 A rw 1; 3-4 A off; 5-6 B rw 2; 7-8 B w2; 9-10 A w1", "A+rw1 A-rw1 B+rw2", "wsd"),
    "a release by another": ("1-2 A rw 1; 3-4 B off; 5-6 C rw 2", "A+rw1 A-rw1 C+rw2", "ws"),
    "a release that named an older epoch took the newer": (
        "1-2 A rw 1; 3-4 A off; 5-6 A rw 2; 7-8 A off #1; 9-10 B rw 3", "A+rw1 A-rw1 A+rw2 A-rw2 B+rw3", "ws"),
    "a refusal without a holder": ("1-2 A rw !24", "", "ws"),
    "a reader refused beside a reader": ("1-2 A ro 1; 3-4 B ro !24", "A+ro1", "ws"),
    "a holder whose write is refused": ("1-2 A rw 1; 3-4 A w1 !37", "A+rw1", "ws"),
    "a trail in another order than things happened": (
        "1-2 A ro 1; 3-4 B ro 2; 5-6 A off; 7-8 B off", "A+ro1 B+ro2 B-ro2 A-ro1", "w"),
    "a trail with another epoch than was told": ("1-2 A rw 5", "A+rw4", "w"),
    "a trail with a grant that nobody asked for": ("1-2 A rw 1; 3-4 A off", "A+rw1 A-rw1 B+rw2", "w"),
    "a trail without the grant": ("1-2 A rw 1", "", "w"),
    "a call to a dead server that took effect later": (
        "1-5 A rw ?; 6-7 C see; 8-9 C see A:rw:1", "A+rw1", "s"),
    "a release that nobody asked for while another had asked long before": (
        "1-2 A off; 3-4 A ro 1; 5-6 C see A:ro:1; 7-8 C see", "A+ro1 A-ro1", "ws"),
    "granted before it was asked": ("1-2 C see; 3-4 C see A:rw:1; 5-6 A rw 1", "A+rw1", "ws"),
}


def parse(text):
    ops = []
    for part in filter(None, (p.strip() for p in text.split(";"))):
        when, who, what, *rest = part.split()
        begin, end = map(int, when.split("-"))
        told = rest[-1] if rest else ""
        outcome = UNKNOWN if told == "?" else REFUSED if told.startswith("!") else OK
        result = int(told[1:]) if outcome == REFUSED else None
        named = re.fullmatch(r"(w|break)(\d+)", what)
        keys = {}
        if what in ("rw", "ro"):
            verb, keys["mode"] = "activate", what
            result = int(told) if outcome == OK else result
        elif what == "off":
            verb = "deactivate"
            keys["epoch"] = next((int(word[1:]) for word in rest if word.startswith("#")), None)
        elif what == "see":
            verb, rows = "list", (word.split(":") for word in rest)
            result = {row[0]: (row[1], int(row[2])) for row in rows}
        else:
            verb, keys["epoch"] = {"w": "write", "break": "break"}[named[1]], int(named[2])
        ops.append(Op(begin, end, who, verb, "disk", outcome, result, **keys))
    return ops


def trail(text):
    events = []
    for seq, word in enumerate(text.split()):
        who, sign, mode, epoch = re.fullmatch(r"(\w)([-+*/])(rw|ro)(\d+)", word).groups()
        why = {"+": None, "-": "release", "*": "broken", "/": "drop"}[sign]
        events.append(Event(seq, who, "end" if why else "take", why, "disk", mode, int(epoch)))
    return events


def judged(calls, events):
    ops = parse(calls)
    return {"w": witness(ops, trail(events)), "s": search(ops), "d": disk_order(ops)}


class Checker(unittest.TestCase):
    def test_good_histories_are_accepted_by_all(self):
        self.assertGreaterEqual(len(GOOD), 20)
        for name, (calls, events) in GOOD.items():
            with self.subTest(name):
                self.assertEqual(judged(calls, events), {"w": [], "s": [], "d": []})

    def test_bad_histories_are_rejected_by_those_that_can_see_it(self):
        self.assertGreaterEqual(len(BAD), 20)
        for name, (calls, events, sees) in BAD.items():
            with self.subTest(name):
                said = judged(calls, events)
                self.assertEqual("".join(j for j in "wsd" if said[j]), sees, said)

    def test_a_log_of_writes_out_of_order_is_rejected(self):
        self.assertEqual(disk_order([], [("disk", [(1, "a"), (1, "b"), (2, "c")])]), [])
        self.assertTrue(disk_order([], [("disk", [(2, "a"), (1, "b")])]))


if __name__ == "__main__":
    program = unittest.main(exit=False)
    if figures.DEEP and program.result.wasSuccessful():
        figures.save("lease_checker", "histories", "{good} good histories accepted, {bad} bad ones rejected",
                     {"good": len(GOOD), "bad": len(BAD)})
    sys.exit(not program.result.wasSuccessful())
