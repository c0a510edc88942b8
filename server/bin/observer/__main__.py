# SPDX-License-Identifier: LGPL-2.1-or-later
# A host whose observer traces storage plugins runs them as "python3 -m observer <plugin> <call>". The bridge is an ELF
# file with this appended as a zip archive, so Python finds a program in it too, and that gives the call to the bridge.
import os
import sys

os.execv(sys.argv[0], sys.argv)
