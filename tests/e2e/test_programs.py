# SPDX-License-Identifier: LGPL-2.1-or-later
"""At its start the daemon tells which outside programs the host has, of which version, and which package is missing."""
import os
import re
import time
import unittest

from lab import Lab, LabTest, Repository, describe, new_uuid


class Programs(LabTest):
    def lines(self, lab, wanted):
        """type: what it runs; waits until as many types are told."""
        deadline = time.monotonic() + 30
        while True:
            found = dict(re.findall(r"type (\w+) runs (.*)$", lab.log(), re.M))
            if len(found) >= wanted or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def started(self, prefix):
        lab = Lab(in_memory=True)
        self.addCleanup(lab.close)
        lab.prefix = prefix
        return lab.start(log__programs=1)

    def types(self):
        return {row["name"]: row["programs"] for row in describe()["types"] if row["programs"]}

    def test_each_type_has_a_line_with_programs_and_versions(self):
        found = self.lines(self.started([]), len(self.types()))
        self.assertEqual(set(found), set(self.types()))
        for name, programs in self.types().items():
            for program in programs:
                there = os.access(program["path"], os.X_OK)
                said = rf"{re.escape(program['path'])} \d+(\.\d+)+" if there else f"is missing: package {program['package']}"
                self.assertRegex(found[name], said, name)

    @unittest.skipUnless(os.geteuid() == 0, "root is needed to take a program away")
    def test_a_program_that_is_missing_is_named_with_its_package(self):
        lab = self.started(["unshare", "--mount", "sh", "-ec",
                            'mount --bind /dev/null /sbin/mount.cifs; mount --bind /dev/null /sbin/lvm; exec "$@"', "sh"])
        found = self.lines(lab, len(self.types()))
        self.assertIn("/sbin/mount.cifs is missing: package cifs-utils", found["iso"])
        self.assertNotIn("cannot be used", found["iso"])
        self.assertIn("/sbin/lvm is missing: package lvm2, without which the type cannot be used", found["lvm"])
        sr = Repository(lab.unix(), "lvm", new_uuid(), {"device": "/dev/null"})
        with self.refused(19, "/sbin/lvm, of package lvm2"):
            sr("sr_create", "0")

    def test_it_tells_nothing_when_it_is_told_not_to(self):
        time.sleep(0.5)
        self.assertEqual(self.lines(self.lab, 0), {})


if __name__ == "__main__":
    unittest.main()
