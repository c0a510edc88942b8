/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/check.h"

#include "store/query.h"

/* Every row the statement gives is a finding. Closes it. */
static int take_rows(struct query opened, enum finding_kind kind, const struct uuid *sr, struct findings *out,
                     struct fault *f)
{
    AUTO_QUERY struct query q = opened;
    int more;
    while ((more = query_next(&q, f)) > 0)
        finding_add(out, kind, sr, query_text(&q, 0, out->arena), "%s", query_text(&q, 1, out->arena));
    return more;
}

int store_check_sr(struct txn *t, const struct uuid *sr, struct findings *out, struct fault *f)
{
    if (take_rows(QUERY(t, check_intent, as_uuid(sr)), FINDING_intent_open, sr, out, f) < 0 ||
        take_rows(QUERY(t, check_attachment, as_uuid(sr)), FINDING_attachment_stray, sr, out, f) < 0 ||
        take_rows(QUERY(t, check_lease_held, as_uuid(sr)), FINDING_lease_unattached, sr, out, f) < 0 ||
        take_rows(QUERY(t, check_lease_share, as_uuid(sr)), FINDING_lease_conflict, sr, out, f) < 0)
        return -1;
    return take_rows(QUERY(t, check_lease_epoch, as_uuid(sr)), FINDING_lease_epoch, sr, out, f);
}

int store_check_all(struct txn *t, bool whole, struct findings *out, struct fault *f)
{
    if (take_rows(QUERY(t, check_intent_lost), FINDING_intent_open, NULL, out, f) < 0)
        return -1;
    if (!whole)
        return 0;
    if (take_rows(QUERY(t, check_database), FINDING_integrity, NULL, out, f) < 0 ||
        take_rows(QUERY(t, check_audit_more), FINDING_lease_audit, NULL, out, f) < 0)
        return -1;
    return take_rows(QUERY(t, check_audit_less), FINDING_lease_audit, NULL, out, f);
}
