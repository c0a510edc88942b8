# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every seeded bug of bugs/ still fits this tree, and only bugs/run puts one in. Which harness finds each: bugs/FOUND.md.

A patch that no longer applies is made anew against the changed code: the same mistake in it."""
import glob
import os
import subprocess
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))


class BugsApply(unittest.TestCase):
    def apply(self, path, *more):
        return subprocess.run(["git", "apply", "--check", *more, path], cwd=SOURCE, capture_output=True, text=True,
                              check=False, env={**os.environ, "GIT_DIR": "/nonexistent"})

    def test_every_seeded_bug_applies_and_is_not_in_the_tree(self):
        patches = sorted(glob.glob(os.path.join(HERE, "bugs", "*.patch")))
        self.assertGreaterEqual(len(patches), 40)
        for path in patches:
            with self.subTest(bug=os.path.basename(path)):
                run = self.apply(path)
                self.assertEqual(run.returncode, 0, run.stderr)
                self.assertNotEqual(self.apply(path, "--reverse").returncode, 0, "the bug is in the tree")


if __name__ == "__main__":
    unittest.main()
