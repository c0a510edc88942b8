-- SPDX-License-Identifier: LGPL-2.1-or-later
-- Times are wall-clock seconds since 1970. Flags are 0 or 1. A uuid that is "none" is ''.
PRAGMA application_id = 1397575753;

-- One row of facts about this store.
CREATE TABLE meta (
    one        INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    server     TEXT    NOT NULL CHECK (length(server) = 36),
    start_seq  INTEGER NOT NULL CHECK (start_seq >= 1),
    boot       TEXT    NOT NULL CHECK (boot <> ''),
    epoch_next INTEGER NOT NULL CHECK (epoch_next >= 1)
) STRICT;

CREATE TABLE sr (
    uuid                 TEXT    NOT NULL PRIMARY KEY CHECK (length(uuid) = 36),
    type                 TEXT    NOT NULL CHECK (type <> ''),
    state                TEXT    NOT NULL CHECK (state IN ('creating', 'live', 'deleting')),
    label                TEXT    NOT NULL,
    description          TEXT    NOT NULL,
    physical_size        INTEGER NOT NULL CHECK (physical_size >= 0),
    physical_utilisation INTEGER NOT NULL CHECK (physical_utilisation >= 0),
    virtual_allocation   INTEGER NOT NULL CHECK (virtual_allocation >= 0),
    scanned              INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- device_config without secrets; position keeps the order in which it was given.
CREATE TABLE sr_config (
    sr       TEXT    NOT NULL REFERENCES sr (uuid) ON DELETE CASCADE,
    position INTEGER NOT NULL CHECK (position >= 0),
    key      TEXT    NOT NULL CHECK (key <> ''),
    value    TEXT    NOT NULL,
    PRIMARY KEY (sr, position),
    UNIQUE (sr, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE vdi (
    sr               TEXT    NOT NULL REFERENCES sr (uuid) ON DELETE CASCADE,
    uuid             TEXT    NOT NULL CHECK (length(uuid) = 36),
    location         TEXT    NOT NULL CHECK (location <> ''),
    state            TEXT    NOT NULL CHECK (state IN ('creating', 'live', 'deleting', 'damaged', 'quarantined')),
    format           TEXT    NOT NULL,
    size             INTEGER NOT NULL CHECK (size >= 0),
    utilisation      INTEGER NOT NULL CHECK (utilisation >= 0),
    label            TEXT    NOT NULL,
    description      TEXT    NOT NULL,
    type             TEXT    NOT NULL,
    read_only        INTEGER NOT NULL CHECK (read_only IN (0, 1)),
    shareable        INTEGER NOT NULL CHECK (shareable IN (0, 1)),
    hidden           INTEGER NOT NULL CHECK (hidden IN (0, 1)),
    managed          INTEGER NOT NULL CHECK (managed IN (0, 1)),
    is_a_snapshot    INTEGER NOT NULL CHECK (is_a_snapshot IN (0, 1)),
    snapshot_time    TEXT    NOT NULL,
    snapshot_of      TEXT    NOT NULL,
    metadata_of_pool TEXT    NOT NULL,
    parent           TEXT    NOT NULL CHECK (length(parent) IN (0, 36)),
    damage           TEXT    NOT NULL,
    PRIMARY KEY (sr, uuid),
    UNIQUE (sr, location)
) STRICT, WITHOUT ROWID;

CREATE INDEX vdi_parent ON vdi (sr, parent) WHERE parent <> '';

-- sm_config.
CREATE TABLE vdi_config (
    sr       TEXT    NOT NULL,
    vdi      TEXT    NOT NULL,
    position INTEGER NOT NULL CHECK (position >= 0),
    key      TEXT    NOT NULL CHECK (key <> ''),
    value    TEXT    NOT NULL,
    PRIMARY KEY (sr, vdi, position),
    UNIQUE (sr, vdi, key),
    FOREIGN KEY (sr, vdi) REFERENCES vdi (sr, uuid) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- vdi '' is the attachment of the SR itself, so it cannot refer to vdi (sr, uuid).
CREATE TABLE attachment (
    sr       TEXT    NOT NULL REFERENCES sr (uuid) ON DELETE CASCADE,
    vdi      TEXT    NOT NULL CHECK (length(vdi) IN (0, 36)),
    holder   TEXT    NOT NULL CHECK (holder <> ''),
    writable INTEGER NOT NULL CHECK (writable IN (0, 1)),
    since    INTEGER NOT NULL,
    PRIMARY KEY (sr, vdi, holder)
) STRICT, WITHOUT ROWID;

CREATE INDEX attachment_holder ON attachment (sr, holder, vdi);

CREATE TABLE lease (
    sr     TEXT    NOT NULL,
    vdi    TEXT    NOT NULL,
    holder TEXT    NOT NULL CHECK (holder <> ''),
    mode   TEXT    NOT NULL CHECK (mode IN ('ro', 'rw')),
    epoch  INTEGER NOT NULL UNIQUE CHECK (epoch >= 1),
    since  INTEGER NOT NULL,
    PRIMARY KEY (sr, vdi, holder),
    FOREIGN KEY (sr, vdi) REFERENCES vdi (sr, uuid) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Whatever the code above it believes: never two writers of one disk.
CREATE UNIQUE INDEX lease_writer ON lease (sr, vdi) WHERE mode = 'rw';

-- Open intents (a plan each), and replies kept under the key they were asked with.
CREATE TABLE op (
    seq       INTEGER NOT NULL PRIMARY KEY,
    uuid      TEXT UNIQUE CHECK (length(uuid) = 36),
    state     TEXT    NOT NULL CHECK (state IN ('open', 'closed')),
    key       TEXT UNIQUE CHECK (length(key) = 36),
    identity  TEXT,
    digest    BLOB CHECK (length(digest) = 32),
    method    TEXT    NOT NULL,
    sr        TEXT    NOT NULL CHECK (length(sr) IN (0, 36)),
    vdi       TEXT    NOT NULL CHECK (length(vdi) IN (0, 36)),
    made      TEXT    NOT NULL CHECK (length(made) IN (0, 36)),
    base      TEXT    NOT NULL CHECK (length(base) IN (0, 36)),
    size      INTEGER NOT NULL CHECK (size >= 0),
    old_size  INTEGER NOT NULL CHECK (old_size >= 0),
    format    TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    device    INTEGER NOT NULL,
    inode     INTEGER NOT NULL,
    read_only INTEGER NOT NULL CHECK (read_only IN (0, 1)),
    keep      INTEGER NOT NULL CHECK (keep IN (0, 1)),
    reply     BLOB,
    epoch     INTEGER NOT NULL CHECK (epoch >= 0),
    opened    INTEGER NOT NULL,
    closed    INTEGER,
    CHECK ((key IS NULL) = (identity IS NULL) AND (key IS NULL) = (digest IS NULL)),
    CHECK ((state = 'open') = (reply IS NULL) AND (state = 'open') = (closed IS NULL)),
    CHECK (state = 'closed' OR uuid IS NOT NULL),
    CHECK (state = 'open' OR key IS NOT NULL)
) STRICT;

CREATE INDEX op_open ON op (state, sr) WHERE state = 'open';
CREATE INDEX op_closed ON op (closed) WHERE state = 'closed';

CREATE TABLE host (
    holder TEXT    NOT NULL PRIMARY KEY CHECK (holder <> ''),
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Append only; the oldest lines go past a ceiling.
CREATE TABLE audit (
    seq    INTEGER NOT NULL PRIMARY KEY,
    at     INTEGER NOT NULL,
    who    TEXT    NOT NULL,
    what   TEXT    NOT NULL CHECK (what <> ''),
    detail TEXT    NOT NULL
) STRICT;
