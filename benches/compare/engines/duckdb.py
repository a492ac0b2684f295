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
                if (self.folder / f"{table}.parquet").exists():
                    connection.execute(f"CREATE VIEW {table} AS FROM '{self.folder / table}.parquet'")
            return connection.execute(workloads.sql(question, self.scale_factor)).fetchone()

    def write(self, target):
        """One file, ordered by bucket and key: DuckDB has all memory it asks for."""
        _copy(self.folder / "lineitem.parquet", target / "lineitem.parquet", "hash(l_orderkey) % 64, l_orderkey", self.threads)

    def objection(self, question):
        return None


def order(source, target, column):
    """Writes a Parquet file with its rows ordered by a column."""
    _copy(source, target, column)


def _copy(source, target, order, threads=None):
    config = {"temp_directory": str(target.parent / "spill")} | ({"threads": threads} if threads else {})
    with duckdb.connect(config=config) as connection:
        connection.execute(
            f"COPY (FROM '{source}' ORDER BY {order}) TO '{target}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3)"
        )
