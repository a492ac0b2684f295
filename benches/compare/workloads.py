"""The workloads: what is asked, of how much data, and how engines that speak SQL are asked.

A question has a name (`T1`). A workload asks it at one scale factor, under a label of its own: the label is the question's name where the
scale factor is the command line's, and `T8-3` for T1 at scale factor 3.
"""

from dataclasses import dataclass

ORDERS = (
    "o_orderkey", "o_custkey", "o_orderstatus", "o_totalprice", "o_orderdate",
    "o_orderpriority", "o_clerk", "o_shippriority", "o_comment",
)  # fmt: skip
LINEITEM = (
    "l_orderkey", "l_partkey", "l_suppkey", "l_linenumber", "l_quantity", "l_extendedprice", "l_discount", "l_tax",
    "l_returnflag", "l_linestatus", "l_shipdate", "l_commitdate", "l_receiptdate", "l_shipinstruct", "l_shipmode", "l_comment",
)  # fmt: skip

#: The names of the values that answer a question. The floor, which joins nothing, answers a part of them.
ANSWERS = {
    "T1": ("rows", "sum(l_quantity)", "sum(o_totalprice)"),
    "T2": ("rows", *(f"max({column})" for column in ORDERS + LINEITEM)),
}

#: What `--only` may name, with what it asks.
ABOUT = {
    "T1": "narrow join of orders and lineitem: count, sum(l_quantity), sum(o_totalprice)",
    "T2": "wide join: the maximum of each of the 25 columns",
    "T8": "T1 at scale factors 1, 3, 10 and 30 (--scales)",
}

#: T8 is about how one engine grows, so that only these take part unless others are asked for.
T8_ENGINES = ("ours", "scan-floor")


@dataclass(frozen=True)
class Workload:
    label: str
    question: str
    scale_factor: float


def select(names, scale_factor, scales):
    """The workloads that the names stand for."""
    chosen = []
    for name in names:
        if name == "T8":
            chosen += [Workload(f"T8-{scale:g}", "T1", scale) for scale in scales]
        else:
            chosen.append(Workload(name, name, scale_factor))
    return chosen


def sql(question):
    """The question in SQL, over tables `orders` and `lineitem`. The result's columns are those of `ANSWERS`, in order."""
    values = ("count(*)", *ANSWERS[question][1:])
    return f"SELECT {', '.join(values)} FROM orders JOIN lineitem ON o_orderkey = l_orderkey"
