"""The tools of a comparison: a virtual environment with the other engines, and this project's own program in release mode."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "target" / "compare"


@dataclass(frozen=True)
class Tools:
    #: The interpreter that has the other engines.
    python: Path
    #: Our own program.
    ours: Path
    threads: int


def ready(threads):
    """Installs and builds what is not there yet."""
    return Tools(python=_environment(), ours=_build(), threads=threads)


def versions():
    """The versions of everything that is measured, by name."""
    pinned = (line.strip().split("==") for line in _requirements().splitlines() if "==" in line)
    found = {name: version for name, version in pinned if name in ("duckdb", "polars", "datafusion")}
    found["rustc"] = _output("rustc", "--version").split()[1]
    found["sort-merge-bucket"] = _output("git", "describe", "--always", "--dirty", cwd=ROOT)
    return found


def _environment():
    folder = TARGET / "venv"
    python = folder / "bin" / "python"
    installed = folder / "installed.txt"
    if not installed.exists() or installed.read_text() != _requirements():
        print("installing the other engines", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        requirements = HERE / "requirements.txt"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", requirements], check=True)
        installed.write_text(_requirements())
    return python


def _build():
    target = TARGET / "ours-target"
    environment = {key: value for key, value in os.environ.items() if key != "CARGO_TARGET_DIR"}
    manifest = HERE / "ours" / "Cargo.toml"
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", manifest, "--target-dir", target]
    print("building ours in release mode", file=sys.stderr)
    subprocess.run(command, check=True, env=environment)
    return target / "release" / "compare-ours"


def _requirements():
    return (HERE / "requirements.txt").read_text()


def _output(*command, cwd=None):
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout.strip()
