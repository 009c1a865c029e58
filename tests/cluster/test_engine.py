"""The engine with cells that cost nothing: order, failures, locks, and what a second sweep on the folder does."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from imder_lib import UserError
from imder_lib.experiment.parallel import own_cores
from imder_runs import engine, locks
from imder_runs.attempt import How, run_cell
from imder_runs.cell_child import Server
from imder_runs.cells import Cell
from imder_runs.engine import OneByOne, pool_of, run_cells

HERE = Path(__file__).parent
BODY = "cheap:body"


@pytest.fixture(autouse=True)
def cheap_cells(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


def cheap(n, sleep=0.0, **more):
    return [Cell(f"c{i}", {"number": i, "sleep": sleep} | more) for i in range(n)]


def run(folder, cells, pool=None, **how):
    given = {"body": BODY, "child": False, "threads": 1} | how
    return run_cells(pool or OneByOne(), cells, How(str(folder), **given), lambda *_: None, poll=0.05)


def content(folder):
    return {p.name: (p / "metrics.json").read_bytes() for p in (folder / "cells").iterdir()}


def test_cells_wait_for_their_first_stage(tmp_path):
    stage = Cell("stage", {"number": 100, "sleep": 0.0})
    cells = [Cell(f"c{i}", {"number": i, "sleep": 0.0}, stage.name) for i in range(3)]
    results = run(tmp_path, [*cells, stage])
    assert next(iter(results)) == stage.name
    assert json.loads(content(tmp_path)[cells[2].name]) == [{"value": 102}]
    assert run(tmp_path, [*cells, stage]) == {}


def test_a_failed_cell_says_why_holds_up_its_own_dependants_alone_and_is_tried_again(tmp_path):
    stage = Cell("stage", {"number": 0, "sleep": 0.0, "error": "no luck"})
    cells = [stage, Cell("a", {"number": 1, "sleep": 0.0}, stage.name), *cheap(1)]
    results = run(tmp_path, cells)
    assert {n.split("-")[0]: r["error"] for n, r in results.items()} == {
        "stage": "no luck", "a": "its fusion stage failed: no luck", "c0": ""
    }  # fmt: skip
    for attempt in (2, 3):
        run(tmp_path, cells)
        found = json.loads((tmp_path / "unfinished" / stage.name / "error.json").read_text())
        assert (found["error"], found["attempts"]) == ("no luck", attempt)


@pytest.mark.parametrize("forks", [True, False])
def test_a_child_that_fails_is_killed_or_needs_too_much_memory(tmp_path, forks):
    server = Server(forks)
    job = {"settings": {}, "folder": str(tmp_path), "stage": "", "threads": 1, "memory": 0, "cores": own_cores()}
    try:
        assert server.run(job | {"body": "cheap:nothing"}, lambda: True, 5) == (
            "AttributeError: module 'cheap' has no attribute 'nothing'"
        )
        assert "Traceback" in (tmp_path / "log.txt").read_text()
        if forks:
            dies = server.run(job | {"body": "cheap:dies"}, lambda: True, 5)
            assert dies == "its process was killed, perhaps because memory ran out"
            large = server.run(job | {"body": "cheap:large", "memory": 10**6}, lambda: True, 5)
            assert "more than 0.0 GB of memory" in large
            assert server.usable
            lost = server.run(job | {"body": "cheap:body", "settings": {"sleep": 60}}, lambda: False, 0.05)
            assert lost == "another process has taken this cell over"
        assert not server.usable
    finally:
        server.close()


def test_a_full_disk_is_an_error_of_the_cell_and_the_sweep_goes_on_later(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cells = cheap(3)
    run(tmp_path, cells[:1])
    before = content(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        results = run(tmp_path, cells)
        assert {r["error"].split(": ")[-1] for r in results.values()} == {"No space left on device"}
    assert content(tmp_path) == before
    assert {r["state"] for r in run(tmp_path, cells).values()} == {"done"}


def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small disk can be mounted: this needs root on Linux")
    try:
        cells = cheap(60)
        results = run(disk, cells)
        before = content(disk)
        assert 10 < len(before) < 60
        failed = {r["error"].split(": ")[-1] for r in results.values() if r["state"] == "failed"}
        assert failed == {"No space left on device"}
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert {r["state"] for r in run(disk, cells).values()} == {"done"}
        assert before.items() <= content(disk).items()
        assert len(content(disk)) == 60
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_two_sweeps_on_one_folder_run_no_cell_twice(tmp_path):
    cells, count = cheap(30, sleep=0.01), []
    original = engine.run_cell

    def counted(job):
        result = original(job)
        count.append(result["seconds"] >= 0.01 and result["state"] == "done")
        return result

    class Pool(OneByOne):
        def results(self, wait):
            return [counted(self.jobs.popleft())] if self.jobs else super().results(wait)

    threads = [threading.Thread(target=run, args=[tmp_path, cells, Pool()]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(count) == 30
    assert len(content(tmp_path)) == 30
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_a_lock_is_taken_over_when_its_owner_has_ended(tmp_path):
    lock = locks.acquire(tmp_path / "a")
    assert locks.acquire(tmp_path / "a") is None  # this process lives
    script = "import sys; from imder_runs.locks import acquire; from pathlib import Path; acquire(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "b")], check=True)
    taken = locks.acquire(tmp_path / "b")
    assert taken.n == 1
    taken.release()
    assert locks.newest(tmp_path / "b") == -1
    lock.release()


def test_a_lock_of_another_machine_is_taken_over_when_it_gives_no_sign_of_life(tmp_path):
    work, watch = tmp_path / "a", locks.Watch(stale=0.2)
    lock = locks.acquire(work)
    (work / "lock.0").write_text(json.dumps({"host": "other", "pid": 1, "started": 1.0}))
    os.utime(work / "lock.0", (1, 1))  # its clock is wrong, which does not matter
    assert watch.free(work) == -2
    time.sleep(0.15)
    assert lock.beat()
    assert watch.free(work) == -2
    time.sleep(0.25)
    assert watch.free(work) == 0
    taken = locks.acquire(work, 0)
    assert taken.n == 1
    assert not lock.beat()  # the former owner learns it
    (work / "lock.1").write_text("")  # its owner died while it wrote
    assert watch.free(work) == -2


def test_an_attempt_continues_what_the_former_one_left(tmp_path):
    (cell,) = cheap(1)
    part = tmp_path / "unfinished" / cell.name / "part.0"
    part.mkdir(parents=True)
    (part / "kept").write_text("epoch 3")
    (part / ".half.part").write_text("ha")
    (part.parent / "lock.0").write_text(json.dumps({"host": locks.this_host(), "pid": 2**22 + 1, "started": 0}))
    run(tmp_path, [cell])
    folder = tmp_path / "cells" / cell.name
    assert {p.name for p in folder.iterdir()} == {"kept", "metrics.json", "settings.json", "provenance.json"}


def test_a_finished_cell_is_never_replaced(tmp_path):
    (cell,) = cheap(1)
    run(tmp_path, [cell])
    before = content(tmp_path)
    job = {"name": cell.name, "settings": {"number": 7, "sleep": 0}, "needs": "", "replaceable": -1}
    assert run_cell(job | {"how": {"folder": str(tmp_path), "body": BODY, "child": False}})["state"] == "done"
    assert content(tmp_path) == before


def test_workers_need_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "imder_runs.dask_pool", None)
    with pytest.raises(UserError, match=r"imder-kit\[cluster\]"), pool_of(workers=2):
        pass
    with pytest.raises(UserError, match="expected one of"), pool_of(workers=2, scheduler="tcp://a:1"):
        pass


def test_cells_on_two_worker_processes(tmp_path):
    pytest.importorskip("distributed")
    stage = Cell("stage", {"number": 100, "sleep": 0.0})
    cells = [
        stage,
        *(replace(c, needs=stage.name) for c in cheap(40)),
        Cell("bad", {"number": 0, "sleep": 0, "error": "x"}),
    ]
    with pool_of(workers=2) as pool:
        results = run(tmp_path, cells, pool, child=True)
    assert [r["error"] for r in results.values() if r["state"] == "failed"] == ["ValueError: x"]
    alone = tmp_path / "alone"
    run(alone, cells)
    assert content(tmp_path) == content(alone)


def test_workers_on_one_machine_share_its_cores(tmp_path):
    pytest.importorskip("distributed")
    with pool_of(workers=2) as pool:
        run(tmp_path, cheap(6), pool, body="cheap:cores", child=True, workers=2, threads=0)
    metrics = [json.loads(path.read_text()) for path in (tmp_path / "cells").glob("*/metrics.json")]
    assert len(metrics) == 6
    own = own_cores()
    assert {tuple(rows[0]["cores"]) for rows in metrics} == {tuple(own[i::2] or own[:1]) for i in range(2)}
