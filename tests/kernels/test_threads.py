"""How many threads of the pool run, while other programs come and go."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from fireside.kernels.cpu.build import SOURCES, find_compiler
from tests.kernels.native import needs_compiler

# Plays rounds of 10 ms on as many cores as threads, of which `busy` are taken from second 1 to `until`, and prints
# each change: seconds, threads.
PROGRAM = """
#include <cstdio>
#include <cstdlib>
#include "threads.h"
int main(int, char** argv) {
    const int cores = atoi(argv[1]), busy = atoi(argv[2]);
    const double until = atof(argv[3]);
    fireside::Headcount headcount(cores);
    int last = 0;
    for (int round = 0; round < 3000; ++round) {
        const double now = round * 0.01;
        const int count = headcount.count(), free = now >= 1 && now < until ? cores - busy : cores;
        if (count != last) std::printf("%.2f %d\\n", now, count);
        last = count;
        headcount.record(now, 0.01, 0.01 * std::min(count, free));
    }
}
"""
# Rounds of next to no work, in which the second thread is left out and comes back as the machine has it.
ROUNDS = """
#include <cstdio>
#include <sys/resource.h>
#include "threads.h"
int main() {
    fireside::Pool pool(2);
    std::atomic<int> sum{0};
    for (int round = 0; round < 2000; ++round)
        pool.run([](void* context, int index) { *(std::atomic<int>*)context += 1 + index; }, &sum);
    std::printf("%d\\n", sum.load());
}
"""

pytestmark = needs_compiler


def run(source: str, folder: Path, *arguments: object) -> list[list[float]]:
    (folder / "program.cpp").write_text(source)
    command = [find_compiler(), "-std=c++20", "-O1", "-pthread", f"-I{SOURCES}", "-o", "program", "program.cpp"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    result = subprocess.run(
        [folder / "program", *map(str, arguments)], capture_output=True, text=True, check=True, timeout=60
    )
    return [[float(word) for word in line.split()] for line in result.stdout.splitlines()]


@pytest.mark.parametrize("busy", [1, 4, 7])
def test_a_short_burst_of_others_costs_little_longer_than_it_lasts(busy: int, tmp_path: Path) -> None:
    changes = run(PROGRAM, tmp_path, 8, busy, 1.3)
    assert changes[0] == [0, 8]
    assert min(count for _, count in changes) == 8 - busy
    assert changes[-1][1] == 8
    assert changes[-1][0] < 2.3


def test_under_lasting_load_one_more_thread_is_tried_less_and_less_often(tmp_path: Path) -> None:
    changes = run(PROGRAM, tmp_path, 4, 2, 100)
    tries = [time for time, count in changes if count == 3 and time > 1.5]
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses == sorted(pauses)
    assert 4 < pauses[-1] < 9
    assert [count for _, count in changes if _ > 1.5].count(4) == 0


def test_every_thread_takes_part_in_every_round_that_counts_it(tmp_path: Path) -> None:
    ((total,),) = run(ROUNDS, tmp_path)
    assert 2000 <= total <= 6000  # 1 a round for the first thread, and 2 for the second where it was counted
    assert (total - 2000) % 2 == 0
