"""A stand-in for conda, mamba and micromamba: their command lines, output and exit codes, on venv and pip.

Run as a program that is called like one of them. It knows what our builder uses: `env create` of conda and
mamba, which asks nothing and does not know `--yes`, and `create` of all three, which needs it. Dependencies
named `absent-*` are in no channel, and `crash` kills the program in the middle. `run` knows every environment
but `absent`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path


def install_conda(program: Path) -> Path:
    """The stand-in under the name of a program: a script cannot name itself, so it is a link it starts."""
    program.parent.mkdir()
    link = program.with_name(f"{program.name}.py")
    link.symlink_to(Path(__file__).resolve())
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I "{link}" "$@"\n', encoding="ascii")
    program.chmod(0o755)
    return program


def main() -> int:
    micro = Path(sys.argv[0]).name.startswith("micromamba")
    arguments = sys.argv[1:]
    return run(arguments[1:], micro) if arguments[:1] == ["run"] else create(arguments, micro)


def create(arguments: list[str], micro: bool) -> int:
    """`conda create` and `conda env create`."""
    if arguments[:2] == ["env", "create"] and not micro:
        parser = argparse.ArgumentParser(prog="conda env create")
        arguments = arguments[2:]
    elif arguments[:1] == ["create"]:
        parser = argparse.ArgumentParser(prog="conda create")
        parser.add_argument("--yes", action="store_true", required=True)
        arguments = arguments[1:]
    else:
        sys.stderr.write(f"conda: error: argument COMMAND: invalid choice: {arguments[0]!r}\n")
        return 2
    parser.add_argument("--prefix", type=Path, required=True)
    parser.add_argument("--file", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.prefix.exists():
        sys.stderr.write(f"\nCondaValueError: prefix already exists: {options.prefix}\n")
        return 1
    text = options.file.read_text(encoding="utf-8")
    explicit = "@EXPLICIT" in text
    if explicit and not micro and parser.prog == "conda env create":
        sys.stderr.write("CondaFileIOError: cannot parse an explicit file here\n")
        return 1
    print("Channels:\n - conda-forge\nPlatform: linux-64\nCollecting package metadata (repodata.json): done")
    if missing := re.findall(r"^\s*-\s*(absent-\S+)", text, re.MULTILINE):
        print("Solving environment: failed\n\nResolvePackageNotFound: ")
        print("\n".join(f"  - {name}" for name in missing))
        return 1
    print("Solving environment: done\n\nDownloading and Extracting Packages: ...working... done", flush=True)
    version = re.search(r"python[=-](\d+\.\d+)", text)
    python = shutil.which(f"python{version[1]}") if version else sys.executable
    wanted = python or sys.executable
    pip = re.search(r"^\s*-\s*pip:\n((?:\s+-\s+.*\n?)+)", text, re.MULTILINE)
    venv = [wanted, "-m", "venv", str(options.prefix)]
    subprocess.run(venv if pip else [*venv, "--without-pip"], check=True)
    if "- crash" in text:
        print("Executing transaction: ...working... ", flush=True)
        os.kill(os.getpid(), 9)
    print("Preparing transaction: done\nVerifying transaction: done\nExecuting transaction: done", flush=True)
    if pip:
        named = [line.strip()[2:] for line in pip[1].splitlines()]
        (options.prefix / "requirements.txt").write_text("\n".join(named), encoding="utf-8")
        python = options.prefix / "bin" / "python"
        done = subprocess.run(
            [python, "-m", "pip", "install", "-q", "-r", options.prefix / "requirements.txt"], check=False
        )
        if done.returncode:
            print("failed\n\nCondaEnvException: Pip failed\n")
            return 1
    print("#\n# To activate this environment, use\n#")
    return 0


def run(arguments: list[str], micro: bool) -> int:
    """`conda run`: the command in the environment, which is the one that this runs in."""
    parser = argparse.ArgumentParser(prog="conda run")
    if not micro:
        parser.add_argument("--no-capture-output", action="store_true", required=True)
    parser.add_argument("--name", "-n", required=True)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    if options.name == "absent":
        sys.stderr.write("\nEnvironmentLocationNotFound: Not a conda environment: /opt/conda/envs/absent\n\n")
        return 1
    program, *rest = options.command
    # A child and not the same process: what is cancelled has to reach further than the first one.
    return subprocess.run([sys.executable if program == "python" else program, *rest], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
