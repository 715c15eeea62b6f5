"""The script that times a GPU can't be run where there is none: here it runs on the CPU, tiny."""

from __future__ import annotations

import json
from pathlib import Path

import gpu
import pytest

from fls_bench.training import engines


def test_the_timings_of_both_ways_are_written_with_the_hardware(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "TRIAL_SECONDS", 0.01)
    monkeypatch.setattr(gpu, "REPEATS", 1)
    gpu.main(["--device", "cpu", "--tiny", "--folder", str(tmp_path)])
    (path,) = tmp_path.glob("cpu-*-tiny.json")
    told = json.loads(path.read_text())
    assert str(path) in capsys.readouterr().out
    assert told["device"] == "cpu"
    assert told["hardware"]["torch"]
    assert list(told["cases"]) == ["digits, mlp", "images, cnn", "images, resnet18"]
    for one in told["cases"].values():
        rates = one["replica_epochs_per_second"]
        assert min(*rates["loop"], *rates["engine"]) > 0
        assert one["ratio"] == pytest.approx(rates["engine"][0] / rates["loop"][0])
    assert told["cases"]["digits, mlp"]["chosen"]["kind"] == "fused"
