# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every seeded bug of bugs/ still fits this tree, names a harness that is there, and is put in by bugs/run alone. Which
harness finds each: bugs/FOUND.md, which says what figures/bugs.json has.

A patch that no longer applies is made anew against the changed code: the same mistake in it."""
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from oracle import RECIPES  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))


def load():
    """The program bugs/run as a module."""
    loader = importlib.machinery.SourceFileLoader("run", os.path.join(HERE, "bugs", "run"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("run", loader))
    loader.exec_module(module)
    return module


RUNNER = load()


class BugsApply(unittest.TestCase):
    def apply(self, path, *more):
        return subprocess.run(["git", "apply", "--check", *more, path], cwd=SOURCE, capture_output=True, text=True,
                              check=False, env={**os.environ, "GIT_DIR": "/nonexistent"})

    def test_every_seeded_bug_applies_and_is_not_in_the_tree(self):
        patches = RUNNER.patches()
        self.assertGreaterEqual(len(patches), 50)
        for path in patches:
            with self.subTest(bug=os.path.basename(path)):
                run = self.apply(path)
                self.assertEqual(run.returncode, 0, run.stderr)
                self.assertNotEqual(self.apply(path, "--reverse").returncode, 0, "the bug is in the tree")

    def test_every_seeded_bug_names_who_is_expected_to_find_it(self):
        recipes = {recipe.__name__ for found in RECIPES.values() for recipe in found}
        for path in RUNNER.patches():
            with self.subTest(bug=os.path.basename(path)):
                sentence, finder, series = RUNNER.header(path)
                self.assertTrue(sentence)
                self.assertIn(finder, RUNNER.HARNESSES)
                self.assertIn(series, recipes | {None})

    def test_harnesses_are_programs_that_are_there(self):
        for name, program in RUNNER.HARNESSES.items():
            path = f"tests/unit/test_{program}.c" if isinstance(program, str) else program[0]
            self.assertTrue(os.path.exists(os.path.join(SOURCE, path)), name)

    def test_the_list_of_who_found_what_is_what_the_figures_say(self):
        found = RUNNER.figures.read("bugs").get("found")
        path = os.path.join(HERE, "bugs", "FOUND.md")
        self.assertEqual(os.path.exists(path), found is not None)
        if found:
            with open(path, encoding="utf-8") as page:
                self.assertEqual(page.read(), RUNNER.page(found["figures"]))


if __name__ == "__main__":
    unittest.main()
