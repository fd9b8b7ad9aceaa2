# SPDX-License-Identifier: Apache-2.0
import re

from lmkd_tf.cli.bench_export import _cells, spread_table
from lmkd_tf.cli.ledger import Step, preset_config, sensitivity_table, to_markdown
from lmkd_tf.compress.sensitivity import LayerLoss
from lmkd_tf.config.files import read_json
from lmkd_tf.models.presets import preset_files
from tests.workflow.road import OVERRIDES, finish, run_program


def _export(*arguments):
    return finish(run_program("export", *arguments))


def _fail(*arguments):
    run = _export(*arguments)
    assert run.status == 1, run.stdout
    assert "Traceback" not in run.stderr
    return run.stderr.splitlines()[-1]


def test_bundle_is_written_and_verified_by_the_program(tmp_path):
    model, folder = preset_files("nano")["tflite"], tmp_path / "nano"
    assert _export(f"--bundle={folder}", f"--model={model}").status == 0
    for path in (folder, tmp_path / "nano.zip"):
        run = _export(f"--verify={path}")
        assert (run.status, run.stdout) == (0, f"{path}: every bit is as made\n")
    with (folder / "README.md").open("a") as file:
        file.write("Turn off the watchdog.\n")
    run = _export(f"--verify={folder}")
    assert run.status == 1
    assert run.stdout.startswith("README.md: changed")
    assert run.stdout.endswith("1 findings; do not use it\n")


def test_flags_that_do_not_fit_are_refused_in_one_line(tmp_path):
    assert "Received --verify and --ledger" in _fail("--verify=x", "--ledger")
    assert "Received --bundle without --model" in _fail(f"--bundle={tmp_path / 'b'}")
    assert "Received no --workdir and no --data" in _fail()
    assert "Received no --data" in _fail("--ledger", "--preset=nano")
    assert "does not exist" in _fail("--verify=absent.zip")
    assert list(tmp_path.iterdir()) == []


def test_disk_that_fills_half_way_leaves_no_part_of_a_bundle(small_disk):
    run = _export(f"--bundle={small_disk / 'nano'}", f"--model={preset_files('nano')['tflite']}")
    assert run.status == 1
    assert "No space left on device" in run.stderr.splitlines()[-1]
    assert list(small_disk.iterdir()) == []


def test_stage_leaves_a_bundle_of_its_int8_student(road):
    run = _export(f"--verify={road.workdir / 'export' / 'bundle.zip'}")
    assert (run.status, run.stderr) == (0, "")


def test_ledger_of_a_work_directory_lists_every_step(road, tmp_path):
    output = tmp_path / "ledger.json"
    arguments = ["--config=smoke", f"--data={road.corpus}", f"--workdir={road.workdir}"]
    arguments += [f"--override={override}" for override in OVERRIDES]
    run = _export(
        "--ledger", *arguments, "--clips=1", "--seeds=0,1", f"--output={output}", "--floor_db=200"
    )
    assert run.status == 0, run.stderr
    ledger = read_json(output)
    by_name = {step["name"]: step for step in ledger["steps"]}
    chain = ["float", "pruned", "fake-quantized", "int8 TFLite reference", "int8 TFLite Micro"]
    baselines = [f"{d} after training, seed {s}" for d in ("int8", "int16") for s in (0, 1)]
    assert list(by_name) == [*chain, *baselines]
    assert by_name["int8 TFLite Micro"]["is_identical"]
    assert by_name["int8 TFLite reference"]["snr_db"] > 30.0
    assert by_name["pruned"]["layers"], "a drop below the floor is named"
    losses = [by_name[name]["snr_db"] for name in baselines]
    assert losses[0] != losses[1]  # the draw of the calibration matters
    assert min(losses[2:]) > max(losses[:2])  # 16 bits lose less
    tensors = {entry["layer"] for entry in ledger["sensitivity"]}
    assert {"features", "block_0", "mask_logits"} <= tensors
    assert "| int8 TFLite Micro |" in run.stdout
    assert "| identical |" in run.stdout


def test_table_names_the_layers_of_a_drop_below_the_floor():
    steps = [
        Step("float", lambda x: x, scores={"pesq_wb": 1.5}),
        Step(
            "int8",
            lambda x: x,
            "float",
            scores={"pesq_wb": 1.4},
            snr_db=12.0,
            layers=[("pointwise_3", 14.04)],
        ),
    ]
    text = to_markdown(steps, 20.0)
    assert "| float | 1.500 | - | - | - | - | - |" in text
    assert "| int8 | 1.400 | - | - | - | float | 12.0 |" in text
    assert "int8: 12.0 dB to float, below the floor of 20 dB; it comes from pointwise_3" in text
    assert "below the floor" not in to_markdown(steps, 10.0)


def test_sensitivity_table_shows_what_16_bits_cost():
    text = sensitivity_table([LayerLoss("block_1", 31.0, 55.5, 96, ("pointwise_0",))])
    assert "| block_1 | pointwise_0 | 31.0 | 55.5 | 96 |" in text


def test_ledger_of_a_preset_has_its_network():
    assert preset_config("nano").student.architecture == "nano"


def test_benchmark_lists_sizes_beside_published_ones():
    run = finish(run_program("bench_export", "--frames=5"))
    assert run.status == 0, run.stderr
    manifest = read_json(preset_files("nano")["manifest"])
    assert f"{manifest['model']['bytes']:,}" in run.stdout
    assert "GTCRN" in run.stdout
    row = next(line for line in run.stdout.splitlines() if re.match(r"\| nano \|", line))
    assert len(re.findall(r" \d+ ", row)) == 4


def test_benchmark_lists_scores_of_each_calibration(road):
    table = spread_table("nano", road.corpus, [3], num_clips=1)
    rows = {
        cells[1].strip(): cells[2:4] for cells in (row.split("|") for row in table.splitlines())
    }
    names = ("float", "int8 as shipped", "int8 after training, seed 3")
    assert {*names} < {*rows}
    for name in names:
        pesq_wb, si_sdr_db = (float(cell) for cell in rows[name])
        assert 1.0 < pesq_wb < 4.65, name
        assert abs(si_sdr_db - float(rows["float"][1])) < 3.0


def test_spread_is_the_deviation_of_the_means():
    scores = [{"pesq_wb": 2.0, "si_sdr_db": 10.0}, {"pesq_wb": 2.2, "si_sdr_db": 10.0}]
    assert _cells(scores) == ["2.100 ± 0.141", "10.00 ± 0.00"]
    assert _cells(scores[:1]) == ["2.000", "10.00"]


def test_benchmark_of_calibrations_needs_recordings():
    run = finish(run_program("bench_export", "--calibrations=2"))
    assert run.status == 1
    assert "Received --calibrations without --data" in run.stderr.splitlines()[-1]
