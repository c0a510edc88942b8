# SPDX-License-Identifier: LGPL-2.1-or-later
"""The house rules a program can check. Each rule is a function of a source tree's root that gives its complaints, each
"path:line: sentence"; RULES lists them. test_lint.py runs them on this tree and on copies with planted violations.

Run as a program: prints the complaints about the tree given, or about this one.
"""
import concurrent.futures
import fnmatch
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import figures  # noqa: E402

TOP = ("server", "handlers", "backends", "store", "certs", "deploy", "tests")

# Who may include what of ours: the first pattern that fits a file decides. A pattern without an answer is a complaint,
# so a new directory needs a row. "*" does not stop at "/".
INCLUDES = (
    ("server/base/*", ("server/base/*",)),
    ("server/wire/*", ("server/base/*", "server/wire/*")),
    ("server/bin/bridge_*", ("server/base/*", "server/bin/bridge_*.h", "backends/types.h", "backends/types.def")),
    ("server/bin/smapi-bridge.c", ("server/base/*", "server/bin/bridge_*.h")),
    ("server/bin/smapi-image-read.c", ("server/base/*", "backends/guard.h")),
    ("server/bin/*", ("server/*", "handlers/*", "store/store.h", "store/schema.h", "backends/types.h",
                      "backends/types.def")),
    ("server/*", ("server/*.h", "server/*.def", "handlers/*", "store/store.h", "store/*.def", "backends/driver.h",
                  "backends/guard.h", "backends/types.h", "backends/types.def")),
    ("store/*", ("server/base/*", "store/*")),
    ("backends/*", ("server/base/*", "backends/*")),
    ("handlers/*", ("server/base/*", "server/wire/value.h", "server/config.def", "store/*.h", "store/*.def",
                    "handlers/*", "backends/driver.h", "backends/guard.h", "backends/types.h", "backends/types.def",
                    "backends/images/image.h")),
    ("tests/*", ("*",)),
)

# Only these files know these libraries.
LIBRARIES = (
    ("microhttpd.h", ("server/https*",)),
    ("gnutls/*", ("server/https*", "server/tls*", "server/identity.c")),
    ("sqlite3.h", ("store/*",)),
    ("libxml/*", ("server/wire/read.c",)),
    ("xmlrpc*", ("server/wire/write.c",)),
    ("ini.h", ("server/config.c",)),
    ("jansson.h", ("backends/tools/*", "backends/layouts/file_sidecar.c")),
    ("openssl/*", ("server/request.c", "handlers/use.c", "server/upstream/*")),
    ("curl/*", ("server/upstream/*",)),
    ("libmount/*", ("backends/tools/*",)),
    ("blkid/*", ("backends/tools/*",)),
    ("libsmartcols/*", ("server/bin/*",)),
    ("cmocka.h", ()),
)

FORBIDDEN = "strcpy strcat sprintf vsprintf gets system popen alloca strtok mktemp tmpnam".split()
SHELLS = ("system", "popen")  # tests may ask outside judges so
FUNCTION_LINES = 100
# Written so that this file does not name them either.
PRIVATE = re.compile(r"(?<![\w.])/wor[k]/|\.\./share[d]\b|\breferenc[e]/\w+\.md|\.librar[y]/")


def files(root, *patterns):
    """Paths of the tree's files, relative to root, that fit a pattern."""
    found = [name for name in os.listdir(root) if name != ".git" and os.path.isfile(os.path.join(root, name))]
    for top in TOP:
        for directory, names, leaves in os.walk(os.path.join(root, top)):
            names[:] = [n for n in names if n != "__pycache__"]
            found += [os.path.relpath(os.path.join(directory, leaf), root) for leaf in leaves]
    return sorted(f for f in found if any(fnmatch.fnmatchcase(f, p) for p in patterns))


def text_of(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as f:
        return f.read()


def matches(path, patterns):
    return any(fnmatch.fnmatchcase(path, p) for p in patterns)


def lines_of(root, *patterns):
    for path in files(root, *patterns):
        for number, line in enumerate(text_of(root, path).split("\n"), 1):
            yield path, number, line


def code_lines(root, *patterns):
    """Like lines_of for C, without comments and the insides of strings; line numbers are kept."""
    blank = lambda m: '""' if m.group().startswith('"') else re.sub(r"[^\n]", " ", m.group())
    for path in files(root, *patterns):
        code = re.sub(r'"(?:\\.|[^"\\\n])*"|/\*.*?\*/|//[^\n]*', blank, text_of(root, path), flags=re.S)
        for number, line in enumerate(code.split("\n"), 1):
            yield path, number, line


def layers(root):
    """Our own includes go the way a request goes."""
    for path, number, line in lines_of(root, "*.c", "*.h", "*.def"):
        include = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not include:
            continue
        allowed = next((to for pattern, to in INCLUDES if fnmatch.fnmatchcase(path, pattern)), None)
        if allowed is None:
            yield "%s:%d: no row of INCLUDES says what may be included here" % (path, number)
        elif "/" not in include.group(1):
            yield "%s:%d: %s is not a path from the root of the tree" % (path, number, include.group(1))
        elif not matches(include.group(1), allowed):
            yield "%s:%d: may not include %s" % (path, number, include.group(1))


def libraries(root):
    """Each library has its few files."""
    for path, number, line in lines_of(root, "server/*.[ch]", "handlers/*.[ch]", "backends/*.[ch]", "store/*.[ch]"):
        include = re.match(r"\s*#\s*include\s+<([^>]+)>", line)
        for library, users in LIBRARIES:
            if include and fnmatch.fnmatchcase(include.group(1), library) and not matches(path, users):
                yield "%s:%d: only %s may include <%s>" % (path, number, " ".join(users) or "tests",
                                                           include.group(1))


def forbidden(root):
    """Functions that no careful use makes safe."""
    call = re.compile(r"(?<![\w.>])(%s)\s*\(" % "|".join(FORBIDDEN))
    for path, number, line in code_lines(root, "*.c", "*.h"):
        found = call.search(line)
        if found and not (path.startswith("tests/") and found.group(1) in SHELLS):
            yield "%s:%d: calls %s" % (path, number, found.group(1))


def lengths(root):
    """A function is a brace at column 0."""
    for path in files(root, "*.c"):
        start = 0
        for number, line in enumerate(text_of(root, path).split("\n"), 1):
            if line.startswith("{"):
                start = number
            elif line.startswith("}") and start:
                if number - start - 1 > FUNCTION_LINES:
                    yield "%s:%d: a function of %d lines" % (path, start, number - start - 1)
                start = 0


def licences(root):
    """The first two lines of every source file name the licence."""
    for path in files(root, "*.c", "*.h", "*.def", "*.py", "*.sql"):
        if "SPDX-License-Identifier: LGPL-2.1-or-later" not in "\n".join(text_of(root, path).split("\n")[:2]):
            yield "%s:1: no SPDX line" % path


def private_paths(root):
    """Nothing here depends on, or speaks of, the place it was written at."""
    for path, number, line in lines_of(root, "*"):
        if PRIVATE.search(line):
            yield "%s:%d: names a path outside this tree" % (path, number)


def unfinished(root):
    """What is not done is not there; a list of wishes is no place for it either."""
    for path, number, line in lines_of(root, "*.c", "*.h", "*.def", "*.py", "*.sql", "deploy/quickstart", "tests/run"):
        if re.search(r"\b(TOD[O]|FIXM[E]|XX[X])\b", line):
            yield "%s:%d: a mark of unfinished work" % (path, number)


def readmes(root):
    """Every top-level directory says what lives there."""
    for top in ("",) + TOP:
        path = os.path.join(top, "README.md")
        if not os.path.isfile(os.path.join(root, path)) or not text_of(root, path).strip():
            yield "%s:1: missing or empty" % path


def formatting(root):
    """clang-format has nothing to change."""
    paths = files(root, "*.c", "*.h")
    done = subprocess.run(["clang-format", "--dry-run", *paths], cwd=root, stderr=subprocess.PIPE, text=True,
                          stdin=subprocess.DEVNULL, check=True)
    seen = set()
    for line in done.stderr.split("\n"):
        found = re.match(r"(\S+?):(\d+):\d+: warning:.*-Wclang-format-violations", line)
        if found and found.group(1) not in seen:
            seen.add(found.group(1))
            yield "%s:%s: not as clang-format writes it" % found.groups()


def compile_alone(root, path, compiler, flags):
    done = subprocess.run([compiler, "-std=gnu17", "-D_GNU_SOURCE", '-DSMAPI_VERSION="0"', "-I.", "-Wall", "-Wextra",
                           "-Werror", *flags, "-fsyntax-only", "-x", "c", "-"], cwd=root,
                          input='#include "%s"\n#include "%s"\n' % (path, path), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        first = next((l for l in done.stdout.split("\n") if "error:" in l), done.stdout.strip().split("\n")[0])
        return ["%s:1: does not compile by itself with %s: %s" % (path, compiler, first)]
    return []


def headers(root):
    """Every header compiles by itself, and twice, with both compilers."""
    flags = subprocess.run(["pkg-config", "--cflags", "libxml-2.0", "gnutls", "sqlite3"], stdout=subprocess.PIPE,
                           text=True, check=True).stdout.split()
    work = [(root, path, compiler, flags) for path in files(root, "*.h") for compiler in ("gcc", "clang")]
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        for complaints in pool.map(lambda w: compile_alone(*w), work):
            yield from complaints


def quoted(root):
    """READMEs quote the figures of the deep runs as tests/figures has them."""
    for path in figures.stale(root):
        yield "%s:1: does not quote what is in tests/figures; tests/figures.py --write does" % path


PROMISES = "tests/PROMISES.md"
# What must have a row there: the rules of leases and recovery, and the steps of each operation.
PROMISED = ["L%d" % n for n in range(1, 21)] + ["R%d" % n for n in range(1, 12)] + \
    [letter + str(n) for letter, steps in (("A", 7), ("B", 8), ("D", 3), ("E", 5), ("F", 6), ("G", 3), ("H", 4), ("I", 3))
     for n in range(1, steps + 1)] + ["C", "J"]


def holder_is_there(root, holder, points):
    """"point NAME", or a file of tests and in it a test, a class, or whatever function a table names."""
    if holder.startswith("point "):
        return holder[6:] in points
    path, _, name = holder.partition(":")
    path = os.path.join("tests", path)
    return bool(name) and os.path.isfile(os.path.join(root, path)) and re.search(
        r"(\bdef |^|\bvoid |\bT\()%s\b" % re.escape(name), text_of(root, path), re.M)


def promised(root):
    """Every rule and step has a row, and what the row says that holds it is there. A row without says why."""
    points = set(re.findall(r"^POINT_ROW\((\w+)", text_of(root, "server/base/point.def"), re.M))
    seen = []
    for number, line in enumerate(text_of(root, PROMISES).split("\n"), 1):
        row = re.match(r"\| ([A-Z]\d*) \| .* \| (.*) \|$", line)
        if not row:
            continue
        seen.append(row.group(1))
        holders = re.findall(r"`([^`]+)`", row.group(2))
        if not holders and not re.match("— .{20}", row.group(2)):
            yield "%s:%d: nothing holds %s" % (PROMISES, number, row.group(1))
        for holder in holders:
            if not holder_is_there(root, holder, points):
                yield "%s:%d: %s: there is no %s" % (PROMISES, number, row.group(1), holder)
    for name in PROMISED:
        if seen.count(name) != 1:
            yield "%s:1: %s has %d rows" % (PROMISES, name, seen.count(name))


RULES = (layers, libraries, forbidden, lengths, licences, private_paths, unfinished, readmes, formatting, headers, quoted,
         promised)


def main():
    root = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else os.path.dirname(
        os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    complaints = [c for rule in RULES for c in rule(root)]
    sys.stdout.writelines(complaint + "\n" for complaint in complaints)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
