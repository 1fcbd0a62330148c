-- Bodies are large. In a table without row IDs they stand in the keys' own B-tree, and finding a key reads the bodies that it is compared with.
ALTER TABLE outbox RENAME TO outbox_before;

CREATE TABLE outbox (
    id        INTEGER PRIMARY KEY,
    partition INTEGER NOT NULL,
    epoch     INTEGER NOT NULL,
    number    INTEGER NOT NULL,
    body      BLOB NOT NULL,
    UNIQUE (partition, epoch, number)
);

INSERT INTO outbox (partition, epoch, number, body) SELECT partition, epoch, number, body FROM outbox_before;
DROP TABLE outbox_before;
