"""The data: TPC-H orders and lineitem in three forms, and plays, each prepared once, all compressed by zstd at level 3.

`by-key`        as generated: two Parquet files, ordered by order key; for engines that can make use of it
`by-date`       two Parquet files, orders ordered by `o_orderdate`, lineitem by `l_shipdate`: as event data is found
`smb`           two datasets of 64 buckets, written from `by-date`
`plays`         52 Parquet files, the plays of a week in order of time
`plays-smb`     52 datasets of 16 buckets by user, written from `plays`
`plays-states`  the states of 51 weeks, of their quarters and of their year, computed from `plays-smb`
`plays-sums`    the sums of 51 weeks by user and artist in one Parquet file, for engines that have no states
`skew-…`        two datasets of 64 buckets of which one key has many rows, or none, made from nothing

A form is complete when there is a file `FORM.json` beside its folder, written last, which says how many bytes it has and how long
its writing took. Run as a program with a source, a target and a column, this module orders a Parquet file, without a column it sums plays (see `engines/duckdb.py`).
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import tools as where
import workloads

DATE = {"orders": "o_orderdate", "lineitem": "l_shipdate"}


def folder(scale_factor, form):
    return where.TARGET / f"sf-{scale_factor:g}" / form


def facts(scale_factor, form):
    """What is known of a form that is complete, else `None`."""
    file = _marker(folder(scale_factor, form))
    return json.loads(file.read_text()) if file.exists() else None


def prepare(tools, scale_factor, form):
    """Makes a form, and those it is made from, unless they are there."""
    if facts(scale_factor, form):
        return
    source_form, make = FORMS[form]
    if source_form:
        prepare(tools, scale_factor, source_form)
    target = folder(scale_factor, form)
    print(f"preparing {form} at scale factor {scale_factor:g}", file=sys.stderr)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    started = time.perf_counter()
    make(tools, scale_factor, source_form and folder(scale_factor, source_form), target)
    found = {
        "seconds": round(time.perf_counter() - started, 3),
        "bytes": sum(file.stat().st_size for file in target.rglob("*") if file.is_file()),
    }
    _marker(target).write_text(json.dumps(found) + "\n")


def discard(scale_factor, form):
    """Makes sure that a form is prepared again; forms that were made from it are left as they are."""
    _marker(folder(scale_factor, form)).unlink(missing_ok=True)


def _marker(target):
    return target.with_name(target.name + ".json")


def _generate(tools, scale_factor, source, target):
    _run(tools.ours, "generate", "--sf", str(scale_factor), "--to", target)


def _order(tools, scale_factor, source, target):
    for table, column in DATE.items():
        _run(tools.python, Path(__file__), source / f"{table}.parquet", target / f"{table}.parquet", column)


def _bucket(tools, scale_factor, source, target):
    _run(tools.ours, "bucket", "--from", source, "--to", target, "--threads", str(tools.threads))


def _plays(tools, scale_factor, source, target):
    users = str(round(2000 * scale_factor))
    _run(tools.ours, "plays", "--users", users, "--weeks", str(workloads.WEEKS), "--weekly", "--to", target)


def _bucket_plays(tools, scale_factor, source, target):
    tables = (part for week in range(1, workloads.WEEKS + 1) for part in ("--table", f"week-{week:02}=user_id,played_at"))
    _run(tools.ours, "bucket", "--from", source, "--to", target, "--buckets", "16", "--threads", str(tools.threads), *tables)


def _sum_plays(tools, scale_factor, source, target):
    _run(tools.python, Path(__file__), source, target / "sums.parquet")


def _store_states(tools, scale_factor, source, target):
    _run(tools.ours, "listening", "states", "--from", source, "--to", target, "--threads", str(tools.threads))


def _skew(case):
    def make(tools, scale_factor, source, target):
        _run(tools.ours, "skew", case, "--sf", str(scale_factor), "--to", target, "--threads", str(tools.threads))

    return make


def _run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


#: Each form with the one it is made from, and how.
FORMS = {"by-key": (None, _generate), "by-date": ("by-key", _order), "smb": ("by-date", _bucket)}
FORMS |= {"plays": (None, _plays), "plays-smb": ("plays", _bucket_plays), "plays-states": ("plays-smb", _store_states)}
FORMS["plays-sums"] = ("plays", _sum_plays)
FORMS |= {f"skew-{case}": (None, _skew(case)) for case in workloads.SKEWS}

if __name__ == "__main__":
    from engines import duckdb

    source, target, *column = sys.argv[1:]
    if column:
        duckdb.order(Path(source), Path(target), *column)
    else:
        duckdb.store_sums(Path(source), Path(target))
