"""DuckDB: SQL over Parquet files. It has no merge join for equal keys, and joins by hash."""

import duckdb

import engines
import workloads

#: The codec of all files.
LIKE_OURS = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3"


def top_five(by_artist):
    """T5 by an aggregate of its own, which is faster than a window. Of artists with equal times it may take any."""
    return workloads.listening(
        by_artist,
        "SELECT user_id, sum(ms) AS ms, max_by((artist_id, ms), ms, 5) AS top FROM by_artist GROUP BY user_id",
        "count(*), sum(ms)",
        lambda rank: f"sum(top[{rank}][2]), max(top[{rank}][1])",
    )


class DuckDB:
    def __init__(self, folder, threads, scale_factor):
        self.folder = folder
        self.threads = threads
        self.scale_factor = scale_factor

    def answer(self, question):
        with duckdb.connect(config={"threads": self.threads}) as connection:
            for table in ("orders", "lineitem"):
                if (self.folder / f"{table}.parquet").exists():
                    connection.execute(f"CREATE VIEW {table} AS FROM '{self.folder / table}.parquet'")
            if question == "T5":
                connection.execute(f"CREATE VIEW plays AS FROM '{self.folder}/*.parquet'")
                return connection.execute(top_five(workloads.BY_ARTIST)).fetchone()
            if question in workloads.T6:
                return self._with_last_week(connection, question)
            return connection.execute(workloads.sql(question, self.scale_factor)).fetchone()

    def _with_last_week(self, connection, question):
        """Sums that somebody keeps by hand: those so far and the last week's plays, added up."""
        plays = self.folder.with_name("plays") / f"week-{workloads.WEEKS:02}.parquet"
        both = f"SELECT * FROM '{self.folder}/*.parquet' UNION ALL SELECT user_id, artist_id, ms_played FROM '{plays}'"
        by_artist = f"SELECT user_id, artist_id, sum(ms)::BIGINT AS ms FROM ({both}) GROUP BY user_id, artist_id"
        if question == "T6-store":
            target = engines.target(self.folder)
            connection.execute(f"COPY ({by_artist}) TO '{target}/sums.parquet' ({LIKE_OURS})")
            by_artist = f"FROM '{target}/*.parquet'"
        return connection.execute(top_five(by_artist)).fetchone()

    def write(self, target):
        """One file, ordered by bucket and key: DuckDB has all memory it asks for."""
        _copy(self.folder / "lineitem.parquet", target / "lineitem.parquet", "hash(l_orderkey) % 64, l_orderkey", self.threads)

    def objection(self, question):
        return None


def order(source, target, column):
    """Writes a Parquet file with its rows ordered by a column."""
    _copy(source, target, column)


def store_sums(plays, target):
    """The sums of all weeks but the last."""
    weeks = [f"{plays}/week-{week:02}.parquet" for week in range(1, workloads.WEEKS)]
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW plays AS FROM read_parquet({weeks})")
        connection.execute(f"COPY (SELECT * REPLACE (ms::BIGINT AS ms) FROM ({workloads.BY_ARTIST})) TO '{target}' ({LIKE_OURS})")


def _copy(source, target, order, threads=None):
    config = {"temp_directory": str(target.parent / "spill")} | ({"threads": threads} if threads else {})
    with duckdb.connect(config=config) as connection:
        connection.execute(
            f"COPY (FROM '{source}' ORDER BY {order}) TO '{target}' ({LIKE_OURS})"
        )
