# SPDX-License-Identifier: LGPL-2.1-or-later
"""This tree keeps the rules of rules.py, and each rule catches what it is there for: violations are planted in a copy
of the tree and must be complained about, at the place where they were planted and nowhere else."""
import os
import re
import shutil
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import rules

ROOT = os.path.dirname(os.path.dirname(HERE))
SPDX = "/* SPDX-License-Identifier: LGPL-2.1-or-later */\n"

# rule, file to write, its text (SPDX added to C), word the complaint must hold
PLANTED = (
    (rules.layers, "server/base/planted.c", '#include "store/store.h"\n', "may not include"),
    (rules.layers, "server/base/planted.h", '#include "server/wire/value.h"\n', "may not include"),
    (rules.layers, "server/wire/planted.c", '#include "handlers/call.h"\n', "may not include"),
    (rules.layers, "server/planted.c", '#include "backends/images/image.h"\n', "may not include"),
    (rules.layers, "server/bin/planted.c", '#include "backends/guard.h"\n', "may not include"),
    (rules.layers, "server/bin/bridge_planted.c", '#include "store/store.h"\n', "may not include"),
    (rules.layers, "store/planted.c", '#include "backends/driver.h"\n', "may not include"),
    (rules.layers, "store/planted.c", '#include "handlers/call.h"\n', "may not include"),
    (rules.layers, "backends/planted.c", '#include "store/store.h"\n', "may not include"),
    (rules.layers, "backends/layouts/planted.c", '  #  include "server/wire/value.h"\n', "may not include"),
    (rules.layers, "handlers/planted.c", '#include "server/wire/read.h"\n', "may not include"),
    (rules.layers, "handlers/planted.c", '#include "backends/layouts/file.h"\n', "may not include"),
    (rules.layers, "handlers/planted.c", '#include "call.h"\n', "not a path from the root"),
    (rules.layers, "deploy/planted.c", '#include "store/store.h"\n', "no row"),
    (rules.libraries, "server/planted.c", "#include <microhttpd.h>\n", "server/https"),
    (rules.libraries, "server/bin/planted.c", "#include <gnutls/gnutls.h>\n", "server/https"),
    (rules.libraries, "handlers/planted.c", "#include <sqlite3.h>\n", "store/"),
    (rules.libraries, "server/wire/planted.c", "#include <libxml/parser.h>\n", "read.c"),
    (rules.libraries, "server/wire/planted.h", "#include <xmlrpc-c/base.h>\n", "write.c"),
    (rules.libraries, "store/planted.c", "#include <ini.h>\n", "config.c"),
    (rules.libraries, "backends/planted.c", "#include <jansson.h>\n", "tools"),
    (rules.libraries, "backends/planted.c", "#include <openssl/evp.h>\n", "request.c"),
    (rules.libraries, "server/base/planted.c", "#include <cmocka.h>\n", "tests"),
) + tuple(
    (rules.forbidden, "store/planted.c", "int planted(char *a)\n{\n    return %s(a);\n}\n" % name, "calls " + name)
    for name in rules.FORBIDDEN
) + (
    (rules.forbidden, "tests/planted.c", "int planted(char *a)\n{\n    return sprintf(a);\n}\n", "calls sprintf"),
    (rules.lengths, "handlers/planted.c", "void planted(void)\n{\n" + "    ;\n" * 101 + "}\n", "101 lines"),
    (rules.licences, "deploy/planted.py", "print()\n", "SPDX"),
    (rules.private_paths, "deploy/planted", "cd /wor" + "k/tree\n", "outside"),
    (rules.private_paths, "deploy/planted.md", "see referenc" + "e/sm.md\n", "outside"),
    (rules.unfinished, "backends/planted.c", "/* TO" + "DO: later */\n", "unfinished"),
    (rules.formatting, "store/planted.c", "int  planted;\n", "clang-format"),
    (rules.headers, "store/planted.h", "extern size_t planted;\n", "with gcc"),
    (rules.headers, "store/planted.h", "extern size_t planted;\n", "with clang"),
    (rules.headers, "store/planted.h", "enum planted { PLANTED };\n", "with gcc"),
)

# rule, file to write, its text: near to a violation, and none
ALLOWED = (
    (rules.layers, "handlers/planted.c", '#include "backends/guard.h"\n#include "server/wire/value.h"\n'),
    (rules.layers, "tests/planted.c", '#include "backends/images/image.h"\n'),
    (rules.libraries, "store/planted.c", "#include <sqlite3.h>\n"),
    (rules.forbidden, "store/planted.c", '/* system() */ // gets()\nconst char *a = "popen(x)";\nint a_system(int a);\n'),
    (rules.forbidden, "tests/planted.c", 'int planted(void)\n{\n    return system("true");\n}\n'),
    (rules.lengths, "handlers/planted.c", "void planted(void)\n{\n" + "    ;\n" * 100 + "}\n"),
    (rules.private_paths, "deploy/planted", "the net" + "work/host\n"),
)


class Tree(unittest.TestCase):
    pass


def keeps(rule):
    def test(self):
        self.assertEqual(list(rule(ROOT)), [])
    return test


for one in rules.RULES:
    setattr(Tree, "test_the_tree_keeps_" + one.__name__, keeps(one))


class Planting(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = tempfile.mkdtemp(prefix="smapi-lint-")
        for path in rules.files(ROOT, "*"):
            target = os.path.join(cls.root, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if not path.startswith("tests/") or path.endswith((".h", ".md", ".json")):
                shutil.copyfile(os.path.join(ROOT, path), target)
        shutil.copyfile(os.path.join(ROOT, ".clang-format"), os.path.join(cls.root, ".clang-format"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.root)

    def complaints(self, rule, planted):
        """About each of the files (path, text), while all of them are there, each under a number of its own."""
        paths = []
        for number, (path, text) in enumerate(planted):
            stem, dot, ending = path.partition(".")
            paths.append(f"{stem}{number}{dot}{ending}")
            target = os.path.join(self.root, paths[-1])
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w") as f:
                f.write((SPDX if path.endswith((".c", ".h")) else "") + text)
        try:
            found = list(rule(self.root))
            return [[complaint for complaint in found if complaint.split(":")[0] == path] for path in paths]
        finally:
            for path in paths:
                os.unlink(os.path.join(self.root, path))

    def test_every_rule_is_planted_against(self):
        self.assertEqual({r for r, *_ in PLANTED} | {rules.readmes, rules.quoted, rules.promised}, set(rules.RULES))

    def test_every_row_of_the_library_table_is_planted_against_or_unused(self):
        planted = "".join(text for rule, _, text, _ in PLANTED if rule is rules.libraries)
        for library, _ in rules.LIBRARIES[:8]:
            self.assertIn("<" + library.rstrip("*"), planted)

    def test_planted_violations_are_caught(self):
        for rule in dict.fromkeys(row[0] for row in PLANTED):
            rows = [row[1:] for row in PLANTED if row[0] is rule]
            for (path, text, word), found in zip(rows, self.complaints(rule, [row[:2] for row in rows])):
                with self.subTest(rule=rule.__name__, path=path, text=text[:60]):
                    self.assertTrue(any(word in complaint for complaint in found), found)

    def test_what_only_looks_like_a_violation_is_none(self):
        for rule, path, text in ALLOWED:
            with self.subTest(rule=rule.__name__, path=path):
                self.assertEqual(self.complaints(rule, [(path, text)]), [[]])

    def test_a_figure_that_readmes_do_not_quote_is_caught(self):
        os.makedirs(rules.figures.directory(self.root), exist_ok=True)
        for suite, quoting in (("kill_load", ["tests/README.md", "README.md"]), ("lease_checker", ["tests/README.md"])):
            part, values = rules.figures.SUITES[suite][0], {"kills": 1, "lost": 0, "good": 1}
            row = {"date": "2000-01-01", "program": "planted", "told": "planted", "figures": values}
            path = os.path.join(rules.figures.directory(self.root), suite + ".json")
            kept = rules.figures.read(suite, self.root)
            rules.figures.write(path, {part: row})
            self.assertEqual([c.split(":")[0] for c in rules.quoted(self.root)], quoting)
            rules.figures.write(path, kept)
            self.assertEqual(list(rules.quoted(self.root)), [])

    def test_a_promise_that_nothing_holds_is_caught(self):
        root = tempfile.mkdtemp(prefix="smapi-lint-")  # all tests, and a table of its own
        self.addCleanup(shutil.rmtree, root)
        os.mkdir(os.path.join(root, "tests"))
        for there in ("server", *(os.path.join("tests", name) for name in os.listdir(os.path.join(ROOT, "tests")))):
            if there != rules.PROMISES:
                os.symlink(os.path.join(ROOT, there), os.path.join(root, there))
        path = os.path.join(root, rules.PROMISES)
        with open(os.path.join(ROOT, rules.PROMISES), encoding="utf-8") as text:
            kept = text.read()
        row = next(line for line in kept.split("\n") if line.startswith("| L9 |"))
        test = re.search("`([^`]*)`", row).group(1)
        for planted, word in ((kept.replace(row + "\n", ""), "L9 has 0 rows"), (kept + row + "\n", "L9 has 2 rows"),
                              (kept.replace(test, test + "_more"), "there is no " + test + "_more"),
                              (kept.replace(test, test.split(":", maxsplit=1)[0]), "there is no"),
                              (kept.replace("`" + test + "`", "a test"), "nothing holds L9"),
                              (kept.replace("`point delete_renamed`", "`point delete_planted`"), "no point delete_planted")):
            with open(path, "w", encoding="utf-8") as text:
                text.write(planted)
            found = list(rules.promised(root))
            self.assertTrue(any(word in complaint for complaint in found), (word, found))
        with open(path, "w", encoding="utf-8") as text:
            text.write(kept)
        self.assertEqual(list(rules.promised(root)), [])

    def test_a_missing_readme_is_caught(self):
        paths = [os.path.join(self.root, top, "README.md") for top in rules.TOP]
        for path in paths:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "a") as f:
                f.write("words\n")
        for top, path in zip(rules.TOP, paths):
            os.rename(path, path + ".away")
            self.assertEqual(list(rules.readmes(self.root)), ["%s/README.md:1: missing or empty" % top])
            os.rename(path + ".away", path)


if __name__ == "__main__":
    unittest.main()
