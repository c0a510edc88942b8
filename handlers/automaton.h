/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* automaton.def as a table: what one host may do with one disk. */
#ifndef SMAPI_HANDLERS_AUTOMATON_H
#define SMAPI_HANDLERS_AUTOMATON_H

#include "server/base/fault.h"

enum use_state {
#define STATE(name, words) USE_##name,
#define OPERATION(name, words)
#define CELL(state, operation, then, fault, words)
#include "handlers/automaton.def"
#undef STATE
#undef OPERATION
#undef CELL
    USE_STATES
};

enum use_operation {
#define STATE(name, words)
#define OPERATION(name, words) USE_##name,
#define CELL(state, operation, then, fault, words)
#include "handlers/automaton.def"
#undef STATE
#undef OPERATION
#undef CELL
    USE_OPERATIONS
};

struct use_cell {
    enum use_state then;
    enum fault_code fault; /* FAULT_NONE: it succeeds */
    const char *words;
};

const struct use_cell *use_cell(enum use_state state, enum use_operation operation);
const char *use_state_name(enum use_state state);
const char *use_operation_name(enum use_operation operation);

/* 0 when the cell succeeds, else -1 with its fault and a sentence on this disk and host. */
int use_step(enum use_state state, enum use_operation operation, const char *vdi, const char *host, struct fault *f);

#endif
