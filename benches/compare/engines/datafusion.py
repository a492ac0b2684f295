"""DataFusion: SQL over Parquet files, by hash join, or by sort-merge join of files that are declared to be sorted by key."""

import datafusion

import workloads


class DataFusion:
    def __init__(self, folder, threads, scale_factor, merge):
        self.folder = folder
        self.threads = threads
        self.scale_factor = scale_factor
        self.merge = merge

    def objection(self, question):
        if question in ("T3-keys", "T5"):
            return None
        plan = str(self._frame(question).execution_plan().display_indent())
        node = "SortMergeJoin" if self.merge else "HashJoin"
        return None if node in plan else f"the plan has no {node}"

    def answer(self, question):
        [batch] = [batch for batch in self._frame(question).collect() if batch.num_rows]
        return tuple(column[0].as_py() for column in batch.columns)

    def _frame(self, question):
        config = datafusion.SessionConfig().with_target_partitions(self.threads)
        if self.merge:
            config = config.set("datafusion.optimizer.prefer_hash_join", "false")
            # Keeps the order while rows are distributed over partitions, where the default would sort again.
            config = config.set("datafusion.optimizer.prefer_existing_sort", "true")
        context = datafusion.SessionContext(config)
        if question == "T5":
            context.register_parquet("plays", str(self.folder))
            return context.sql(workloads.sql(question, self.scale_factor))
        for table, key in (("orders", "o_orderkey"), ("lineitem", "l_orderkey")):
            # The order that the join asks for; there are no nulls.
            order = [[datafusion.col(key).sort(ascending=True, nulls_first=True)]] if self.merge else None
            context.register_parquet(table, str(self.folder / f"{table}.parquet"), file_sort_order=order)
        return context.sql(workloads.sql(question, self.scale_factor))
