"""The benchmarks compare equal nets, count all their work, and write readable tables. Nothing here asserts a time."""

import json
import subprocess
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import bench, gpu, gpu_calls, gpu_rows, gpu_table, graphs, measure, real_data
from benchmarks.bench_rows import ROWS
from benchmarks.plain import plain_model
from benchmarks.scaling import BASE, NAMES, axes
from benchmarks.styles import directions
from imder_lib import IMDer, load_data, model_preset, train_preset
from imder_runs.profiles import find_profile

SMALL = {"fusion": {"layers": 1, "embed_dropout": 0.0}, "unet": {"channels": (64, 64), "refiner_blocks": 1}}


@pytest.fixture(scope="module")
def nets():
    model = IMDer(model_preset("mosi", preset="released", **SMALL), seed=0).eval()
    return model, plain_model(model).eval()


@pytest.mark.parametrize("T", [1, 9, 16])
def test_the_plain_path_computes_what_the_kit_computes(nets, T):
    latents = {m: torch.randn(3, 32, T) for m in nets[0].modalities}
    latents["audio"][:, :, T // 2 :] = 0  # padding has no position
    work = []
    with torch.no_grad():
        assert measure.largest_difference(*(x.fusion(latents)[0] for x in nets)) < 1e-5
        scores = (
            x.recoverer.score_nets["text"](latents["text"], torch.full((3,), 0.5), latents["audio"]) for x in nets
        )
        assert measure.largest_difference(*scores) < 1e-4
        for x in nets:
            work.append(measure.count_flops(lambda x=x: x.fusion(latents)))
    assert 0 < work[0] <= work[1]  # the kit may leave out what nothing reads


def test_different_outputs_are_not_timed():
    with pytest.raises(ValueError, match="nothing was timed"):
        measure.largest_difference(torch.zeros(2), torch.tensor([0.0, 2e-4]))
    with pytest.raises(ValueError, match="nothing was timed"):
        measure.largest_difference(torch.zeros(1), torch.tensor([float("nan")]))


def test_attention_counts_two_products():
    q = torch.randn(2, 3, 7, 4)
    with torch.no_grad():
        assert measure.count_flops(lambda: F.scaled_dot_product_attention(q, q, q)) == 2 * 2 * 2 * 3 * 7 * 7 * 4


@pytest.mark.parametrize("power", [0, 1, 2])
def test_slope_is_the_power(power):
    assert measure.slope([1, 2, 8], [3 * x**power for x in (1, 2, 8)]) == pytest.approx(power)


def test_a_measured_row_becomes_a_line():
    a = torch.randn(32, 32)
    case = measure.Case("product", 32, lambda: a @ a, [(2.0, lambda: a @ a)], "twice itself")
    row = measure.measure(case, lambda: a @ a, 2.0 * 32**3, rounds=1)
    assert row["gflop"] == 2 * 32**3 / 1e9
    lines = measure.table([row, {"row": "broken", "error": "ValueError: no"}]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| product | 32 |") and "failed: ValueError: no" in lines[3]


def test_memory_of_a_call_on_the_cpu_is_read_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: pytest.fail("asked the GPU"))
    flops, peak = measure.weigh(lambda: torch.ones(2_000_000).sum())
    assert flops == 0 and (peak is None or peak > 4)


def test_the_numbers_of_a_row(monkeypatch):
    """A clock that the calls themselves move: a product takes 2 s, the kit 4 s, the plain path 3 times 6 s."""
    now, a = [0.0], torch.randn(32, 32)
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def takes(seconds, call=lambda: None):
        def run():
            now[0] += seconds
            return call()

        return run

    kit = takes(4.0, lambda: a @ a)
    case = measure.Case("row", 8, kit, [(3.0, takes(6.0))], outputs=(lambda: a, lambda: a + 1e-5))
    row = measure.measure(case, takes(2.0), 2.0 * 32**3)
    assert (row["seconds"], row["cost"], row["ratio"], row["rounds"]) == (4, 2, 4.5, measure.FEWEST)
    assert row["gflop"] == 2e-9 * 32**3
    assert row["share"] == pytest.approx(0.5)  # as much work as a product, in twice its time
    assert row["difference"] == pytest.approx(1e-5, rel=0.1)
    quick = measure.measure(measure.Case("row", 8, takes(0.5)), takes(0.25), 1.0)
    assert (quick["seconds"], quick["ratio"], quick["share"], quick["rounds"]) == (0.5, None, None, measure.ROUNDS)


def test_peak_memory_is_in_megabytes():
    peak = measure.peak_memory(lambda: torch.ones(16_000_000), "cpu")
    assert peak is None or 50 < peak < 90  # 64 MB; None where the system does not say


def test_bench_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench", "--quick", "--rows", "fusion", "--out", str(tmp_path / "out")])
    bench.main()
    found = json.loads((tmp_path / "out" / "bench.json").read_text(encoding="utf-8"))
    assert [(row["row"], row["batch"], row["rounds"]) for row in found["rows"]] == [("fusion", 1, 1), ("fusion", 8, 1)]
    assert all(row["ratio"] > 0 and row["share"] > 0 and row["difference"] < 1e-3 for row in found["rows"])
    assert found["settings"]["quick"] and found["scaling"] == []
    assert measure.table(found["rows"]) in capsys.readouterr().out


def test_rows_for_a_gpu_run_on_a_cpu(tmp_path, monkeypatch):
    """With a clock that says a minute for any call: then a part is measured, and scaled."""
    monkeypatch.setattr(gpu_rows, "seconds", lambda call, times=1: (call(), 60.0)[1])
    monkeypatch.setattr(gpu, "signal", MagicMock())  # the alarm is that of the test's own time limit
    monkeypatch.setattr(
        "sys.argv", ["gpu", "--device", "cpu", "--quick", "--rows", "recovery,steps", "--out", str(tmp_path)]
    )
    gpu.main()
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert "error" not in found["recovery"] | found["steps"]
    assert found["recovery"]["measured"] == "1 of 6 patterns, 1 of 2 draws"
    assert found["recovery"]["seconds"] == 60 * 6 * 2
    assert found["recovery"]["one_draw_in_one_batch_of_all_draws"] == 30
    assert {k: v["seconds"] for k, v in found["steps"].items() if k != "took"} == dict.fromkeys(gpu_rows.STAGES, 60)


def test_the_projected_table_adds_up():
    """Of stages whose epochs take 1 and 2 seconds at the same size, and a test of 10 seconds."""
    setup = gpu_rows.Setup(torch.device("cpu"))
    epochs = {"fusion": {"epoch": 1.0}, "diffusion": {"epoch": 2.0}}
    found = gpu_rows.projection(setup, {"epochs": epochs, "evaluation": {"seconds": 10.0}})["mosi"]
    config = train_preset("mosi", **find_profile("full").train)
    batches = -(-gpu_rows.SIZES["mosi"]["train"] // config.diffusion.batch_size)
    parts = {"fusion_once": config.fusion.epochs, "diffusion": 2 * config.diffusion.epochs_of(batches), "test": 10}
    assert found["seconds"] == pytest.approx(parts)
    assert found["seeds"] == 9
    assert found["hours"] == pytest.approx((parts["fusion_once"] + 9 * (parts["diffusion"] + 10)) / 3600)
    with pytest.raises(ValueError, match="needs the rows"):
        gpu_rows.projection(setup, {"epochs": epochs})


def test_intervals_of_differences_are_paired():
    """Each prediction of method "worse" is .1 further off, so each resample has a difference of .1 in MAE."""
    rng, n = np.random.default_rng(0), 60
    y, rows, off = rng.normal(size=n), [], {}
    for seed in (1, 2):
        off[seed] = rng.normal(size=n)
        for method, by in (("kit", 0.0), ("worse", 0.1)):
            head = {"protocol": "fixed", "case": "text", "method": method, "seed": seed}
            prediction = y + off[seed] + by * np.sign(off[seed])
            rows.append(pd.DataFrame({"sample": range(n), "prediction": prediction, "label": y, **head}))
    found = real_data.intervals(pd.concat(rows)).set_index(["method", "metric"])
    kit, worse = found.loc[("kit", "mae")], found.loc[("worse", "mae")]
    error = np.mean([np.abs(x).mean() for x in off.values()])
    assert (kit["value"], worse["value"]) == pytest.approx((error, error + 0.1))
    assert (kit["less"], kit["more"], worse["less"], worse["more"]) == pytest.approx((0, 0, 0.1, 0.1))
    assert 0.1 < worse["high"] - worse["low"] < 0.5 and worse["low"] < worse["value"] < worse["high"]
    expected = np.mean([np.corrcoef(y, y + x)[0, 1] for x in off.values()])
    assert found.loc[("kit", "corr"), "value"] == pytest.approx(expected)


def test_rows_and_axes_have_names():
    assert set(axes(False)) == set(NAMES) == set(BASE)
    assert {"score", "joint", "fusion", "encode", "recovery", "training", "posterior", "evaluation"} == set(ROWS)


def test_rows_for_a_gpu_are_defined():
    names = ("recovery", "evaluation", "steps", "graphed_steps", "epochs", "projection", "processes")
    assert set(names) <= set(gpu.ROWS)
    assert all(hasattr(gpu_rows, name) for name in names)


def test_the_committed_gpu_figures_make_tables():
    found = json.loads((gpu.ROOT / "benchmarks/results/nvidia-h200.json").read_text(encoding="utf-8"))
    readme = (gpu.ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    assert len(list(gpu_table.tables(found))) == 3
    assert all(table in readme for table in gpu_table.tables(found))
    broken = {"settings": found["settings"], "rates": {"error": "no"}, "steps": found["steps"]}
    assert [table.count("\n") for table in gpu_table.tables(broken)] == [1 + 3]


def test_a_graph_is_used_only_where_its_one_result_and_one_gradient_suffice(monkeypatch):
    recorded = []

    def record(call, parameters, args):  # what CUDA graphs do, without a device
        recorded.append(args[0].shape)
        return call

    monkeypatch.setattr(graphs, "record", record)
    net = nn.Linear(3, 2)
    graphed = graphs.Graphed(net, lambda x: net(x))
    x = torch.randn(4, 3)
    for _ in range(graphs.EAGER + 2):
        net.zero_grad()
        graphed(x).sum().backward()
    assert recorded == [(4, 3)] and not graphed.pending
    expected = torch.autograd.grad(net(x).sum(), net.weight)[0]
    torch.testing.assert_close(net.weight.grad, expected)
    uses = graphed.seen.total()
    graphed(x).sum().backward()  # adds to a gradient
    assert graphed.seen.total() == uses
    torch.testing.assert_close(net.weight.grad, 2 * expected)
    net.zero_grad()
    (graphed(x) + graphed(2 * x)).sum().backward()  # the second call comes before the first one's backward pass
    assert graphed.seen.total() == uses + 1 and not graphed.pending
    torch.testing.assert_close(net.weight.grad, 3 * expected)
    with torch.no_grad():
        for _ in range(graphs.EAGER + 1):
            graphed(x[:2])
    assert recorded == [(4, 3), (2, 3)]


@pytest.mark.parametrize("dilation", [1, 4])
def test_ways_to_compute_a_convolution_agree(dilation):
    conv, h = nn.Conv1d(6, 6, 3, padding=dilation, dilation=dilation), torch.randn(2, 9, 6)
    expected = conv(h.transpose(1, 2)).transpose(1, 2)
    for way in (gpu_calls.by_taps, gpu_calls.by_cudnn, gpu_calls.by_columns):
        torch.testing.assert_close(way(conv, h), expected)


def test_gpu_fails_where_a_row_fails_or_cpu_and_gpu_differ(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "signal", MagicMock())

    def broken(*_):
        raise RuntimeError("no")

    apart = {preset: {"difference": 1.0, "largest": 1.0, "holds": preset == "kit"} for preset in ("kit", "released")}
    near = {"kit": apart["kit"]}
    for row, message in ((lambda *_: near, None), (lambda *_: apart, "failed: parity"), (broken, "failed: parity")):
        monkeypatch.setitem(gpu.ROWS, "parity", row)
        monkeypatch.setitem(gpu.ROWS, "rates", lambda *_: [])
        monkeypatch.setattr("sys.argv", ["gpu", "--device", "cpu", "--rows", "parity,rates", "--out", str(tmp_path)])
        if message is None:
            gpu.main()
        else:
            with pytest.raises(SystemExit, match=message):
                gpu.main()
        assert set(json.loads((tmp_path / "gpu.json").read_text())) == {"settings", "parity", "rates"}
    assert set(gpu.ON_CUDA) < set(gpu.ROWS)


def test_gpu_lists_missing_packages(monkeypatch):
    assert gpu.missing_packages() == []
    monkeypatch.setitem(gpu.NEEDED, "no_such_module", "no-such-package")
    assert gpu.missing_packages() == ["no-such-package"]


def test_the_shell_script_parses():
    done = subprocess.run(["sh", "-n", gpu.ROOT / "benchmarks/gpu.sh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_direction_of_the_styles_benchmark_separates_the_styles():
    data = load_data("synthetic", sizes={"train": 9, "valid": 9, "test": 300})
    features = {m: data.test.features[m] for m in ("text", "vision")}
    found = directions(data.process, features)
    assert found.shape == (300, 3 + 3 + 1)  # loadings that are not zero, and the tone of vision
    style = data.process.style_posterior(data.test.features, data.modalities).argmax(axis=1)
    groups = [found[style == r, -1] for r in range(3)]
    centres = sorted(float(g.mean()) for g in groups)
    assert min(centres[1] - centres[0], centres[2] - centres[1]) > 4 * max(g.std() for g in groups)
