"""Measures: every run is a fresh process, engines take turns, the first round does not count."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field

import data
import workloads


class Disagreement(Exception):
    """Two engines, or two runs of one, answered the same question differently."""


@dataclass
class Result:
    """All counted runs of a workload by an engine; without runs, the reason."""

    workload: object
    engine: str
    runs: list = field(default_factory=list)
    peak_bytes: int = 0
    bytes_read: int | None = None
    bytes_written: int | None = None
    answer: dict | None = None
    reason: str | None = None
    #: By run, the part of all processor time that was spent outside the measured process: how busy the machine was with other things.
    elsewhere: list = field(default_factory=list)

    @property
    def seconds(self):
        return statistics.median(self.runs) if self.runs else None

    def as_json(self):
        return {
            "workload": self.workload.label,
            "engine": self.engine,
            "seconds": self.seconds,
            "runs": self.runs,
            "peak_rss_mb": round(self.peak_bytes / 1e6, 1) if self.runs else None,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "answer": self.answer,
            "reason": self.reason,
            "elsewhere": [round(part, 3) for part in self.elsewhere],
        }


def pin(threads):
    """Keeps this process and those it starts to as many processors as there are threads: libraries start more threads than asked for."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < threads:
        raise SystemExit(f"{threads} threads need as many processors, there are {len(processors)}")
    os.sched_setaffinity(0, processors[:threads])


def compare(tools, workload, engines, runs, timeout):
    """Results of one workload by all engines."""
    results = {engine.name: Result(workload, engine.name) for engine in engines}
    for name, result in results.items():
        if not workloads.can(workload, name):
            result.reason = "not written for this engine"
    agreed = {}
    for turn in range(runs + 1):
        for engine in engines:
            result = results[engine.name]
            if result.reason:
                continue
            folder = data.folder(workload.scale_factor, engine.form_of(workload.question))
            command = engine.command(tools, workload.question, folder, workload.scale_factor)
            _warm(folder)
            if workload.question in workloads.T6:
                _warm(folder.with_name("plays-smb"))
                _warm(folder.with_name("plays"))
            found, peak_bytes, elsewhere = _process(command, timeout)
            if "seconds" not in found:
                result.runs, result.reason = [], found["not_applicable"]
                print(f"{workload.label} {engine.name}: {result.reason}", file=sys.stderr)
                continue
            _agree(agreed, found["answer"], workload, engine)
            result.answer = found["answer"]
            counted = "" if turn else ", not counted"
            print(f"{workload.label} {engine.name}: {found['seconds']:.3f} s{counted}", file=sys.stderr)
            if turn:
                result.runs.append(found["seconds"])
                result.elsewhere.append(elsewhere)
                result.peak_bytes = max(result.peak_bytes, peak_bytes)
                result.bytes_read = found["bytes_read"]
                result.bytes_written = found.get("bytes_written")
    return list(results.values())


def _warm(folder):
    """Reads every file, so that none has to come from the disk: some systems give up cached files that were not read for a while."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("rb", buffering=0) as content:
                while content.read(1 << 22):
                    pass


def _agree(agreed, answer, workload, engine):
    """Compares each value with what engines said before; an engine may leave out some, and have some that only it knows."""
    for name, value in answer.items():
        before, by = agreed.setdefault(name, (value, engine.name))
        if value != before:
            raise Disagreement(f"{workload.label}, {name}: {engine.name} says {value}, {by} said {before}")


def _process(command, timeout):
    """What the process printed, the highest resident memory it had, in bytes, and the part of all processor time spent elsewhere."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    busy, total = _processor_time()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True)
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        with process.stdout:
            output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        in_time = timer.is_alive()
        timer.cancel()
        busy_now, total_now = _processor_time()
        other = busy_now - busy - usage.ru_utime - usage.ru_stime
        elsewhere = max(0.0, other / max(total_now - total, 0.01))
        if process.returncode == 0:
            return json.loads(output), usage.ru_maxrss * 1024, elsewhere
        errors.seek(0)
        last = ([line.strip() for line in errors if line.strip()] or ["no message"])[-1]
        reason = f"failed with status {process.returncode}: {last}" if in_time else f"not done after {timeout:g} s"
        return {"not_applicable": reason}, usage.ru_maxrss * 1024, elsewhere


def _processor_time():
    """Seconds that all processors have been busy since the system started, and in all."""
    with open("/proc/stat") as stat:
        user, nice, system, idle, waiting, *interrupts = (int(ticks) for ticks in stat.readline().split()[1:8])
    busy = user + nice + system + sum(interrupts)
    ticks = os.sysconf("SC_CLK_TCK")
    return busy / ticks, (busy + idle + waiting) / ticks
