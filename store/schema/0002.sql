-- SPDX-License-Identifier: LGPL-2.1-or-later
-- Leases belong to a session of a host: a boot of its kernel and a run of its agent. What ends in _ns is a moment of the
-- server's CLOCK_BOOTTIME under the boot id in meta; each start sets such moments anew before anything is served.

-- grace_ns: no break by expiry before then. unknown_ns: nobody knows who holds what before then. 0: none; -1: the
-- machine has restarted, the next start begins it.
ALTER TABLE meta ADD COLUMN grace_ns INTEGER NOT NULL DEFAULT 0 CHECK (grace_ns >= -1);
ALTER TABLE meta ADD COLUMN unknown_ns INTEGER NOT NULL DEFAULT 0 CHECK (unknown_ns >= -1);

-- boot, nonce: of the session, '' when the host has never registered. heard: it has renewed since this server started.
-- term_ns: how long it was promised. old_*: the session before this one. stale: something of an earlier boot is left.
-- broken: the newest of its epochs that was broken, 0 for none.
CREATE TABLE host_next (
    holder         TEXT    NOT NULL PRIMARY KEY CHECK (holder <> ''),
    first          INTEGER NOT NULL,
    last           INTEGER NOT NULL,
    state          TEXT    NOT NULL DEFAULT 'unregistered' CHECK (state IN ('unregistered', 'live', 'collided')),
    boot           TEXT    NOT NULL DEFAULT '' CHECK (length(boot) IN (0, 36)),
    nonce          TEXT    NOT NULL DEFAULT '' CHECK (length(nonce) IN (0, 36)),
    watchdog       INTEGER NOT NULL DEFAULT 0 CHECK (watchdog IN (0, 1)),
    heard          INTEGER NOT NULL DEFAULT 0 CHECK (heard IN (0, 1)),
    term_ns        INTEGER NOT NULL DEFAULT 0 CHECK (term_ns >= 0),
    expires_ns     INTEGER NOT NULL DEFAULT 0 CHECK (expires_ns >= 0),
    old_boot       TEXT    NOT NULL DEFAULT '' CHECK (length(old_boot) IN (0, 36)),
    old_nonce      TEXT    NOT NULL DEFAULT '' CHECK (length(old_nonce) IN (0, 36)),
    old_expires_ns INTEGER NOT NULL DEFAULT 0 CHECK (old_expires_ns >= 0),
    stale          INTEGER NOT NULL DEFAULT 0 CHECK (stale IN (0, 1)),
    broken         INTEGER NOT NULL DEFAULT 0 CHECK (broken >= 0),
    CHECK ((state = 'unregistered') = (boot = '') AND (boot = '') = (nonce = ''))
) STRICT, WITHOUT ROWID;
INSERT INTO host_next (holder, first, last) SELECT holder, first, last FROM host;
DROP TABLE host;
ALTER TABLE host_next RENAME TO host;

-- boot: of the host's kernel when it was attached; '' when nobody said.
ALTER TABLE attachment ADD COLUMN boot TEXT NOT NULL DEFAULT '' CHECK (length(boot) IN (0, 36));

CREATE INDEX attachment_host ON attachment (holder);

-- fence: what the SR's type could do then to shut the holder out (enum fencing of the drivers). why: of a lease that is
-- being revoked, the evidence; of one in quarantine, what went wrong.
CREATE TABLE lease_next (
    sr     TEXT    NOT NULL,
    vdi    TEXT    NOT NULL,
    holder TEXT    NOT NULL CHECK (holder <> ''),
    mode   TEXT    NOT NULL CHECK (mode IN ('ro', 'rw')),
    epoch  INTEGER NOT NULL UNIQUE CHECK (epoch >= 1),
    since  INTEGER NOT NULL,
    state  TEXT    NOT NULL CHECK (state IN ('granting', 'held', 'releasing', 'revoking', 'quarantined')),
    boot   TEXT    NOT NULL CHECK (length(boot) IN (0, 36)),
    nonce  TEXT    NOT NULL CHECK (length(nonce) IN (0, 36)),
    fence  TEXT    NOT NULL CHECK (fence IN ('none', 'advisory', 'sr', 'host', 'vdi')),
    why    TEXT    NOT NULL,
    PRIMARY KEY (sr, vdi, holder),
    FOREIGN KEY (sr, vdi) REFERENCES vdi (sr, uuid) ON DELETE CASCADE,
    CHECK ((state IN ('revoking', 'quarantined')) = (why <> ''))
) STRICT, WITHOUT ROWID;
INSERT INTO lease_next (sr, vdi, holder, mode, epoch, since, state, boot, nonce, fence, why)
    SELECT sr, vdi, holder, mode, epoch, since, 'held', '', '',
           CASE (SELECT type FROM sr WHERE sr.uuid = lease.sr) WHEN 'dummy' THEN 'vdi' ELSE 'advisory' END, ''
    FROM lease;
DROP TABLE lease;
ALTER TABLE lease_next RENAME TO lease;
CREATE UNIQUE INDEX lease_writer ON lease (sr, vdi) WHERE mode = 'rw';
CREATE INDEX lease_holder ON lease (holder, boot);
