# SPDX-License-Identifier: LGPL-2.1-or-later
"""today.py: over its days every test runs, none is lost between them, and what fails is told."""
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
TODAY = os.path.join(HERE, "..", "today.py")
DAYS = 3
BEGIN = f"import sys, unittest\nsys.path.insert(0, {HERE!r})\nfrom lab import deep, each_day, one_day\n"
FILE = BEGIN + """
class Some(unittest.TestCase):
    @each_day
    def test_always(self): pass
    @deep
    def test_deep(self): pass
    def test_1(self): pass
    def test_2(self): pass
    def test_3(self): pass
    def test_4(self): pass
@one_day
class Together(unittest.TestCase):
    def test_5(self): pass
    def test_6(self): pass
"""


class Today(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.place = place.name

    def run_of(self, *texts, **environment):
        """Exit status, and the names of the tests that ran."""
        files = []
        for number, text in enumerate(texts):
            files.append(os.path.join(self.place, f"test_file{number}.py"))
            with open(files[-1], "w", encoding="ascii") as out:
                out.write(text)
        clean = {name: value for name, value in os.environ.items() if name not in ("SMAPI_DEEP", "SMAPI_EVERY_DAY")}
        done = subprocess.run([sys.executable, "-B", TODAY, str(DAYS), *files], env={**clean, **environment}, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
        return done.returncode, sorted(line.split()[0] for line in done.stdout.splitlines() if line.endswith("... ok"))

    def test_each_test_has_its_day(self):
        days = [self.run_of(FILE, SMAPI_SEED=str(day)) for day in range(DAYS)]
        self.assertEqual({status for status, _ in days}, {0})
        ran = [set(names) for _, names in days]
        self.assertEqual(set.intersection(*ran), {"test_always"})
        dealt = sorted(name for names in ran for name in names - {"test_always"})
        self.assertEqual(dealt, ["test_1", "test_2", "test_3", "test_4", "test_5", "test_6"])
        self.assertEqual([names & {"test_5", "test_6"} for names in ran if "test_5" in names], [{"test_5", "test_6"}])
        self.assertEqual(self.run_of(FILE, SMAPI_SEED=str(DAYS)), days[0])

    def test_two_files_begin_on_different_days(self):
        one = BEGIN + "class {0}(unittest.TestCase):\n    def test_{0}(self): pass\n"
        days = [self.run_of(one.format("a"), one.format("b"), SMAPI_SEED=str(day)) for day in range(DAYS)]
        self.assertEqual(days, [(0, ["test_a"]), (0, ["test_b"]), (0, [])])

    def test_all_run_when_they_are_asked_for(self):
        status, names = self.run_of(FILE, SMAPI_EVERY_DAY="1")
        self.assertEqual((status, len(names)), (0, 7))
        status, names = self.run_of(FILE, SMAPI_DEEP="10")
        self.assertEqual((status, len(names)), (0, 8))

    def test_what_fails_is_told_also_before_a_file_that_does_not(self):
        failing = BEGIN + "class Fails(unittest.TestCase):\n    @each_day\n    def test_it(self): self.fail()\n"
        self.assertEqual(self.run_of(failing, FILE, SMAPI_SEED="0")[0], 1)
        self.assertEqual(self.run_of(FILE, failing, SMAPI_SEED="0")[0], 1)
        self.assertEqual(self.run_of("import nothing_of_this_name\n", FILE)[0], 1)
        self.assertEqual(self.run_of(BEGIN)[0], 1, "a file without a test")

    def test_what_cannot_be_had_here_is_not_taken_for_a_failure_nor_hides_one(self):
        absent = BEGIN + "def setUpModule(): sys.exit(77)\nclass One(unittest.TestCase):\n    def test_it(self): pass\n"
        failing = BEGIN + "class Fails(unittest.TestCase):\n    @each_day\n    def test_it(self): self.fail()\n"
        self.assertEqual(self.run_of(absent, FILE, SMAPI_SEED="0")[0], 77)
        self.assertEqual(self.run_of(absent, failing, SMAPI_SEED="0")[0], 1)


if __name__ == "__main__":
    unittest.main()
