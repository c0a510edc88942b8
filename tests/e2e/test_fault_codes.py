# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each code of the specification from 50 to 106 is raised by some test through the real door, or its row of fault.def
begins with why it cannot occur. The list is computed: from the rows, from the sources that name a fault, and from the
marks (lab.raises) of all tests, which hold their tests to it."""
import ast
import os
import re
import unittest

from lab import SOURCE, Fault, describe, raises

FIRST, LAST, CANNOT = 50, 106, "cannot occur: "


def files(directory, *endings):
    for top, _, names in os.walk(os.path.join(SOURCE, directory)):
        yield from (os.path.join(top, name) for name in names if name.endswith(endings))


def read(path):
    with open(path, encoding="utf-8") as text:
        return text.read()


def marks(text):
    """code: names of the tests that are marked with it, in one file."""
    found = {}
    for node in ast.walk(ast.parse(text)):
        for mark in getattr(node, "decorator_list", ()):
            if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "raises" and node.name.startswith("test_"):
                for code in mark.args:
                    found.setdefault(ast.literal_eval(code), []).append(node.name)
    return found


def marked():
    found = {}
    for path in files("tests", ".py"):
        for code, names in marks(read(path)).items():
            found.setdefault(code, []).extend(f"{os.path.basename(path)}: {name}" for name in names)
    return found


def rows():
    return [row for row in describe()["faults"] if FIRST <= row["code"] <= LAST]


class FaultCodes(unittest.TestCase):
    maxDiff = None

    def test_each_is_raised_by_a_test_or_says_why_it_cannot_occur(self):
        tests = marked()
        for row in rows():
            with self.subTest(code=row["code"], name=row["name"]):
                self.assertNotEqual(row["code"] in tests, row["when"].startswith(CANNOT),
                                    tests.get(row["code"], f"no test is marked with raises({row['code']})"))

    def test_what_cannot_occur_is_named_nowhere(self):
        names = {row["name"] for row in describe()["faults"] if row["when"].startswith(CANNOT)}
        said = re.compile(r"FAULT_(\w+)|\bK\((?:[^,]*, ){3}(\w+), (\w+)")
        for directory in ("server", "handlers", "backends", "store"):
            for path in files(directory, ".c", ".h", "types.def"):
                for match in said.finditer(read(path)):
                    self.assertFalse(names & set(match.groups()), path)

    def test_a_mark_that_is_not_kept_fails(self):
        with self.assertRaisesRegex(AssertionError, "51"):
            raises(51)(lambda _: Fault(50, "another"))(self)
        raises(51)(lambda _: Fault(51, "this one"))(self)
        self.assertEqual(marks("class A:\n @raises(1, 2)\n def test_x(self): pass\n @raises(3)\n def y(self): pass"),
                         {1: ["test_x"], 2: ["test_x"]})


if __name__ == "__main__":
    unittest.main()
