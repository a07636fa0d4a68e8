-- The tables of a version 5 store, as that version made them. Never changed.
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, suite TEXT NOT NULL, tier TEXT NOT NULL, fingerprint TEXT NOT NULL,
    directory TEXT NOT NULL, created TEXT NOT NULL, provenance TEXT NOT NULL
, origin TEXT) STRICT;
CREATE TABLE images (
    image_key TEXT NOT NULL, prompt_id TEXT NOT NULL, sample_index INTEGER NOT NULL,
    prompt_sha256 TEXT NOT NULL, status TEXT NOT NULL CHECK (status IN ('ok', 'failed')),
    path TEXT, sha256 TEXT, length INTEGER, seconds REAL, batch_size INTEGER, device TEXT,
    error TEXT, run_id TEXT NOT NULL REFERENCES runs(run_id), created TEXT NOT NULL, search TEXT,
    PRIMARY KEY (image_key, prompt_id, sample_index)
) STRICT, WITHOUT ROWID;
CREATE TABLE metrics (
    metric_key TEXT PRIMARY KEY, name TEXT NOT NULL, protocol TEXT NOT NULL, identity TEXT NOT NULL
) STRICT;
CREATE TABLE scores (
    metric_key TEXT NOT NULL REFERENCES metrics(metric_key), image_sha256 TEXT NOT NULL, prompt_sha256 TEXT
    NOT NULL, value REAL NOT NULL, details TEXT NOT NULL, PRIMARY KEY (metric_key, image_sha256,
    prompt_sha256)
) STRICT, WITHOUT ROWID;
CREATE TABLE features (
    feature_key TEXT NOT NULL, image_sha256 TEXT NOT NULL, path TEXT NOT NULL, row INTEGER NOT NULL,
    PRIMARY KEY (feature_key, image_sha256)
) STRICT, WITHOUT ROWID;
CREATE TABLE chunks (path TEXT PRIMARY KEY, sha256 TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE summaries (
    run_id TEXT NOT NULL REFERENCES runs(run_id), position INTEGER NOT NULL, variant TEXT NOT NULL,
    benchmark TEXT NOT NULL, metric TEXT NOT NULL, key TEXT NOT NULL, metric_key TEXT NOT NULL,
    image_key TEXT NOT NULL, protocol TEXT NOT NULL, value REAL NOT NULL, low REAL, high REAL,
    n_samples INTEGER NOT NULL, n_expected INTEGER NOT NULL, n_prompts INTEGER NOT NULL,
    unit TEXT NOT NULL, higher_is_better INTEGER NOT NULL, note TEXT NOT NULL, complete INTEGER NOT NULL,
    PRIMARY KEY (run_id, variant, benchmark, metric, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE sessions (
    session_id INTEGER PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs(run_id), started TEXT NOT NULL,
    command TEXT NOT NULL, state TEXT NOT NULL, finished TEXT,
    images_generated INTEGER NOT NULL DEFAULT 0, images_reused INTEGER NOT NULL DEFAULT 0,
    images_failed INTEGER NOT NULL DEFAULT 0, scores_computed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE events (
    session_id INTEGER NOT NULL REFERENCES sessions(session_id), created TEXT NOT NULL, kind TEXT NOT NULL,
    details TEXT NOT NULL
) STRICT;
CREATE TABLE imports (
            import_id INTEGER PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs(run_id),
            source TEXT NOT NULL, created TEXT NOT NULL, rows_added INTEGER NOT NULL,
            files_copied INTEGER NOT NULL
        ) STRICT;
CREATE INDEX images_of_run ON images (run_id);
CREATE INDEX scores_of_image ON scores (image_sha256);
CREATE INDEX sessions_of_run ON sessions (run_id);
CREATE INDEX summaries_of_metric ON summaries (metric, protocol, key);
CREATE TABLE file_hashes (
            path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
            inode INTEGER NOT NULL, sha256 TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;
CREATE TABLE sequences (
            run_id TEXT NOT NULL REFERENCES runs(run_id), sequence_key TEXT NOT NULL, look INTEGER NOT NULL,
            benchmark TEXT NOT NULL, metric TEXT NOT NULL, metric_key TEXT NOT NULL, variant TEXT NOT NULL,
            against TEXT, effect REAL, width REAL, error REAL NOT NULL, n_prompts INTEGER NOT NULL,
            n_images INTEGER NOT NULL, n_expected INTEGER NOT NULL, value REAL NOT NULL, low REAL NOT NULL,
            high REAL NOT NULL, verdict TEXT NOT NULL, tasks TEXT NOT NULL,
            PRIMARY KEY (run_id, sequence_key, look)
        ) STRICT, WITHOUT ROWID;
PRAGMA user_version = 5;
