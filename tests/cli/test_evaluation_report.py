# SPDX-License-Identifier: Apache-2.0
import csv

from lmkd_tf.cli.evaluation_report import published_systems

_MEASURED = {"mean": 2.0, "low": 1.9, "high": 2.1}


def test_published_systems_belong_to_their_benchmark():
    assert published_systems(None, []) == []
    assert published_systems("pairs", []) == []
    names = [system["name"] for system in published_systems("vbdemand96", [])]
    assert {"RNNoise 0.1.1", "DTLN"} <= set(names)


def test_scores_that_were_read_replace_the_published_ones():
    summary = [
        {"system": "dtln_float", "group": group, "pesq_wb": _MEASURED, "dnsmos_ovrl": None}
        for group in ("2.5 dB", "all")
    ]
    systems = {s["name"]: s for s in published_systems("vbdemand96", summary)}
    assert systems["DTLN"]["pesq_wb"] == _MEASURED
    assert systems["DTLN"]["dnsmos_ovrl"] == 2.841
    assert systems["RNNoise 0.1.1"]["pesq_wb"] == 2.1


def test_published_means_are_those_of_the_scores_per_file(shared_data):
    path = shared_data / "benchmark" / "vbdemand96" / "peers.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for system in published_systems("vbdemand96", []):
        own = [row for row in rows if row["peer"] == system["peer"]]
        assert len(own) == 96
        for metric in ("pesq_wb", "dnsmos_ovrl"):
            mean = sum(float(row[metric]) for row in own) / len(own)
            assert abs(mean - system[metric]) < 0.001, (system["name"], metric)
