# SPDX-License-Identifier: Apache-2.0
import csv

import numpy as np

from lmkd_tf.cli.evaluation_report import chosen_clips, published_systems
from lmkd_tf.data.pipeline import EvaluationClip

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


def test_clips_are_chosen_in_order_of_snr_and_those_of_unknown_snr_by_name():
    signal, unknown = np.zeros(4, np.float32), float("nan")
    labels = {"d": unknown, "b": 5.0, "c": unknown, "e": 0.0, "a": unknown, "f": 2.5}
    clips = [EvaluationClip(name, signal, signal, snr, "") for name, snr in labels.items()]
    for order in (clips, clips[::-1]):
        assert [clip.name for clip in chosen_clips(order, 6)] == list("efbacd")
