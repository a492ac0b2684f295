"""Polars' streaming engine: its hash join, and its merge join of files that are known to be sorted by key."""

import os

import workloads


class Polars:
    def __init__(self, folder, threads, scale_factor, merge):
        # Read when the library is loaded.
        os.environ["POLARS_MAX_THREADS"] = str(threads)
        import polars

        self.polars = polars
        self.folder = folder
        self.scale_factor = scale_factor
        self.merge = merge

    def answer(self, question):
        return self._query(question).collect(engine="streaming").row(0)

    def objection(self, question):
        if question in ("T3-keys", "T4", "T5"):
            return None
        plan = self._query(question).show_graph(engine="streaming", plan_stage="physical", raw_output=True)
        node = "merge-join" if self.merge else "equi-join"
        return None if node in plan else f"the plan has no {node}"

    def _listening(self):
        polars, ms = self.polars, self.polars.col("ms")
        plays = polars.scan_parquet(self.folder / "*.parquet")
        by_artist = plays.group_by("user_id", "artist_id").agg(ms=polars.col("ms_played").sum())
        # Of artists with equal times any may come first.
        rank = ms.rank("ordinal", descending=True).over("user_id")
        ranked = by_artist.with_columns(rank=rank)
        values = [(polars.col("rank") == 1).sum().alias("rows"), ms.sum().alias("sum(ms)")]
        for number in range(1, 6):
            of_rank = polars.col("rank") == number
            values.append(ms.filter(of_rank).sum().alias(f"sum(ms of rank {number})"))
            values.append(polars.col("artist_id").filter(of_rank).max().alias(f"max(artist of rank {number})"))
        return ranked.select(values)

    def _query(self, question):
        if question == "T5":
            return self._listening()
        orders, lineitem = self._scan("orders", "o_orderkey"), self._scan("lineitem", "l_orderkey")
        if question in workloads.CUSTOMERS:
            most = workloads.most_customer(question, self.scale_factor)
            orders = orders.filter(self.polars.col("o_custkey") <= most)
        if question == "T3-keys":
            rows = lineitem.filter(self.polars.col("l_orderkey").is_in(workloads.keys(self.scale_factor)))
        else:
            rows = orders.join(lineitem, left_on="o_orderkey", right_on="l_orderkey", how="inner")
        return rows.select(self._value(name) for name in workloads.ANSWERS[question])

    def _scan(self, table, key):
        rows = self.polars.scan_parquet(self.folder / f"{table}.parquet")
        return rows.set_sorted(key) if self.merge else rows

    def _value(self, name):
        """The expression of a value such as `sum(l_quantity)`."""
        if name == "rows":
            return self.polars.len().alias(name)
        reduction, column = name.rstrip(")").split("(")
        # A join has the key once, under the left side's name.
        column = self.polars.col("o_orderkey" if column == "l_orderkey" else column)
        return getattr(column, reduction)().alias(name)


class PolarsSort(Polars):
    """Writes a table in an order, streaming where the engine can."""

    def __init__(self, folder, threads, scale_factor):
        super().__init__(folder, threads, scale_factor, merge=False)

    def write(self, target):
        key = self.polars.col("l_orderkey")
        rows = self._scan("lineitem", "l_orderkey").sort(key.hash() % 64, key)
        rows.sink_parquet(target / "lineitem.parquet", compression="zstd", compression_level=3, engine="streaming")

    def answer(self, question):
        values = (self._value(name) for name in workloads.ANSWERS[question])
        return self._scan("lineitem", "l_orderkey").select(values).collect(engine="streaming").row(0)
