#!/usr/bin/python3 -B
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/today.py DAYS FILE...: runs Python test files, one after the other; of tests that take too long to be had each day,
those whose turn it is.

A test marked @each_day (lab.py) always runs. The others of a file that run at all are dealt, in their order, to so many
days; those of a class marked @one_day go together. SMAPI_SEED, or else the date, says which day it is. With SMAPI_EVERY_DAY
or SMAPI_DEEP in the environment all of them run. Each file has a process of its own, which begins with the library's
modules imported: in a guest that takes seconds.
"""
import http.client  # noqa: F401
import importlib
import json  # noqa: F401
import os
import ssl  # noqa: F401
import subprocess  # noqa: F401
import sys
import unittest

SKIPPED = 77


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def marked(test, mark):
    method = getattr(test, getattr(test, "_testMethodName", ""), None)
    return getattr(method, mark, None) or getattr(type(test), mark, None)


def dealt(tests, days, first, seed):
    """What runs on the day of this seed, None: on any; first is the first test's day. What does not is told."""
    today, turns = [], {}
    for test in tests:
        if marked(test, "__unittest_skip__"):
            print(f"skipped: {test.id()}: {marked(test, '__unittest_skip_why__')}", flush=True)
        elif marked(test, "each_day"):
            today.append(test)
        else:
            turn = turns.setdefault(type(test) if marked(test, "one_day") else test, len(turns))
            if seed is None or (first + turn - seed) % days == 0:
                today.append(test)
            else:
                print(f"skipped: {test.id()}: has another day: SMAPI_SEED={(first + turn) % days}", flush=True)
    return today


def run(days, path, number):
    """Whether all is well. number: of the file, and of its first test's day: files in one guest begin on different ones."""
    sys.argv, sys.path[0] = [path], os.path.dirname(os.path.abspath(path))
    module = importlib.import_module(os.path.basename(path).removesuffix(".py"))
    from lab import EVERY_DAY, SEED  # pylint: disable=import-outside-toplevel  # a test file says things that lab.py reads
    tests = list(flat(unittest.defaultTestLoader.loadTestsFromModule(module)))
    if not tests:
        print(f"{path} has no test")
        return False
    suite = unittest.TestSuite(dealt(tests, days, number, None if EVERY_DAY else SEED))
    return unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful()


def apart(*given):
    """The same in a process of its own; its exit status."""
    child = os.fork()
    if child == 0:
        sys.exit(0 if run(*given) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main():
    """0; or of the files' exit statuses the worst, where SKIPPED is better than any other."""
    days, files, worst = int(sys.argv[1]), sys.argv[2:], 0
    for number, path in enumerate(files):
        print(f"{os.path.basename(path)}:", flush=True)
        status = apart(days, path, number)
        if status and worst in (0, SKIPPED):
            worst = status
    return worst


if __name__ == "__main__":
    sys.exit(main())
