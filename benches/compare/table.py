"""What is printed: the machine, the versions, and results as a table in Markdown."""

import datetime
import os
from pathlib import Path

HEAD = ("workload", "engine", "seconds", "× ours", "× floor", "peak MB", "read MB", "")


def heading(versions, load):
    """What a reader must know to judge the figures."""
    lines = [
        f"{datetime.date.today().isoformat()}, {_processor()}, {len(os.sched_getaffinity(0))} processors used of "
        f"{os.cpu_count()}, {_memory_gib():.0f} GiB of memory, load {load:.2f} before the first run",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
    ]
    return "\n".join(lines)


def table(results):
    """One line per result. Memory is the process's, its interpreter and libraries included."""
    rows = [HEAD, tuple(":--" if i in (0, 1, 7) else "--:" for i in range(len(HEAD)))]
    for result in results:
        same = [other for other in results if other.workload == result.workload]
        rows.append(
            (
                result.workload.label,
                result.engine,
                "–" if result.seconds is None else f"{result.seconds:.3f}",
                _ratio(result, same, "ours"),
                _ratio(result, same, "scan-floor"),
                _megabytes(result.peak_bytes) if result.runs else "–",
                _megabytes(result.bytes_read) if result.runs and result.bytes_read is not None else "–",
                result.reason or "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    aligned = (
        (cell.ljust(width) if i in (0, 1, 7) else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths)))
        for row in rows
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in aligned)


def write_cost(workload, results, facts):
    """What writing the buckets cost, and after how many joins it has paid for itself against each engine that is slower."""
    text = f"{workload.label}: writing the buckets took {facts['seconds']:.1f} s"
    ours = next((result.seconds for result in results if result.engine == "ours"), None)
    others = [result for result in results if result.engine not in ("ours", "scan-floor") and result.seconds is not None]
    if ours is not None and others:
        slower = [other for other in others if other.seconds > ours]
        paid = (f"{-(-facts['seconds'] // (other.seconds - ours)):.0f} against {other.engine}" for other in slower)
        text += "; joins until that is paid: " + (", ".join(paid) or "never")
    return text


def written(workload, results):
    """How large what was written is, for workloads that write."""
    parts = [f"{result.engine} {result.bytes_written / 1e6:.1f} MB" for result in results if result.bytes_written]
    return [f"{workload.label}: written by " + ", ".join(parts)] if parts else []


def disturbance(workload, results):
    """How busy the machine was with other things: figures of a busy machine are not worth much."""
    parts = [part for result in results for part in result.elsewhere]
    if not parts:
        return f"{workload.label}: nothing was measured"
    mean, worst = sum(parts) / len(parts), max(parts)
    return f"{workload.label}: {mean:.0%} of the processors' time went elsewhere while it was measured, {worst:.0%} in the worst run"


def growth(results):
    """How T8 grows: lines of equal figures are linear."""
    by_engine = {}
    for result in results:
        if result.workload.label.startswith("T8") and result.seconds is not None:
            scale = result.workload.scale_factor
            by_engine.setdefault(result.engine, []).append(f"{result.seconds / scale:.3f} at {scale:g}")
    return [f"T8, {engine}: seconds per unit of scale factor " + ", ".join(parts) for engine, parts in by_engine.items()]


def _ratio(result, same, engine):
    base = next((other.seconds for other in same if other.engine == engine), None)
    return "–" if base is None or result.seconds is None else f"{result.seconds / base:.2f}"


def _megabytes(count):
    return f"{count / 1e6:.0f}"


def _processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


def _memory_gib():
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemTotal")) / (1 << 20)
