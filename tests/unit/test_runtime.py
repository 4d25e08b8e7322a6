import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tans_core.runtime import choose_precision, clock, computes_bf16, derive_seed, progress, run_program, run_programs
from tests.factories.processes import alive, wait_until_gone


def test_seed_depends_on_every_name_and_on_their_order() -> None:
    seeds = {
        derive_seed(0),
        derive_seed(1),
        derive_seed(0, "zoo"),
        derive_seed(0, "zoo", 1),
        derive_seed(0, 1, "zoo"),
        derive_seed(0, "zoo1"),
    }
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seed_is_the_same_in_another_process(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "from tans_core.runtime import derive_seed; print(derive_seed(7, 'zoo', 'kana'))"
    run_program([sys.executable, "-c", code], tmp_path, lines.append)
    assert lines == [str(derive_seed(7, "zoo", "kana"))]


def test_program_hands_over_both_streams_and_its_exit_code(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr); sys.exit(3)"
    assert run_program([sys.executable, "-c", code], tmp_path, lines.append) == 3
    assert lines == ["out", "err"]


def test_program_runs_in_its_folder_and_finds_this_python_first(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import os; print(os.getcwd()); print(os.environ['PATH'].split(os.pathsep)[0])"
    run_program([sys.executable, "-c", code], tmp_path, lines.append)
    assert lines == [str(tmp_path.resolve()), str(Path(sys.executable).parent)]


def test_bytes_that_are_no_text_do_not_end_the_program(tmp_path: Path) -> None:
    lines: list[str] = []
    code = r"import sys; sys.stdout.buffer.write(b'a\xffb\n')"
    assert run_program([sys.executable, "-c", code], tmp_path, lines.append) == 0
    assert lines == ["a\N{REPLACEMENT CHARACTER}b"]


def test_program_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(TimeoutError, match="not done after 1 s"):
        run_programs([[sys.executable, "-c", code]], tmp_path, lines.append, limit_s=1)
    assert not any(alive(int(line)) for line in lines)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_what_ends_the_call_ends_the_grandchildren_too(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    seen: list[int] = []

    def stop(line: str) -> None:
        seen.append(int(line))
        assert alive(seen[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_program([sys.executable, "-c", code], tmp_path, stop)
    assert wait_until_gone(seen[0])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    code = (
        "import signal, os, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(os.getpid(), flush=True); time.sleep(600)"
    )
    seen: list[int] = []

    def stop(line: str) -> None:
        seen.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_program([sys.executable, "-c", code], tmp_path, stop)
    assert wait_until_gone(seen[0])


def test_progress_yields_everything_and_prints_nothing_where_there_is_no_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert list(progress(range(3), "counting")) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


def test_clock_counts_seconds_from_its_start() -> None:
    passed = clock()
    time.sleep(0.05)
    first = passed()
    assert 0.05 <= first <= passed()


def test_pid_of_this_process_is_alive() -> None:
    assert alive(os.getpid())


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_precision_that_is_asked_for_is_used(wanted: str) -> None:
    assert choose_precision(wanted) == wanted


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="reads /proc")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU decides there")
def test_automatic_precision_is_what_the_processor_has_instructions_for() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert computes_bf16() == bool(flags & {"avx512_bf16", "amx_tile"})
    assert choose_precision("auto") == ("bf16" if computes_bf16() else "fp32")


def test_automatic_precision_is_the_same_while_the_machine_is_busy() -> None:
    before = choose_precision("auto")
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        assert [choose_precision("auto") for _ in range(200)] == [before] * 200
    finally:
        for process in busy:
            process.kill()
            process.wait()
