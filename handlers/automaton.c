/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handlers/automaton.h"

static const char *const state_names[USE_STATES] = {
#define STATE(name, words) [USE_##name] = words,
#define OPERATION(name, words)
#define CELL(state, operation, then, fault, words)
#include "handlers/automaton.def"
#undef STATE
#undef OPERATION
#undef CELL
};

static const char *const operation_names[USE_OPERATIONS] = {
#define STATE(name, words)
#define OPERATION(name, words) [USE_##name] = words,
#define CELL(state, operation, then, fault, words)
#include "handlers/automaton.def"
#undef STATE
#undef OPERATION
#undef CELL
};

/* A cell that stood twice would be a warning, and one that is missing makes them too few. */
#define STATE(name, words)
#define OPERATION(name, words)
#define CELL(state, operation, then, fault, words) +1
_Static_assert((0
#include "handlers/automaton.def"
                ) == USE_STATES * USE_OPERATIONS,
               "one row a cell");
#undef CELL

static const struct use_cell cells[USE_STATES][USE_OPERATIONS] = {
#define CELL(state, operation, then, fault, words) [USE_##state][USE_##operation] = {USE_##then, FAULT_##fault, words},
#include "handlers/automaton.def"
#undef CELL
};
#undef STATE
#undef OPERATION

const struct use_cell *use_cell(enum use_state state, enum use_operation operation)
{
    return &cells[state][operation];
}

const char *use_state_name(enum use_state state)
{
    return state_names[state];
}

const char *use_operation_name(enum use_operation operation)
{
    return operation_names[operation];
}

int use_step(enum use_state state, enum use_operation operation, const char *vdi, const char *host, struct fault *f)
{
    const struct use_cell *cell = use_cell(state, operation);
    if (cell->fault == FAULT_NONE)
        return 0;
    return fault_set(f, cell->fault, "VDI %s is %s on %s; %s", vdi, use_state_name(state), host, cell->words);
}
