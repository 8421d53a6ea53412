PRAGMA foreign_keys = OFF;
CREATE TABLE layer (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- What the directory takes on disk; counted when it is first asked for.
    disk_size_bytes INTEGER,
    -- What is in it, without modification times; computed when it is first asked for.
    content_digest BLOB,
    created INTEGER NOT NULL
    -- The digest of the image that it is; NULL: it is a directory.
    , image BLOB,
    -- The layer on top of whose directory its own is to be seen; NULL: its own is all there is.
    base INTEGER REFERENCES layer(id)) STRICT;
INSERT INTO layer VALUES (1, NULL, NULL, 1700000000000000001, NULL, NULL);
INSERT INTO layer VALUES (2, NULL, NULL, 1700000000000000004, NULL, NULL);
INSERT INTO sqlite_sequence VALUES ('layer', 2);
INSERT INTO sqlite_sequence VALUES ('snapshot', 2);
INSERT INTO sqlite_sequence VALUES ('result', 1);
INSERT INTO sqlite_sequence VALUES ('image', 1);
CREATE INDEX layer_unmeasured ON layer(id) WHERE disk_size_bytes IS NULL;
CREATE INDEX layer_by_base ON layer(base) WHERE base IS NOT NULL;
CREATE TABLE pack (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- How many blocks of contents there are, of 512 bytes.
    blocks INTEGER NOT NULL,
    disk_size_bytes INTEGER NOT NULL,
    -- Whether new layers may point into it: not when a layer that did was damaged, nor when it has holes or is to get some.
    reusable INTEGER NOT NULL DEFAULT 1,
    created INTEGER NOT NULL,
    last_used INTEGER NOT NULL
    -- In which boot of the machine it was written; NULL: it is known to be on the disk.
    , boot TEXT,
    -- Since when nobody takes from it, as what no layer needs is to be cut out of it; NULL: it is not, or has been.
    to_cut INTEGER) STRICT;
CREATE TABLE layer_pack (
    layer INTEGER NOT NULL REFERENCES layer(id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    pack INTEGER NOT NULL REFERENCES pack(id),
    -- How much the layer needs of it at most; NULL: nobody knows.
    needed_bytes INTEGER,
    PRIMARY KEY (layer, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_pack_by_pack ON layer_pack(pack);
CREATE TABLE layer_archive (
    layer INTEGER NOT NULL REFERENCES layer(id) ON DELETE CASCADE,
    -- The digest of the tar.
    diff_id BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    -- The chain id of the only stack that the layer stands for that tar on (zeros: on nothing); NULL: on any.
    base BLOB,
    -- Modification times in the tar are clamped to this (SOURCE_DATE_EPOCH), Unix seconds.
    mtime_max INTEGER,
    -- Whether it was made of the directory, and so can be made again; one that came may differ in its bytes.
    made INTEGER NOT NULL
    -- Which of the tars that a layer stands for together.
    , part INTEGER NOT NULL DEFAULT 0,
    -- Whether one step has made it and the one below it.
    continues INTEGER NOT NULL DEFAULT 0,
    -- The digest of its entries, with digests of contents in their place.
    entries BLOB,
    -- Its first name; NULL: it is the first of them, or has nothing but directories that the others have, too.
    begins BLOB) STRICT;
CREATE UNIQUE INDEX layer_archive_of_layer
    ON layer_archive(layer, coalesce(base, x''), coalesce(mtime_max, 'no'), part);
CREATE INDEX layer_archive_by_diff_id ON layer_archive(diff_id);
CREATE INDEX layer_archive_by_entries ON layer_archive(entries) WHERE entries IS NOT NULL;
CREATE TABLE layer_blob (
    diff_id BLOB NOT NULL,
    digest BLOB NOT NULL,
    descriptor TEXT NOT NULL,
    PRIMARY KEY (diff_id, digest)
) STRICT, WITHOUT ROWID;
CREATE TABLE snapshot (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    layers BLOB NOT NULL UNIQUE,
    last_used INTEGER NOT NULL
) STRICT;
INSERT INTO snapshot VALUES (1, x'0100000000000000', 1700000000000000003);
INSERT INTO snapshot VALUES (2, x'01000000000000000200000000000000', 1700000000000000004);
CREATE TABLE flattened (
    layers BLOB PRIMARY KEY,
    flat INTEGER NOT NULL REFERENCES snapshot(id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX flattened_by_flat ON flattened(flat);
CREATE TABLE result (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    op_digest BLOB NOT NULL,
    outputs BLOB NOT NULL,
    description TEXT NOT NULL,
    -- Whether the step brought something from elsewhere.
    is_source INTEGER NOT NULL,
    created INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    -- What was being built: results of one project are compared with each other first.
    project TEXT NOT NULL DEFAULT '',
    -- The build that ran the step, and the step in it, where the build was remembered: where its log is.
    build TEXT,
    step INTEGER
) STRICT;
INSERT INTO result VALUES (1, x'0000000000000000000000000000000000000000000000000000000000000000', x'0200000000000000', 'RUN make', 0, 1700000000000000005, 1700000000000000005, 'app', NULL, NULL);
CREATE INDEX result_by_op ON result(op_digest);
CREATE INDEX result_by_description ON result(description);
CREATE INDEX result_by_project ON result(project, description);
CREATE INDEX result_by_build ON result(build, step);
CREATE TABLE result_files (
    result INTEGER NOT NULL REFERENCES result(id) ON DELETE CASCADE,
    digest BLOB NOT NULL,
    PRIMARY KEY (result, digest)
) STRICT, WITHOUT ROWID;
INSERT INTO result_files VALUES (1, x'0303030303030303030303030303030303030303030303030303030303030303');
CREATE TABLE record (
    key BLOB PRIMARY KEY,
    result INTEGER NOT NULL REFERENCES result(id) ON DELETE CASCADE,
    trace BLOB NOT NULL
) STRICT;
INSERT INTO record VALUES (x'0101010101010101010101010101010101010101010101010101010101010101', 1, x'7472616365');
CREATE INDEX record_by_result ON record(result);
CREATE TABLE content_record (
    key BLOB PRIMARY KEY,
    result INTEGER NOT NULL REFERENCES result(id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
INSERT INTO content_record VALUES (x'0202020202020202020202020202020202020202020202020202020202020202', 1);
CREATE INDEX content_record_by_result ON content_record(result);
CREATE TABLE image (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    target_digest BLOB NOT NULL UNIQUE,
    target TEXT NOT NULL,
    config_digest BLOB,
    created INTEGER NOT NULL
) STRICT;
INSERT INTO image VALUES (1, x'f20c43161d73848408ef247f0ec7111b19fe58ffebc0cbcaa0d2c8bda4967268', '{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:f20c43161d73848408ef247f0ec7111b19fe58ffebc0cbcaa0d2c8bda4967268","size":246}', x'44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a', 1700000000);
CREATE TABLE image_snapshot (
    image INTEGER NOT NULL REFERENCES image(id) ON DELETE CASCADE,
    snapshot INTEGER NOT NULL REFERENCES snapshot(id),
    PRIMARY KEY (image, snapshot)
) STRICT, WITHOUT ROWID;
INSERT INTO image_snapshot VALUES (1, 2);
CREATE INDEX image_snapshot_by_snapshot ON image_snapshot(snapshot);
CREATE TABLE image_name (
    name TEXT PRIMARY KEY,
    image INTEGER NOT NULL REFERENCES image(id) ON DELETE CASCADE
    -- The digest of what was last pushed under the name; NULL: nothing, since it leads to this image.
    , pushed BLOB) STRICT, WITHOUT ROWID;
INSERT INTO image_name VALUES ('docker.io/library/app:latest', 1, NULL);
CREATE INDEX image_name_by_image ON image_name(image);
CREATE TABLE container (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    snapshot INTEGER REFERENCES snapshot(id),
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE mutable (
    -- Below the root of the store.
    path TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    -- The digest of what it began as; NULL: empty.
    base BLOB,
    -- What it took on disk when that was last counted.
    disk_size_bytes INTEGER NOT NULL DEFAULT 0,
    -- How often it was changed, and how often it had been when it was counted.
    changes INTEGER NOT NULL DEFAULT 1,
    changes_counted INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    last_used INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO mutable VALUES ('git/0404040404040404040404040404040404040404040404040404040404040404', 'https://example.com/app.git', NULL, 0, 1, 0, 1700000000000000006, 1700000000000000006);
CREATE INDEX mutable_uncounted ON mutable(path) WHERE changes <> changes_counted;
CREATE TABLE ledger (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- All that was ever added, in bytes.
    added_bytes INTEGER NOT NULL DEFAULT 0,
    -- What the cache took at the last count (NULL: it has to be counted), when that was, and what had been added by then.
    counted_bytes INTEGER,
    counted_at INTEGER NOT NULL DEFAULT 0,
    counted_added_bytes INTEGER NOT NULL DEFAULT 0,
    -- How often a count became void. One that began before is none.
    voided INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO ledger VALUES (1, 0, NULL, 0, 0, 0);
PRAGMA user_version = 11;
