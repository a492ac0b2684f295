"""The engines: each name with the form of data it reads and the command that answers one question in a process of its own.

Every command prints one line of JSON: `seconds` (of opening, planning and executing, not of the process), `bytes_read` and `answer`; or
`not_applicable` with the reason. `ours` and `scan-floor` are commands of this project's own program, the others are classes in a module of
this package, run by `child.py`. Such a class is made with the folder of its data, the threads it may use and the scale factor; it answers a question by
a method `answer`, and objects to having been measured, if it did not run as its name says, by a method `objection`. Of T5 it reads weekly files. For T4 it writes by a method `write` and
answers afterwards, which is not measured, from what it has written.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path

import workloads

CHILD = Path(__file__).resolve().parent.parent / "child.py"


@dataclass(frozen=True)
class Engine:
    name: str
    #: The form of its data, a key of `data.FORMS`.
    form: str
    #: The subcommand of our own program; `None` for a class of Python.
    subcommand: str | None = None
    #: Module of this package, class, and further arguments of the class.
    python: tuple = ()

    def command(self, tools, question, folder, scale_factor):
        if self.subcommand:
            options = ("--threads", str(tools.threads), "--sf", str(scale_factor))
            if question in workloads.T6:
                plays = ("--from", folder.with_name("plays-smb"), "--states", folder, "--to", target(folder))
                return [tools.ours, "listening", question, *plays, *options]
            command = {"T4": ("write", question, "--to", target(folder)), "T5": ("listening", question)}
            return [tools.ours, *command.get(question, (self.subcommand, question)), "--from", folder, *options]
        return [tools.python, CHILD, self.name, question, folder, str(tools.threads), str(scale_factor)]

    def form_of(self, question):
        """The form of the data that answers a question."""
        if question.startswith("T7-"):
            return f"skew-{question.removeprefix('T7-')}"
        if question in workloads.T6:
            return "plays-states" if self.subcommand else "plays-sums"
        if question == "T5":
            return "plays-smb" if self.subcommand else "plays"
        return "by-date" if question == "T4" else self.form

    def load(self, folder, threads, scale_factor):
        """The engine itself, in a process that has its library."""
        module, name, *arguments = self.python
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)(folder, threads, scale_factor, *arguments)


def target(folder):
    """Where an engine writes what it makes of the data in a folder; the next one begins anew."""
    return folder.with_name("written")


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("ours", "smb", subcommand="join"),
        Engine("scan-floor", "smb", subcommand="scan"),
        Engine("duckdb", "by-date", python=("duckdb", "DuckDB")),
        Engine("polars-hash", "by-date", python=("polars", "Polars", False)),
        Engine("polars-merge", "by-key", python=("polars", "Polars", True)),
        Engine("polars-sort", "by-date", python=("polars", "PolarsSort")),
        Engine("datafusion-hash", "by-date", python=("datafusion", "DataFusion", False)),
        Engine("datafusion-merge", "by-key", python=("datafusion", "DataFusion", True)),
    )
}
