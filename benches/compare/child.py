"""Answers one question by one engine in this process and prints one line of JSON: `child.py ENGINE QUESTION FOLDER THREADS SCALE_FACTOR`.

What is measured begins when the engine's library is loaded and ends with the answer.
"""

import datetime
import decimal
import json
import shutil
import sys
import time
from pathlib import Path

import engines
import workloads


def main(name, question, folder, threads, scale_factor):
    engine = engines.ENGINES[name].load(Path(folder), int(threads), float(scale_factor))
    target = engines.target(engine.folder)
    if writes := question in workloads.WRITING:
        # What another engine has left there is large, and takes time to delete.
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
    read, started = bytes_read(), time.perf_counter()
    if question == "T4":
        engine.write(target)
    else:
        values = engine.answer(question)
    seconds = time.perf_counter() - started
    read = bytes_read() - read
    written = sum(file.stat().st_size for file in target.rglob("*.parquet")) if writes else None
    if question == "T4":
        engine.folder = target
        values = engine.answer(question)
    if objection := engine.objection(question):
        return {"not_applicable": objection}
    answer = dict(zip(workloads.ANSWERS[question], map(text, values), strict=True))
    return {"seconds": seconds, "bytes_read": read, "bytes_written": written, "answer": answer}


def bytes_read():
    """What the process has read from files so far, out of the page cache or not."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


def text(value):
    """The same text for the same value from every engine."""
    match value:
        case decimal.Decimal():
            return f"{value:f}"
        case datetime.date():
            return value.isoformat()
        case int() | str():
            return str(value)
    raise TypeError(f"a value of {type(value)} has no exact text here")


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
