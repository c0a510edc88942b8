/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What must hold between rows whatever was done to them. Reads only. */
#ifndef SMAPI_STORE_CHECK_H
#define SMAPI_STORE_CHECK_H

#include "server/base/finding.h"
#include "store/store.h"

/* The rows of one SR. */
int store_check_sr(struct txn *t, const struct uuid *sr, struct findings *out, struct fault *f);
/* What belongs to no SR; whole: reads every page of the database too. */
int store_check_all(struct txn *t, bool whole, struct findings *out, struct fault *f);

#endif
