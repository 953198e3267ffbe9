"""Run the tests with trial, in three lanes: run_lanes.py [PART] TRIAL

First the image that nodes boot in tests is built, unless it is cached; style and types are
checked and the fast tests run meanwhile. The contracts are another run, each module of system
tests and attacks one more; a lane takes the next run when it is done with one. Two lanes take
the longest first, as soon as there is an image; the third one goes on with the fast tests,
then takes the shortest, and fills the processors while the others
wait for a machine to boot. The crowd, which fills them by itself and measures, has the machine
for itself at the end. The output of a run is printed whole, at its end.

Tests of whole machines that failed beside others are tried once more, alone: emulated
machines may be too slow together. What passes then is counted, and told apart.

Without an option style and types are checked, and everything is run but the long scenarios,
which are --slow: together they are all tests. --system are the system tests and attacks of
both. --release are the long scenarios and what tries each daemon and tool of Debian once: with
the quick part on one release they are all tests. --lab is the lab in a box (tests/lab), one
scenario after the other: each has two emulated machines. The product is installed before, once,
and each starts from that disk. --lab-short is the first of them.

One more check comes last: a package list has every program that was started
(scripts/record.py). The last line counts everything.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts import programs, record
from tests.skips import undeclared

TESTS = Path(__file__).resolve().parent.parent / "tests"
LANES = (0, 0, -1)  # which of the runs that wait each lane takes
SLOW = ("attacks", "contracts", "lab", "system")
# The longest modules come first, so that no lane ends with one of them.
LONGEST = (
    "test_c_users", "test_experiment_faults", "test_experiment", "test_experiment_elsewhere",
    "test_vpn_boot", "test_web", "test_vpn", "test_full_image", "test_foreign_node",
    "test_node_settings", "test_life",
    "test_node_files", "test_node_faults", "test_disks", "test_faults", "test_image_journey",
    "test_node_boot",
    "test_networks", "test_registries", "test_doctor", "test_timing", "test_logs", "test_images",
    "test_doors", "test_disk_full", "test_startup", "test_image_faults", "test_old_packages",
    "test_announcing", "test_api", "test_hopeless", "test_hostile", "test_config",
    "test_registration", "test_quickstart",
)
ALONE = "tests.system.test_crowd"
# Long scenarios: boots and reboots of several nodes, waits for limits of time, faults one by one,
# full disks, registries and the ways in from other machines.
SCENARIOS = frozenset((
    "test_arm64", "test_crowd", "test_deb", "test_disk_full", "test_disks", "test_docker_daemon",
    "test_doctor", "test_doors", "test_download", "test_experiment", "test_experiment_elsewhere",
    "test_experiment_faults", "test_failover", "test_faults", "test_foreign_node",
    "test_full_image", "test_image_faults", "test_image_journey", "test_live_map",
    "test_log_archive", "test_networks", "test_node_faults", "test_node_files",
    "test_node_settings", "test_registries", "test_runner", "test_ssh", "test_switch_recordings",
    "test_switch_ways", "test_switches", "test_trackexec", "test_usb", "test_vpn_boot",
))
# Each daemon and tool that Debian brings, once: what else there is tries our Python code alone,
# or the same daemons for longer.
RELEASE = frozenset((
    "test_a_builds", "test_a_daemons", "test_a_handles", "test_a_image_commands", "test_a_swap",
    "test_announcing", "test_dhcpd", "test_external_database", "test_firewall", "test_images",
    "test_ipxe",
    "test_named", "test_namespace", "test_node_boot", "test_startup", "test_swap", "test_tftpd",
    "test_virtual_host", "test_vpn",
))
PARTS = ("quick", "slow", "system", "release", "lab", "lab-short")
COUNTS = re.compile(r"(successes|failures|errors|skips|expectedFailures)=(\d+)")
AGAIN_LATER = 600.0  # seconds: what failed is tried again when no other run begins any more
MOST_AGAIN = 5  # tests that are tried once more: more failures than that are no accident
# What most depends on comes first: a board that boots from an installed server.
LAB = tuple(
    f"tests.lab.test_{name}" for name in (
        "install", "boards", "runner", "networks", "power_cuts", "timing", "handles",
        "builds", "backup", "deb",
    )
)
LABS = {"lab": LAB, "lab-short": LAB[:1]}
LAB_LIMIT = 3 * 3600.0  # seconds after which no scenario is begun any more
LONGEST_RUN = 1800.0  # seconds; what hangs beyond the limits of its tests is ended
LONGEST_LAB = 5400.0  # the same for a scenario of the lab, which may install the product first
UNTIL = "WALT_TEST_UNTIL"  # epoch seconds from which no run is started any more
NOT_RUN = "not run for want of time: "  # .ci/rooms.py looks for these lines, too
NOT_PASSED = "not passed: "  # .ci/rooms.py looks for these lines
RULE = "=" * 79  # trial begins with it what it tells of a test
LAST_WORDS = 300  # characters
PACKAGES = Path("scripts/packages.mk")
RECORD_PATIENCE = 30.0  # seconds


def wanted(stem: str, part: str) -> bool:
    """Tell whether a module of system tests or attacks belongs to a part."""
    if part == "quick":
        return stem not in SCENARIOS
    if part == "slow":
        return stem in SCENARIOS
    return part == "system" or stem in SCENARIOS | RELEASE


def fast_tests() -> list[str]:
    """Return the names of the tests that need neither machines nor real daemons."""
    return sorted({
        "tests." + path.relative_to(TESTS).parts[0].removesuffix(".py")
        for path in TESTS.rglob("test_*.py") if path.relative_to(TESTS).parts[0] not in SLOW
    })


def runs(part: str) -> tuple[list[list[str]], list[list[str]]]:
    """Return the names given to each trial in the lanes, in order, and to those run alone."""
    if part in LABS:
        return [], [[name] for name in LABS[part]]
    modules = sorted(
        path for place in ("attacks", "system") for path in (TESTS / place).glob("test_*.py")
        if wanted(path.stem, part)
    )
    modules.sort(
        key=lambda path: LONGEST.index(path.stem) if path.stem in LONGEST else len(LONGEST)
    )
    system = [[f"tests.{path.parent.name}.{path.stem}"] for path in modules]
    alone = [names for names in system if names == [ALONE]]
    system = [names for names in system if names != [ALONE]]
    # What is long comes first, what is short fills the lanes at the end.
    return [*([["tests.contracts"]] if part == "quick" else []), *system], alone


def last_words(reason: str) -> str:
    """Return the begin of a long last line, or what ends with a short one, in one line."""
    last = reason.splitlines()[-1].strip()
    if len(last) >= LAST_WORDS:
        return last[:LAST_WORDS]
    return " ".join(reason.split())[-LAST_WORDS:]


def recap(told: str) -> list[str]:
    """Return a line for each test that trial tells about: its name and the last words.

    One line with the last words if it tells of none.
    """
    lines = []
    for block in re.split(r"^(?:={79}|-{79})$", told, flags=re.MULTILINE):
        reason, _, names = block.strip().rpartition("\n\n")
        if reason.startswith(("[ERROR]", "[FAIL]")) and names.startswith("tests."):
            words = last_words(reason)
            lines += [f"{NOT_PASSED}{name}: {words}" for name in names.split()]
    return lines or [NOT_PASSED + " ".join(told.split())[-LAST_WORDS:]]


def failures(text: str) -> str:
    """Return what trial tells of the tests that did not succeed."""
    return text[text.find("\n===="):].strip() if "\n====" in text else text[-3000:]


def failed_tests(text: str) -> list[str]:
    """Return the names of the tests of machines that failed, if trial tells of no others."""
    if RULE not in text:
        return []
    names = [line.removeprefix(NOT_PASSED).split(":")[0] for line in recap(text)]
    machines = [name for name in names if name.startswith(("tests.system.", "tests.attacks."))]
    return sorted(set(machines)) if len(machines) == len(names) else []


def late(grace: float = 0.0) -> bool:
    """Tell whether there is no time for another run, which may begin `grace` seconds later."""
    return time.time() > float(os.environ.get(UNTIL, "inf")) + grace


async def run_trial(number: int, trial: str, names: list[str]) -> tuple[int, str]:
    """Run some tests and print what they say; return the status and that text."""
    start = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        trial, f"--temp-directory=/tmp/_trial-walt-{number}", *names,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )
    limit = LONGEST_LAB if names[0] in LAB else LONGEST_RUN
    ending = asyncio.get_running_loop().call_later(limit, process.kill)
    output, _ = await process.communicate()
    ending.cancel()
    text = output.decode(errors="replace")
    print(f"{text.rstrip()}\n({', '.join(names)}: {time.monotonic() - start:.0f} s)\n")
    sys.stdout.flush()
    return process.returncode or 0, text


async def try_again(trial: str, counts: dict[str, int], told: list[str]) -> list[str]:
    """Try what failed once more; return the names of what passed, which `told` forgets."""
    passed: list[str] = []
    tried = 0
    for report in list(told):
        names = failed_tests(report)
        tried += len(names)
        if not names or tried > MOST_AGAIN or late(AGAIN_LATER):
            continue
        print(f"once more, alone: {', '.join(names)}")
        status, _ = await run_trial(0, trial, names)
        if status == 0:
            told.remove(report)
            passed += names
            failed = sum(
                int(count)
                for name, count in COUNTS.findall("\n".join(report.splitlines()[-5:]))
                if name in ("failures", "errors")
            )
            counts["again"] = counts.get("again", 0) + failed
            counts["successes"] = counts.get("successes", 0) + len(names)
    return passed


async def lane(
    number: int, trial: str, waiting: list[list[str]], counts: dict[str, int], told: list[str]
) -> None:
    """Run what is waiting, one after the other; add what failed to `told`."""
    while waiting:
        names = waiting.pop(LANES[number])
        if late():
            print(f"{NOT_RUN}{', '.join(names)}")
            counts["skips"] = counts.get("skips", 0) + 1
            continue
        status, text = await run_trial(number, trial, names)
        found = COUNTS.findall("\n".join(text.splitlines()[-5:]))
        for name, count in found:
            counts[name] = counts.get(name, 0) + int(count)
        if status != 0:
            told.append(f"{', '.join(names)}:\n{failures(text)}")
            if not any(name in ("failures", "errors") for name, _ in found):
                counts["errors"] = counts.get("errors", 0) + 1
        wrong = undeclared(text)
        if wrong:
            told.append("\n".join(wrong))
            counts["failures"] = counts.get("failures", 0) + len(wrong)
            counts["skips"] -= len(wrong)
        elif not found:
            told.append(f"{', '.join(names)}: no test ran")
            counts["errors"] = counts.get("errors", 0) + (status == 0)


async def run_program(*argv: str) -> tuple[int, str]:
    """Run a program to its end; return its status and what it said."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace")


async def build_image(cache: str, part: str) -> bool:
    """Build what the tests of a part boot, unless it is cached; tell whether it is there."""
    calm = ["nice", "-n", "5"] if part in LABS else []
    builders = [
        ["walt.server.tools.image_recipe", "--variant", "small", "--archive-only", "--cache-dir",
         cache],
        *([["tests.lab.image", cache], ["tests.lab.installed"]] if part in LABS else []),
    ]
    for words in builders:
        status, text = await run_program(*calm, sys.executable, "-m", *words)
        if status != 0:
            print(f"the image of the tests could not be built:\n{text}", file=sys.stderr)
            return False
    return True


async def lint(programs: Path, counts: dict[str, int], told: list[str]) -> None:
    """Count the checks of style and types as two tests."""
    for words in (("ruff", "check", "."), ("mypy",)):
        status, text = await run_program(str(programs / words[0]), *words[1:])
        print(f"{' '.join(words)}: {text}", flush=True)
        name = "failures" if status else "successes"
        counts[name] = counts.get(name, 0) + 1
        if status:
            told.append(f"{' '.join(words)}:\n{text}")


async def quick_checks(
    trial: str, part: str, counts: dict[str, int], told: list[str]
) -> None:
    """Check style and types and run the fast tests, in the quick part."""
    if part == "quick":
        await asyncio.gather(
            lint(Path(trial).parent, counts, told),
            lane(len(LANES) - 1, trial, [fast_tests()], counts, told),
        )


def started_programs(file: Path) -> list[str]:
    """Return the recorded programs, when the last one that was started is among them."""
    with tempfile.TemporaryDirectory(dir=file.parent) as directory:
        last = Path(directory, "last")
        last.write_text("#!/bin/sh\n")
        last.chmod(0o755)
        subprocess.run([last.absolute()], check=True)
        limit = time.monotonic() + RECORD_PATIENCE
        while str(last.resolve()) not in (lines := file.read_text().splitlines()):
            if time.monotonic() > limit:
                raise OSError("the record of programs does not go on")
            time.sleep(0.05)
    return lines


def own_directories(cache: str) -> list[Path]:
    """Return where programs lie that no package is asked for: ours, Python's, images."""
    places = [
        ".", sys.prefix, tempfile.gettempdir(), "/tmp", "/var/tmp", "/run", cache,  # noqa: S108
        "/var/lib/containers", *([sys.base_prefix] if sys.base_prefix != "/usr" else []),
    ]
    python39 = os.environ.get("WALT_PYTHON39")
    if python39:
        places.append(str(Path(python39).parent.parent))
    return [Path(place).resolve() for place in places]


def check_programs(cache: str, counts: dict[str, int], told: list[str]) -> None:
    """Count the check of the programs that were started as one test."""
    file = os.environ.get(record.VARIABLE)
    if file is None:
        counts["skips"] = counts.get("skips", 0) + 1
        return
    try:
        wrong = programs.check(started_programs(Path(file)), PACKAGES, own_directories(cache))
    except OSError as error:
        wrong = [str(error)]
    name = "failures" if wrong else "successes"
    counts[name] = counts.get(name, 0) + 1
    if wrong:
        told.append("\n".join(["programs and packages:", *wrong]))


async def main(trial: str, part: str) -> int:
    """Run all lanes with a part of the tests, print what failed once more, and the sum."""
    cache = os.environ["WALT_TEST_CACHE"]
    (waiting, alone), counts, told = runs(part), dict[str, int](), list[str]()
    fast = asyncio.create_task(quick_checks(trial, part, counts, told))
    if part in LABS:
        os.environ.setdefault(UNTIL, str(time.time() + LAB_LIMIT))
    if not await build_image(cache, part):
        fast.cancel()
        print("0 passed, 1 failed, 0 skipped")
        return 1

    async def last_lane() -> None:
        await fast
        await lane(len(LANES) - 1, trial, waiting, counts, told)

    await asyncio.gather(
        *(lane(number, trial, waiting, counts, told) for number in range(len(LANES) - 1)),
        last_lane(),
    )
    await lane(0, trial, alone, counts, told)
    passed = await try_again(trial, counts, told)
    check_programs(cache, counts, told)
    for name in passed:
        print(f"passed alone, not beside others: {name}")
    print("\n".join([*told, *(line for report in told for line in recap(report))]))
    failed = counts.get("failures", 0) + counts.get("errors", 0) - counts.get("again", 0)
    print(f"{counts.get('successes', 0)} passed, {failed} failed, {counts.get('skips', 0)} skipped")
    return 1 if told else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("trial")
    for name in PARTS[1:]:
        parser.add_argument(f"--{name}", dest="part", action="store_const", const=name)
    options = parser.parse_args()
    sys.exit(asyncio.run(main(options.trial, options.part or PARTS[0])))
