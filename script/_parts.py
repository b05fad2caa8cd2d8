# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of script/test: which there are, how each is run and counted.

A part is a program whose exit status counts as one test, or one that writes JUnit files, whose cases count.
Called by script/test, inside the virtual environment that script/bootstrap made.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(os.environ["ROOT"])
CACHE = Path(os.environ["CACHE"])
VENV = Path(os.environ["VENV"])
OLDEST = Path(os.environ["VENV_OLDEST"])
LOGS = CACHE / "logs"
NAME = Path("ansible_collections/postmeister/host")
# What ansible-test would fetch from the internet to put pip into its virtual environments, by version of ansible-core.
PIP_SHIMS = ("24_2", "25_2", "25_3", "26_0")
NO_TESTS = 5  # pytest's exit status
# Tests that failed are tried once more where they are in few parts, and the run is not long yet (seconds).
FEW, STILL_TIME = 3, 4000

# Parts whose tests have hosts of one Debian release each; those of the others have hosts of both.
BY_RELEASE = ("directory", "kill", "tls", "rspamd", "postfix", "dns")

# Parts with containers wait for their daemons half of the time.
LANES = 3
# By length, so that no lane is left with a long one; what is not named here comes first.
ORDER = [
    *("lab", "wordpress", "kill", "backup", "restore", "bans", "mdraid"),
    *("rspamd", "directory", "alone", "tls", "greylist", "postfix", "dns"),
]

# Files of a folder that have hosts of their own, as parts of their own.
APART = {"alone": ROOT / "tests/lab/test_alone.py"}


@dataclass
class Outcome:
    """Counts of one part, and what is known of its failed tests."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    unsteady: list[str] = field(default_factory=list)  # failed, and passed when they were tried again


@dataclass
class Part:
    """One line of the table at the end."""

    name: str
    run: Callable[[Part], Outcome]
    quick: bool = False
    containers: bool = False
    needs: Path | None = None  # without it the part is not there yet, or cannot be
    again: Callable[[Part], Outcome] | None = None  # only what failed; the counts of the whole part
    seconds: float = 0.0
    outcome: Outcome = field(default_factory=Outcome)
    done: bool = False

    @property
    def log(self) -> Path:
        """Where the part's output goes."""
        return LOGS / f"{self.name}.log"


# --- the table ----------------------------------------------------------------------------------------------------


def parts() -> list[Part]:
    """All parts. Those with containers come last, the lab's hosts before all of them."""
    return [
        Part("units-newest", ansible_test("newest", "units"), quick=True),
        # pylint alone takes longer than all others, and ruff is there as well.
        Part("sanity-newest", ansible_test("newest", "sanity", "--skip-test=pylint"), quick=True),
        Part("ansible-lint", ansible_lint, quick=True),
        Part("artifact", artifact, quick=True),
        Part("mypy-plugins", in_tree("mypy", "--config-file", f"{NAME}/mypy.ini", f"{NAME}/plugins"), quick=True),
        Part("mypy-lab", mypy_lab, quick=True),
        Part("yamllint", in_checkout("yamllint", "--strict", "."), quick=True),
        Part("ruff", in_checkout("ruff", "check", "--no-cache", "."), quick=True),
        Part("shellcheck", shellcheck, quick=True, needs=Path("/usr/bin/shellcheck")),
        Part("pylint-newest", ansible_test("newest", "sanity", "--test=pylint")),
        Part("units-oldest", ansible_test("oldest", "units"), needs=OLDEST / "bin/ansible-test"),
        Part("sanity-oldest", ansible_test("oldest", "sanity"), needs=OLDEST / "bin/ansible-test"),
        Part("lab-up", in_checkout(str(ROOT / "script/lab"), "up"), containers=True),
        *pytest_parts(),
    ]


def pytest_parts() -> list[Part]:
    """Each folder of tests/ whose pytest files need containers, and what stands apart."""
    names = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")} - {"unit"} | APART.keys()
    ordered = sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else -1, name))
    return [Part(name, run_pytest, containers=True, again=try_again) for name in ordered]


# --- ways to run --------------------------------------------------------------------------------------------------


def call(part: Part, argv: list[str], cwd: Path, env: dict[str, str] | None = None) -> int:
    """Run a program, its output appended to the part's log; returns its exit status."""
    if not part.containers:
        # It needs no wait of anybody's, and takes what the daemons beside it leave of the processors.
        argv = ["nice", "-n", "15", *argv]
    with part.log.open("a") as log:
        log.write(f"$ {' '.join(argv)}\n")
        log.flush()
        environment = {**os.environ, **(env or {})}
        return subprocess.run(
            argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False
        ).returncode


def one(status: int) -> Outcome:
    """A program's exit status as one test."""
    return Outcome(passed=int(status == 0), failed=int(status != 0))


def junit(folder: Path) -> Outcome:
    """The cases of all JUnit files in a folder."""
    total = Outcome()
    for path in sorted(folder.glob("*.xml")):
        for case in ET.parse(path).getroot().iter("testcase"):  # noqa: S314 (files that our own tests wrote)
            kinds = {child.tag: child for child in case}
            if kinds.keys() & {"failure", "error"}:
                total.failed += 1
                words = next(kinds[kind] for kind in ("failure", "error") if kind in kinds).get("message", "")
                total.failures[f"{case.get('classname')}::{case.get('name')}"] = words
            elif "skipped" in kinds:
                total.skipped += 1
            else:
                total.passed += 1
    return total


def in_checkout(*argv: str) -> Callable[[Part], Outcome]:
    """A program in the checkout, one test."""
    return lambda part: one(call(part, list(argv), ROOT))


def in_tree(*argv: str) -> Callable[[Part], Outcome]:
    """A program beside the folder ansible_collections that has a copy of the checkout."""
    return lambda part: one(call(part, list(argv), tree("newest").parents[2], {"PYTHONPATH": ""}))


def mypy_lab(part: Part) -> Outcome:
    """Types of the lab's and the scripts' own Python, which runs on controllers only."""
    options = ["mypy", f"--config-file={ROOT}/mypy.ini", "--python-version=3.11", f"--cache-dir={CACHE}/mypy-lab"]
    status = call(part, [*options, "-p", "pmlab"], ROOT / "molecule/lab", {"MYPYPATH": str(ROOT / "molecule/lab")})
    return one(status | call(part, [*options, "script/_parts.py", "script/_demo.py"], ROOT))


def shellcheck(part: Part) -> Outcome:
    """All shell scripts."""
    scripts = [str(path) for path in files() if first_line(path).startswith(("#!/usr/bin/env bash", "#!/bin/sh"))]
    plain = [path for path in scripts if not path.endswith(".j2")]
    return one(call(part, ["shellcheck", "--external-sources", *plain], ROOT))


def first_line(path: Path) -> str:
    """First line of a file of the checkout, or nothing for one that is not text."""
    try:
        with (ROOT / path).open() as file:
            return file.readline()
    except (UnicodeDecodeError, OSError):
        return ""


def ansible_lint(part: Part) -> Outcome:
    """Profile production, with an ANSIBLE_HOME of its own: it installs a copy of the collection there."""
    home = CACHE / "lint-home"
    shutil.rmtree(home, ignore_errors=True)
    env = {"ANSIBLE_HOME": str(home), "HOME": str(home), "ANSIBLE_COLLECTIONS_PATH": str(tree("newest").parents[2])}
    return one(call(part, ["ansible-lint", "--offline", "--profile=production", "--strict"], tree("newest"), env))


def artifact(part: Part) -> Outcome:
    """The artifact that a user installs: it builds, holds no tests, lab or scripts, and Galaxy would import it."""
    folder = CACHE / "artifact"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    argv = ["ansible-galaxy", "collection", "build", "--force", f"--output-path={folder}"]
    total = one(call(part, argv, tree("newest")))
    built = sorted(folder.glob("postmeister-host-*.tar.gz"))
    if not built:
        return total
    names = subprocess.run(["tar", "-tzf", str(built[0])], capture_output=True, text=True, check=True).stdout.split()
    stray = [name for name in names if name.split("/")[0] in ("tests", "molecule", "script") or name.startswith(".")]
    with part.log.open("a") as log:
        log.write("".join(f"stray in the artifact: {name}\n" for name in stray))
    config = folder / "galaxy-importer.cfg"
    # Parts of their own
    own = "".join(f"RUN_{name} = False\n" for name in ("ANSIBLE_TEST", "ANSIBLE_LINT", "FLAKE8"))
    config.write_text(f"[galaxy-importer]\n{own}CHECK_REQUIRED_TAGS = True\n")
    env = {"GALAXY_IMPORTER_CONFIG": str(config), "HOME": str(folder), "ANSIBLE_HOME": str(folder / "ansible")}
    imported = call(part, [sys.executable, "-m", "galaxy_importer.main", built[0].name], folder, env)
    total.passed += int(not stray) + int(imported == 0)
    total.failed += int(bool(stray)) + int(imported != 0)
    return total


def ansible_test(which: str, what: str, *options: str) -> Callable[[Part], Outcome]:
    """ansible-test sanity or units, on the oldest or the newest ansible-core."""

    def run(part: Part) -> Outcome:
        # Places of their own, so that two of them can run at once.
        top, venv = tree(part.name), OLDEST if which == "oldest" else VENV
        home = CACHE / f"home-{part.name}"
        copy_checkout(top)
        shims = home / ".ansible/test/cache"
        shims.mkdir(parents=True, exist_ok=True)
        for version in PIP_SHIMS:
            (shims / f"get_pip_{version}.py").write_text("import ensurepip\nensurepip.bootstrap()\n")
        # Dead pyenv shims would be taken for Pythons.
        path = [entry for entry in os.environ["PATH"].split(":") if not entry.endswith(("/shims", str(VENV / "bin")))]
        env = {
            "HOME": str(home),
            "PATH": ":".join([f"{CACHE}/pythons", f"{venv}/bin", *path]),
            "PYTHONPATH": "",
            "ANSIBLE_COLLECTIONS_PATH": str(top.parents[2]),
        }
        results = top / "tests/output/junit"
        shutil.rmtree(results, ignore_errors=True)
        argv = [str(venv / "bin/ansible-test"), what, "--venv", "--color=no", *options]
        if what == "sanity":
            argv.append("--junit")
        else:
            argv.append(f"--python={python_version(venv)}")
        status = call(part, argv, top, env)
        outcome = junit(results)
        if status != 0 and outcome.failed == 0:
            outcome.failed = 1
        return outcome

    return run


def python_version(venv: Path) -> str:
    """Version of a virtual environment's Python, like 3.13."""
    argv = [str(venv / "bin/python"), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def run_pytest(part: Part) -> Outcome:
    """The part's folder of tests by pytest, in this process' virtual environment; its cases count.

    Where each test has hosts of one Debian release only, those of one run beside those of the other.
    """
    results = CACHE / "junit" / part.name
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    if part.name not in BY_RELEASE:
        statuses = {part.name: pytest_in(part, part.name, results)}
    else:
        halves = {f"{part.name}-{release}": release for release in (13, 12)}

        def half(name: str) -> int:
            return pytest_in(part, name, results, "-p", "pmlab.releases", f"--release={halves[name]}")

        with ThreadPoolExecutor(len(halves)) as pool:
            # A folder may have no tests of one release. What failed comes last, where it is shown.
            codes = pool.map(half, halves)
            statuses = {name: 0 if code == NO_TESTS else code for name, code in zip(halves, codes)}
        logs = [(LOGS / f"{name}.log").read_text() for name in sorted(statuses, key=lambda name: statuses[name] != 0)]
        part.log.write_text("\n".join(logs))
    outcome = junit(results)
    if any(statuses.values()) and outcome.failed == 0:
        outcome.failed = 1
    return outcome


def pytest_in(part: Part, name: str, results: Path, *options: str, turn: str = "") -> int:
    """One pytest of a part, with a log and a file of results of its own; its exit status."""
    tests, collections = APART.get(part.name, ROOT / "tests" / part.name), CACHE / "collections"
    ignored = [f"--ignore={path}" for path in APART.values() if path.parent == tests]
    own = replace(part, name=f"{name}{turn}")
    own.log.write_text("")
    argv = [sys.executable, "-m", "pytest", "-c", "/dev/null", f"--rootdir={ROOT}", "--import-mode=importlib"]
    argv += ["-o", f"cache_dir={CACHE}/pytest/{name}", f"--junitxml={results}/{name}.xml", "-ra", "-v"]
    argv.append("--durations=40")
    paths = f"{collections}:{ROOT}/molecule/lab:{tests.parent if tests.is_file() else tests}"
    env = {"PYTHONPATH": paths, "ANSIBLE_COLLECTIONS_PATH": str(collections)}
    return call(own, [*argv, *options, *ignored, str(tests)], ROOT, env)


def try_again(part: Part) -> Outcome:
    """What failed beside another part, once more on a quiet machine; the counts of the whole part."""
    before, results = part.outcome, CACHE / "junit" / f"{part.name}-again"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    for path in sorted((CACHE / "junit" / part.name).glob("*.xml")):
        options = ["--last-failed", "--last-failed-no-failures=none"]
        if part.name in BY_RELEASE:
            options += ["-p", "pmlab.releases", f"--release={path.stem.removeprefix(f'{part.name}-')}"]
        pytest_in(part, path.stem, results, *options, turn="-again")
    found = junit(results)
    # Fewer than before were run: it never came to the others, and no result is no good one.
    missing = before.failed - found.passed - found.failed - found.skipped
    return Outcome(
        before.passed + found.passed,
        found.failed + max(missing, 0),
        before.skipped + found.skipped,
        found.failures,
        [name for name in before.failures if name not in found.failures] if missing <= 0 else [],
    )


# --- copies of the checkout ---------------------------------------------------------------------------------------

_guard = threading.Lock()


def files() -> list[Path]:
    """The checkout's files: what git knows, and what it would take."""
    argv = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    shown = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted({Path(name) for name in shown.split("\0") if name and os.path.lexists(ROOT / name)})


def tree(which: str) -> Path:
    """A place that ansible-test understands: tests write there, and the checkout may lie anywhere."""
    return CACHE / "trees" / which / NAME


def copy_checkout(top: Path) -> None:
    """Bring a copy to what the checkout holds."""
    wanted = files()
    kept = top / "tests/output"
    for path in sorted(top.rglob("*"), reverse=True) if top.exists() else []:
        if kept in (path, *path.parents):
            continue
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(top) not in wanted:
            path.unlink()
    for name in wanted:
        target = top / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink():
            target.unlink()
        shutil.copy2(ROOT / name, target, follow_symlinks=False)


# --- main ---------------------------------------------------------------------------------------------------------


def execute(part: Part) -> None:
    """Run one part and say how it went; a failure shows the end of its log."""
    part.log.unlink(missing_ok=True)
    part.log.touch()
    started = time.monotonic()
    if part.needs is not None and not part.needs.exists():
        part.outcome = Outcome(skipped=1)
        part.log.write_text(f"{part.needs} is not there\n")
    else:
        try:
            part.outcome = part.run(part)
        except Exception as problem:  # a part that breaks is a failure, not the end of the run
            with part.log.open("a") as log:
                log.write(f"{type(problem).__name__}: {problem}\n")
            part.outcome = Outcome(failed=1)
    part.seconds = time.monotonic() - started
    part.done = True
    with _guard:
        if part.outcome.failed:
            print(f"--- {part.name} failed; its output: {part.log}", *why(part), "---", sep="\n", flush=True)
        print(line(part), flush=True)


def why(part: Part) -> list[str]:
    """The failed tests with the beginning of what each said, or the end of the log where there are no such."""
    if not part.outcome.failures:
        return part.log.read_text(errors="replace").splitlines()[-80:]
    found = []
    for name, words in part.outcome.failures.items():
        found += [name, *(f"    {text[:300]}" for text in words.splitlines()[:12])]
    return found[:160]


def once_more(part: Part) -> None:
    """What failed beside other parts; a test that passes now is called unsteady, and is to be mended all the same."""
    if part.again is None:
        return
    print(f"--- {part.name}: once more, with nothing beside it", flush=True)
    started = time.monotonic()
    part.outcome = part.again(part)
    part.seconds += time.monotonic() - started
    if part.outcome.failed:
        print(*why(part), sep="\n", flush=True)
    print(line(part), flush=True)


def line(part: Part) -> str:
    """One line of the table."""
    counts = part.outcome
    text = f"{counts.passed:>5} passed {counts.failed:>4} failed {counts.skipped:>4} skipped"
    return f"{part.name:<16}{text} {part.seconds:>8.1f} s"


def side_by_side(lanes: int, chosen: list[Part]) -> None:
    """So many at a time, in the order of the table."""
    with ThreadPoolExecutor(lanes) as pool:
        for finished in [pool.submit(execute, part) for part in chosen]:
            finished.result()


def main() -> int:
    """Entry point; the exit status."""
    parser = argparse.ArgumentParser(prog="script/test", description="Run all tests, or only the named parts.")
    parser.add_argument("--quick", action="store_true", help="only what needs no container, on the newest ansible-core")
    parser.add_argument("part", nargs="*", help=f"of: {', '.join(part.name for part in parts())}")
    arguments = parser.parse_args()
    chosen = [part for part in parts() if part.quick or not arguments.quick]
    if arguments.part:
        unknown = set(arguments.part) - {part.name for part in chosen}
        if unknown:
            parser.error(f"no such part: {', '.join(sorted(unknown))}")
        chosen = [part for part in chosen if part.name in arguments.part]
    LOGS.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    static = [part for part in chosen if not part.containers]
    if static:
        copy_checkout(tree("newest"))
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(side_by_side, 2, static)
        side_by_side(1, [part for part in chosen if part.name == "lab-up"])
        side_by_side(LANES, [part for part in chosen if part.again])
        beside.result()
    failing = [part for part in chosen if part.outcome.failed]
    if len(failing) <= FEW and time.monotonic() - started < STILL_TIME:
        for part in failing:
            once_more(part)
    total = Outcome()
    print(f"\n{'part':<16}")
    for part in chosen:
        print(line(part), *(f"  unsteady: {name}" for name in part.outcome.unsteady), sep="\n")
        total.passed += part.outcome.passed
        total.failed += part.outcome.failed
        total.skipped += part.outcome.skipped
    print(f"{'all':<48} {time.monotonic() - started:>8.1f} s\nlogs: {LOGS}")
    skipped = f", {total.skipped} skipped" if total.skipped else ""
    print(f"{total.passed} passed, {total.failed} failed{skipped}", flush=True)
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
