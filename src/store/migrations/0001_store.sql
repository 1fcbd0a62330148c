-- Facts about the deployment: partitions, newest epoch, whether the last end was clean.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value NOT NULL
) WITHOUT ROWID;

CREATE TABLE partitions (
    partition      INTEGER PRIMARY KEY,
    owner          TEXT,
    epoch          INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL,
    horizon_ms     INTEGER NOT NULL DEFAULT 0
);

-- The machines. One B-tree, in the order in which a partition is loaded.
CREATE TABLE state (
    partition INTEGER NOT NULL,
    kind      INTEGER NOT NULL,
    key       TEXT NOT NULL,
    value     BLOB NOT NULL,
    PRIMARY KEY (partition, kind, key)
) WITHOUT ROWID;

CREATE TABLE outbox (
    partition INTEGER NOT NULL,
    epoch     INTEGER NOT NULL,
    number    INTEGER NOT NULL,
    body      BLOB NOT NULL,
    PRIMARY KEY (partition, epoch, number)
) WITHOUT ROWID;

-- The embedded bus. AUTOINCREMENT: an id that was used never comes again, so that a cursor passes nothing by.
CREATE TABLE bus (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    queue        TEXT NOT NULL,
    body         BLOB NOT NULL,
    headers      TEXT,
    deliveries   INTEGER NOT NULL DEFAULT 0,
    published_ms INTEGER NOT NULL
);
CREATE INDEX bus_queue ON bus (queue, id);
