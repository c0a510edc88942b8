-- SPDX-License-Identifier: LGPL-2.1-or-later
-- unknown_ns: an SR was taken over from another server, and nobody knows who holds what of it before then; 0: none. As
-- in meta.
ALTER TABLE sr ADD COLUMN unknown_ns INTEGER NOT NULL DEFAULT 0 CHECK (unknown_ns >= 0);
