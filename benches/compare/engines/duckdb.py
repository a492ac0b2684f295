"""DuckDB: SQL over Parquet files. It has no merge join for equal keys, and joins by hash."""

import duckdb

import workloads


class DuckDB:
    def __init__(self, folder, threads, scale_factor):
        self.folder = folder
        self.threads = threads
        self.scale_factor = scale_factor

    def answer(self, question):
        with duckdb.connect(config={"threads": self.threads}) as connection:
            for table in ("orders", "lineitem"):
                connection.execute(f"CREATE VIEW {table} AS FROM '{self.folder / table}.parquet'")
            return connection.execute(workloads.sql(question, self.scale_factor)).fetchone()

    def objection(self, question):
        return None


def order(source, target, column):
    """Writes a Parquet file with its rows ordered by a column."""
    with duckdb.connect(config={"temp_directory": str(target.parent / "spill")}) as connection:
        connection.execute(
            f"COPY (FROM '{source}' ORDER BY {column}) TO '{target}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3)"
        )
