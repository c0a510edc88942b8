/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every open connection, what its client owes us, and until when. Deadlines are absolute: a client that sends a byte
   now and then wins no time by it. Knows no HTTP library; whoever owns the sockets tells it what happens on them. */
#ifndef SMAPI_SERVER_CONNECTIONS_H
#define SMAPI_SERVER_CONNECTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* What we wait for. */
enum stage {
    STAGE_HANDSHAKE, /* the TLS handshake's end */
    STAGE_IDLE,      /* the first byte of a request */
    STAGE_HEAD,      /* the rest of its head */
    STAGE_BODY,      /* the rest of its body */
    STAGE_CALL,      /* our own answer: no deadline here */
    STAGE_ANSWER,    /* that the client takes the answer */
    STAGE_COUNT
};

const char *stage_name(enum stage stage);

struct connection_limits {
    unsigned seconds[STAGE_COUNT]; /* 0: no deadline */
    unsigned handshakes;           /* under way at once; past it the oldest are shut down, each a second old at least */
    unsigned per_identity;
};

struct connections;
struct connection;

void connections_free(struct connections *all); /* none is open any more */
struct connections *connections_new(const struct connection_limits *limits);
/* From now on; deadlines that run already stay. Any thread, as all below. */
void connections_limit(struct connections *all, const struct connection_limits *limits);

/* A new one on this socket, which stays open until connection_close. */
struct connection *connection_open(struct connections *all, int fd, enum stage stage);
/* Before the socket is closed. */
void connection_close(struct connection *c);
/* What we wait for from now on. */
void connection_wait(struct connection *c, enum stage stage);
/* The same if the connection is idle, else nothing. */
void connection_wake(struct connection *c, enum stage stage);
/* Counts it for who is at its other end (once; copied). False when that one has per_identity others already: it is not
   counted then. */
bool connection_claim(struct connection *c, const char *identity);

/* Shuts down, in both directions, the sockets of those whose deadline is over. To be called a few times a second. */
void connections_sweep(struct connections *all);

struct connection_counts {
    unsigned open;
    uint64_t late[STAGE_COUNT]; /* shut down by their deadline, by what they owed */
    uint64_t crowded_out;       /* handshakes shut down for newer ones */
};
struct connection_counts connections_counted(struct connections *all);

#endif
