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
    "T3-0.1": ("rows", "sum(l_extendedprice)", "max(l_comment)"),
    "T3-1": ("rows", "sum(l_extendedprice)", "max(l_comment)"),
    "T3-keys": ("rows", "sum(l_extendedprice)", "max(l_comment)"),
    "T4": ("rows", "sum(l_extendedprice)", "max(l_comment)"),
    "T5": ("rows", "sum(ms)", *(f"{value} of rank {rank})" for rank in range(1, 6) for value in ("sum(ms", "max(artist"))),
}
#: The ways to the same answer with one more week than is stored.
T6 = ("T6-read", "T6-store", "T6-tree")
ANSWERS |= {question: ANSWERS["T5"] for question in T6}

#: The part of the customers whose orders a selective join is about, in thousandths; customers are numbered from 1 to 150,000 × scale factor.
CUSTOMERS = {"T3-0.1": 1, "T3-1": 10}

#: A year of plays.
WEEKS = 52

#: What `--only` may name, with what it asks.
ABOUT = {
    "T1": "narrow join of orders and lineitem: count, sum(l_quantity), sum(o_totalprice)",
    "T2": "wide join: the maximum of each of the 25 columns",
    "T3": "T3-0.1 and T3-1: lines of the orders of 0.1 % and 1 % of the customers; T3-keys: lines of 100 orders",
    "T4": "write lineitem, which lies in order of date, in 64 buckets sorted by key; the answer is read from what was written",
    "T5": "a year of plays by user: total time, and the five artists of the most time; of all users the sum, and by rank the sum and the last artist",
    "T6": "the same with one more week than is stored: T6-read merges the year so far and the week as it reads them, T6-store stores their sum, T6-tree stores a quarter and the year",
    "T7": "skew: joins of SF × 6 million rows of which one key has 20 %, and the same without (ours only)",
    "T8": "T1 at scale factors 1, 3, 10 and 30 (--scales)",
}

#: The cases of T7: how many rows the hot key has on either side, at scale factor 10; `even` has none.
SKEWS = ("even", "5kx5k", "12Mx1", "3Mx3k")

#: Those that can join.
JOIN_ENGINES = ("ours", "scan-floor", "duckdb", "polars-hash", "polars-merge", "datafusion-hash", "datafusion-merge")

#: Those that can answer what is no join, or is asked of one engine alone.
OTHER_ENGINES = {
    "T4": ("ours", "duckdb", "polars-sort"),
    "T5": ("ours", "duckdb", "polars-hash", "datafusion-hash"),
    # Of these somebody could keep sums by hand.
    "T6-read": ("ours", "duckdb"),
    "T6-store": ("ours", "duckdb"),
    "T6-tree": ("ours",),
    **{f"T7-{case}": ("ours",) for case in SKEWS},
}

#: Questions whose answer is read from what was written for it.
WRITING = ("T4", "T6-store")

#: T8 is about how one engine grows, so that only these take part unless others are asked for.
T8_ENGINES = ("ours", "scan-floor")


def engines_of(workload):
    """The engines that take part unless others are asked for."""
    return T8_ENGINES if workload.label.startswith("T8") else _able(workload.question)


def can(workload, engine):
    """Whether an engine of this name can answer."""
    return engine in _able(workload.question)


def _able(question):
    return OTHER_ENGINES.get(question, JOIN_ENGINES)


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
        elif name == "T3":
            chosen += [Workload(label, label, scale_factor) for label in ("T3-0.1", "T3-1", "T3-keys")]
        elif name == "T6":
            chosen += [Workload(label, label, scale_factor) for label in T6]
        elif name == "T7":
            chosen += [Workload(f"T7-{case}", f"T7-{case}", scale_factor) for case in SKEWS]
        else:
            chosen.append(Workload(name, name, scale_factor))
    return chosen


def most_customer(question, scale_factor):
    """The greatest customer that a selective join asks for."""
    return round(150 * scale_factor) * CUSTOMERS[question]


def keys(scale_factor):
    """100 orders, spread over all keys: of every 32 keys TPC-H uses the first eight."""
    return [int(number * 60_000 * scale_factor) // 32 * 32 + 1 for number in range(100)]


def sql(question, scale_factor):
    """The question in SQL, over tables `orders` and `lineitem`, or `plays`. The result's columns are those of `ANSWERS`, in order."""
    if question == "T5":
        return listening(
            BY_ARTIST,
            "SELECT user_id, artist_id, ms, row_number() OVER (PARTITION BY user_id ORDER BY ms DESC, artist_id) AS rank FROM by_artist",
            "count(*) FILTER (WHERE rank = 1), sum(ms)",
            lambda rank: f"sum(ms) FILTER (WHERE rank = {rank}), max(artist_id) FILTER (WHERE rank = {rank})",
        )
    values = ("count(*)", *ANSWERS[question][1:])
    if question == "T4":
        return f"SELECT {', '.join(values)} FROM lineitem"
    if question == "T3-keys":
        return f"SELECT {', '.join(values)} FROM lineitem WHERE l_orderkey IN ({', '.join(map(str, keys(scale_factor)))})"
    where = f" WHERE o_custkey <= {most_customer(question, scale_factor)}" if question in CUSTOMERS else ""
    return f"SELECT {', '.join(values)} FROM orders JOIN lineitem ON o_orderkey = l_orderkey{where}"


#: The time of each user and artist.
BY_ARTIST = "SELECT user_id, artist_id, sum(ms_played) AS ms FROM plays GROUP BY user_id, artist_id"


def listening(by_artist, ranked, totals, of_rank):
    """T5 in SQL: times by user and artist, from which a query makes ranks, and what is selected from these."""
    values = ", ".join([totals, *map(of_rank, range(1, 6))])
    return f"WITH by_artist AS ({by_artist}), ranked AS ({ranked}) SELECT {values} FROM ranked"
