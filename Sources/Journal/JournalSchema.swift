import GRDB
import Protocol

/// The tables of a journal. A version that needs others adds a migration; those that have been released stay as they are.
enum JournalSchema {
    static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1") { database in
            try database.execute(
                sql: """
                    CREATE TABLE incarnation (
                        number INTEGER PRIMARY KEY,
                        startedAt REAL NOT NULL,
                        build TEXT NOT NULL
                    ) STRICT;
                    -- status is NULL until the job has ended.
                    CREATE TABLE job (
                        number INTEGER PRIMARY KEY AUTOINCREMENT,
                        id TEXT NOT NULL UNIQUE,
                        key TEXT NOT NULL,
                        output TEXT NOT NULL,
                        submittedAt REAL NOT NULL,
                        submission BLOB NOT NULL,
                        status BLOB
                    ) STRICT;
                    CREATE TABLE plan (
                        job INTEGER NOT NULL REFERENCES job (number) ON DELETE CASCADE,
                        stage INTEGER NOT NULL,
                        digest BLOB NOT NULL,
                        method TEXT NOT NULL,
                        shardCount INTEGER NOT NULL,
                        bytesInput INTEGER NOT NULL,
                        bytesOutput INTEGER NOT NULL,
                        pinnedFiles BLOB NOT NULL,
                        PRIMARY KEY (job, stage)
                    ) STRICT;
                    CREATE TABLE shard (
                        job INTEGER NOT NULL REFERENCES job (number) ON DELETE CASCADE,
                        number INTEGER NOT NULL,
                        incarnation INTEGER NOT NULL,
                        epoch INTEGER NOT NULL,
                        worker TEXT NOT NULL,
                        delivery TEXT NOT NULL,
                        result BLOB NOT NULL,
                        PRIMARY KEY (job, number)
                    ) STRICT;
                    """)
        }
        migrator.registerMigration("2") { database in
            try database.execute(
                sql: "ALTER TABLE job ADD COLUMN owner TEXT NOT NULL DEFAULT '\(PeerIdentity.unknownOwner)'")
        }
        // A plan's pinned files have samples of their contents. No table changes; versions that know none refuse the journal.
        migrator.registerMigration("samples") { _ in }
        // When the attempt of a shard ran, in milliseconds; NULL where nobody knows.
        migrator.registerMigration("times") { database in
            try database.execute(sql: "ALTER TABLE shard ADD COLUMN begun INTEGER; ALTER TABLE shard ADD COLUMN lasted INTEGER")
        }
        return migrator
    }
}
