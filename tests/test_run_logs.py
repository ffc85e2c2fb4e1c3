"""Peaks and step times out of logs shaped as the trainers write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.errors import InputError
from advisor.run_logs import read_run

SWIFT = (
    '{"loss": 1.62, "grad_norm": 0.9, "learning_rate": 1e-05, "token_acc": 0.61, "epoch": 0.1, "global_step/max_steps": '
    '"10/93", "elapsed_time": "21s", "remaining_time": "2m 54s", "memory(GiB)": 61.02, "train_speed(s/it)": 2.101}\n'
    '{"loss": 1.44, "epoch": 0.2, "memory(GiB)": 61.98, "train_speed(s/it)": 2.099}\n'
)
AXOLOTL = (
    "{'loss': '1.2', 'grad_norm': '0.5', 'learning_rate': '2e-5', 'memory/max_active (GiB)': '48.1', "
    "'memory/max_allocated (GiB)': '48.1', 'memory/device_reserved (GiB)': '50.25', 'epoch': '0.5'}\n"
)
LLAMAFACTORY = (
    '{"current_steps": 10, "total_steps": 40, "loss": 1.1, "lr": 9e-05, "epoch": 0.25, "percentage": 25.0, '
    '"elapsed_time": "0:00:31", "remaining_time": "0:01:33", "vram_allocated": 47.5, "vram_reserved": 49.0}\n'
    '{"current_steps": 40, "total_steps": 40, "epoch": 1.0, "percentage": 100.0, "elapsed_time": "0:02:00", '
    '"remaining_time": "0:00:00", "vram_allocated": 47.6, "vram_reserved": 49.5}\n'
)
VERL = (
    "(TaskRunner pid=91) step:1 - actor/entropy:0.42 - actor/pg_loss:-0.01 - perf/max_memory_allocated_gb:52.117 - "
    "perf/max_memory_reserved_gb:57.9 - perf/cpu_memory_used_gb:101.5 - perf/time_per_step:88.25 - timing_s/gen:40.1\n"
    "(TaskRunner pid=91) step:2 - perf/max_memory_allocated_gb:53.001 - perf/max_memory_reserved_gb:58.2 - "
    "perf/time_per_step:80.75\n"
)
TRAINER_STATE = (
    '{"best_metric": null, "epoch": 3.0, "global_step": 60, "log_history": [{"epoch": 1.0, "loss": 1.3, "step": 20}, '
    '{"epoch": 3.0, "step": 60, "total_flos": 1.2e16, "train_loss": 1.2, "train_runtime": 120.0, '
    '"train_samples_per_second": 8.0, "train_steps_per_second": 0.5}]}'
)
STATS = (
    '{"allocated_bytes.all.current": 10, "allocated_bytes.all.peak": 51539607552, '
    '"reserved_bytes.all.peak": 53687091200}'
)
NVIDIA_SMI = (
    "timestamp, index, memory.used [MiB], utilization.gpu [%]\n"
    "2026/11/24 10:00:00.000, 0, 51200 MiB, 98 %\n2026/11/24 10:00:05.000, 0, 52224 MiB, 99 %\n"
)


@pytest.mark.parametrize(
    ("name", "text", "peaks", "seconds"),
    [
        ("logging.jsonl", SWIFT, {"reserved": 61.98}, 2.1),
        ("train.log", AXOLOTL, {"allocated": 48.1, "reserved": 50.25}, None),
        ("trainer_log.jsonl", LLAMAFACTORY, {"allocated": 47.6, "reserved": 49.5}, 3.0),
        ("console.log", VERL, {"allocated": 53.001, "reserved": 58.2}, 84.5),
        ("memory_stats.json", STATS, {"allocated": 48.0, "reserved": 50.0}, None),
        ("gpu.csv", NVIDIA_SMI, {"device": 51.0}, None),
    ],
)
def test_a_log(tmp_path: Path, name: str, text: str, peaks: dict[str, float], seconds: float | None) -> None:
    (tmp_path / name).write_text(text)
    for path in (tmp_path, tmp_path / name):
        found = read_run(path)
        assert found.peaks == pytest.approx(peaks)
        assert found.seconds == (seconds if seconds is None else pytest.approx(seconds))
        assert found.files == (str(tmp_path / name),)


def test_files_of_a_run_are_read_together(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "checkpoint-60"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(TRAINER_STATE)
    (tmp_path / "gpu.csv").write_text(NVIDIA_SMI)
    (tmp_path / "train.log").write_text(AXOLOTL)
    found = read_run(tmp_path)
    assert found.counter == "device"
    assert set(found.peaks) == {"device", "reserved", "allocated"}
    assert found.seconds == pytest.approx(2.0)


def test_nvidia_smi_without_units(tmp_path: Path) -> None:
    (tmp_path / "gpu.csv").write_text("index, memory.used [MiB]\n0, 2048\n1, 1024\n")
    assert read_run(tmp_path).peaks == {"device": 2.0}


def test_a_value_that_only_ends_like_a_key_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("{'my_vram_allocated': 7.0, 'vram_allocated': 3.0}\n")
    assert read_run(tmp_path).peaks == {"allocated": 3.0}


@pytest.mark.parametrize("text", ["", "loss 1.2\n", "\x00\xff", "memory(GiB): nan\n"])
def test_nothing_to_read_is_said_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.log").write_text(text)
    with pytest.raises(InputError, match=r"^run: .* holds no memory figure") as error:
        read_run(tmp_path)
    assert "\n" not in str(error.value)


def test_a_run_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"^run: nowhere does not exist"):
        read_run(Path("nowhere"))
