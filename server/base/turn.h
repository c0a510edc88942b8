/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The turn a call waits for: which lock its row asks for, and on what. Dispatch fills it, the worker pool honours it.
 */
#ifndef SMAPI_BASE_TURN_H
#define SMAPI_BASE_TURN_H

#include "server/base/uuid.h"
#include <stdbool.h>

/* Serialisation as the specification's section "Ordering, Concurrency, and Locking" asks:
     NONE    waits for nothing and never blocks: answered where it was read;
     ROWS    looks at rows of the store alone: takes a worker, but no turn in any SR, so that no medium can hold it up;
     SHARED  reads one SR: beside everything but WHOLE;
     VDI     one operation per VDI at a time, beside others in the SR;
     SERIAL  creates, deletes, snapshots, clones: one at a time in an SR, and takes its VDI too;
     WHOLE   scan, attach, detach, create and delete of the SR: excludes everything in that SR.
   Turns are first come, first served within an SR. */
enum lock_class { LOCK_NONE, LOCK_ROWS, LOCK_SHARED, LOCK_VDI, LOCK_SERIAL, LOCK_WHOLE };

struct turn {
    enum lock_class lock;
    struct uuid sr;  /* none for calls on no SR (probe): those take no lock, only a worker */
    struct uuid vdi; /* none when the call names no VDI */
    bool lease;      /* takes or gives back a lease: has threads and places of its own, never waits for want of them */
    bool patient;    /* is done, and so waits, even where the server that has the SR does not answer */
};

#endif
