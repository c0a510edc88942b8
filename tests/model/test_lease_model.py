# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lease rules keep their promises in every run the model has, and the model sees each rule that is taken away: spin
searches lease.pml whole for each row of VARIANTS."""
import concurrent.futures
import os
import re
import resource
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
import figures  # noqa: E402

DEEP = figures.DEEP
MEMORY_MIB = 14000 if DEEP else 3000
SMALL = ["-DCOLLAPSE"] if DEEP else []  # takes a third longer
KEPT, BROKEN = "kept", "broken"
# What a search is bounded by, besides the defaults in lease.pml: quick, deep.
BOUNDS = {"BARE": ("", "GRANTS=4 BOOTS=3 DETACHES"), "FENCED": ("GRANTS=2", "GRANTS=3"),
          "WATCHDOG": ("GRANTS=2 STALE=0", "GRANTS=2")}
# (data path, what is taken away, what must come of it). CANARY_ rows show that the search is not kept by never getting
# anywhere.
VARIANTS = [
    ("BARE", "", KEPT),
    ("FENCED", "", KEPT),
    ("WATCHDOG", "", KEPT),
    ("BARE", "EXPIRY_GRANTS", BROKEN),
    ("FENCED", "EXPIRY_GRANTS", BROKEN),
    ("WATCHDOG", "EXPIRY_GRANTS", BROKEN),
    ("BARE", "BREAK_WITHOUT_EVIDENCE", BROKEN),
    ("WATCHDOG", "BREAK_WITHOUT_EVIDENCE", BROKEN),
    ("BARE", "REBOOT_WITHOUT_LOOKING", BROKEN),
    ("BARE", "READ_BESIDE_WRITE", BROKEN),
    ("BARE", "WRITE_BESIDE_READ", BROKEN),
    ("BARE", "TARGET_FIRST", BROKEN),
    ("FENCED", "TARGET_FIRST", BROKEN),
    ("BARE", "NO_NONCE", BROKEN),
    ("FENCED", "NO_NONCE", BROKEN),
    ("BARE", "NO_EPOCH_IN_RELEASE", BROKEN),
    ("BARE", "NO_OWNER_IN_RELEASE", BROKEN),
    ("BARE", "NO_DRAIN", BROKEN),
    ("BARE", "FORGETS_RELEASE", BROKEN),
    ("BARE", "KILLS=1 REPLY_BEFORE_COMMIT", BROKEN),
    ("BARE", "KILLS=1 EPOCH_IN_MEMORY", BROKEN),
    ("FENCED", "EPOCH_NOT_PUSHED", BROKEN),
    ("FENCED", "REPLY_BEFORE_FENCE", BROKEN),
    ("FENCED", "REPLY_BEFORE_FENCE BREAK_WITHOUT_FENCE", BROKEN),
    ("WATCHDOG", "LATE_WRITES", BROKEN),
    ("WATCHDOG", "NO_WATCHDOG", BROKEN),
    ("WATCHDOG", "NO_WATCHDOG_TIME", BROKEN),
    ("WATCHDOG", "NO_REARM", BROKEN),
    ("WATCHDOG", "DEADLINE_FROM_RECEIPT", BROKEN),
    ("WATCHDOG", "RENEW_UNCHECKED", BROKEN),
    ("WATCHDOG", "GRANT_IN_GRACE", BROKEN),
    ("WATCHDOG", "READ_IN_GRACE", BROKEN),
    ("BARE", "CANARY_SHARED", BROKEN),
    ("BARE", "CANARY_MIGRATED", BROKEN),
    ("BARE", "CANARY_REBOOT", BROKEN),
    ("FENCED", "CANARY_CUT_OFF", BROKEN),
    ("FENCED", "CANARY_REFUSED", BROKEN),
    ("FENCED", "CANARY_RECLAIM", BROKEN),
    ("FENCED", "CANARY_AFTER_FORGETTING", BROKEN),
    ("WATCHDOG", "CANARY_BREAK", BROKEN),
    ("WATCHDOG", "CANARY_REBOOT", BROKEN),
    ("WATCHDOG", "CANARY_AFTER_FORGETTING", BROKEN),
]
# Where one of two protections may be enough: all of it has to be searched, so in deep runs only.
EITHER = [
    ("FENCED", "BREAK_WITHOUT_FENCE", KEPT),  # the next grant fences
    ("FENCED", "NO_EPOCH_IN_RELEASE GRANTS=3", BROKEN),  # a second grant does not show it
    ("FENCED", "NO_DRAIN", KEPT),
]
LARGER = [("WATCHDOG", "GRANTS=3 STALE=0 BOOTS=1", KEPT), ("WATCHDOG", "KILLS=2 STALE=0 BOOTS=1", KEPT),
          ("FENCED", "GRANTS=2 KILLS=2", KEPT)]


def confine():
    limit = (MEMORY_MIB + 1000) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def switches(path, taken):
    """Bounds, overridden by what the row itself says."""
    chosen = {}
    for word in (BOUNDS[path][1 if DEEP and "=" not in taken else 0] + " " + taken).split():
        name, _, value = word.partition("=")
        chosen[name] = value
    return [f"-D{path}"] + [f"-D{name}={value}" if value else f"-D{name}" for name, value in chosen.items()]


def search(variant):
    """(errors, states, the assertion that failed) of one exhaustive search; errors None if it was not whole."""
    path, taken, expected = variant
    with tempfile.TemporaryDirectory(prefix="smapi-model-") as place:
        def run(*argv):
            return subprocess.run(argv, cwd=place, capture_output=True, text=True, check=True,
                                  preexec_fn=confine).stdout
        run("spin", "-a", "-o3", *switches(path, taken), os.path.join(HERE, "lease.pml"))
        run("gcc", "-w", "-O2" if expected == KEPT else "-O0", "-DSAFETY", "-DNOREDUCE", *SMALL,
            f"-DMEMLIM={MEMORY_MIB}", "-o", "pan", "pan.c")
        out = run("./pan", "-m1000000")
    errors = re.search(r"errors: (\d+)", out)
    states = re.search(r"(\d+) states, stored", out)
    failed = re.search(r"^pan:1: (.*) \(at depth", out, re.M)
    whole = "Search not completed" not in out and "max search depth too small" not in out
    return int(errors.group(1)) if errors and (whole or failed) else None, int(states.group(1)), failed and failed.group(1)


class LeaseModel(unittest.TestCase):
    def test_the_rules_hold_and_each_rule_taken_away_is_seen(self):
        variants = VARIANTS + (EITHER + LARGER if DEEP else [])
        rows = []
        with concurrent.futures.ThreadPoolExecutor(1 if DEEP else 2) as pool:
            for variant, (errors, states, failed) in zip(variants, pool.map(search, variants)):
                path, taken, expected = variant
                name = " ".join(switches(path, taken)).replace("-D", "")
                print(f"{expected:7}{states:11,} states  {name}", flush=True)
                with self.subTest(name):
                    self.assertIsNotNone(errors, "the search did not come to its end")
                    self.assertEqual(errors != 0, expected == BROKEN, failed)
                    if expected == BROKEN:
                        self.assertIn("assertion violated", failed)
                rows.append({"variant": name, "expected": expected, "errors": errors, "states": states})
        if figures.DEEP:
            self.save(rows)

    @staticmethod
    def save(rows):
        kept = [row for row in rows if row["expected"] == KEPT]
        figures.save("model", "states", "{bases} searches without error, {states:,} states, {errors} errors; {broken} variants with a "
                     "rule taken away or a thing that must be possible, {found} found",
                     {"bases": len(kept), "states": sum(row["states"] for row in kept),
                      "errors": sum(bool(row["errors"]) for row in kept), "broken": len(rows) - len(kept),
                      "found": sum(bool(row["errors"]) for row in rows if row not in kept), "variants": rows})


if __name__ == "__main__":
    unittest.main()
