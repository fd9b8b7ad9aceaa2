# SPDX-License-Identifier: Apache-2.0
"""Writes the model cards of the presets, docs/presets.md (for maintainers).

Usage:
  python -m lmkd_tf.cli.preset_cards [--scores=OUT/scores.json ...] [--output=docs/presets.md]

`--scores` puts results of lmkd-evaluate into the records of the presets that were scored: they
must have been computed with the very files that ship. Everything else is in the records already.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from lmkd_tf.cli.common import run_program
from lmkd_tf.cli.preset import public_command
from lmkd_tf.config.files import atomic_path, read_json, sha256_of, write_json
from lmkd_tf.models.presets import preset_files, preset_names

METRICS = {
    "pesq_wb": ("PESQ-WB", 2),
    "stoi": ("STOI", 3),
    "si_sdr_db": ("SI-SDR (dB)", 1),
    "dnsmos_sig": ("SIG", 2),
    "dnsmos_bak": ("BAK", 2),
    "dnsmos_ovrl": ("OVRL", 2),
}
# label -> (file of a preset, back-end that is scored)
_KINDS = {"float": ("weights", "keras"), "int8 (TFLM)": ("tflite", "tflm")}
_STAGE_LABELS = {"teacher": "alone", "network": "alone", "quantized": "quantization-aware"}
_HEADER = """# Presets

What the networks that ship with the package are for, how they were trained, what they reach and
where they fail. Written by `python -m lmkd_tf.cli.preset_cards` from their records,
`lmkd_tf/presets/*.json`.

**For**: one talker at 16 kHz, near or at arm's length from the microphone, in steady or changing
noise, from -5 dB SNR on. **Not for**: other rates, reverberation (it stays), several talkers to be
kept apart (all of them stay), music, medical or safety decisions.
Trained on read speech in few languages; not tested for fairness over age, accent or language.

Scores are plain means over clips; in brackets 95 % bootstrap intervals. `test` is the held-out
split of the training corpora (other speakers and noises), `vbdemand96` 96 utterances of the
VoiceBank+DEMAND test set (CC BY 4.0), of which nothing was trained on; no score of it chose
anything between two candidates, but looking at its clips led to `room_tone_probability` and its SIG
to `magnitude_asymmetry` of `nano`. A PESQ-shaped term was part of the loss.

Trained on (corpus `data`), speech: speechocean762 (English of Mandarin speakers), LibriSpeech
(CC BY 4.0 both), Picovoice speech-to-intent-benchmark (Apache-2.0), CMU AN4 (BSD-like), and three
voices of rhasspy in English, Dutch and Flemish (CC0); noise: ESC-10, clips of ESC-50 that are CC0
or CC BY, ambience loops (CC0, CC BY, public domain), the background noise of Speech Commands
(CC BY 4.0), and babble summed from voices of the same split.

Where an earlier preset is named, training went on from its weights: where `nano`, `small` and
`base` had no recurrences yet, from those that fit.
"""


def main(arguments: list[str]) -> None:
    """Runs the program."""
    del arguments
    for path in flags.FLAGS.scores:
        add_scores(Path(path))
    with atomic_path(Path(flags.FLAGS.output)) as temporary:
        temporary.write_text(page())


def add_scores(path: Path) -> list[str]:
    """Puts the scores of one evaluation into the records of the presets that it scored.

    Args:
        path: `scores.json` of lmkd-evaluate.

    Returns:
        The names of these presets.

    Raises:
        ValueError: If it scored no file of a preset as it ships, or one arithmetic alone.
    """
    results = read_json(path)
    found = _scored_presets(results)
    if not found:
        raise ValueError(
            "Scores belong to a preset only if they were computed with its files. "
            f"Received {path}, which scored none of them as they ship. Run lmkd-evaluate again."
        )
    where = results["settings"]["benchmark"] or results["settings"]["split"]
    for name, systems in found.items():
        _check_complete(name, systems, path)
        record = read_json(preset_files(name)["record"])
        labels = [label for label in ("noisy", *_KINDS) if label in systems]
        entry = {label: _scores_of(results, systems[label]) for label in labels}
        record.setdefault("scores", {})[where] = {
            "git_commit": results["git_commit"],
            "bootstrap_seed": results["bootstrap_seed"],
            "systems": entry,
            "worse_than_noisy": _worse_than_noisy(results["rows"], systems[labels[-1]]),
        }
        write_json(preset_files(name)["record"], record)
    return sorted(found)


def _scored_presets(results: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Returns preset -> label of an arithmetic -> name of the system that is the preset in it."""
    digests = {
        (sha256_of(files[kind]), backend): (name, label)
        for name, files in ((name, preset_files(name)) for name in preset_names())
        for label, (kind, backend) in _KINDS.items()
        if kind in files
    }
    names = [system["name"] for system in results["systems"]]
    found: dict[str, dict[str, str]] = {}
    for system in results["systems"]:
        is_network = isinstance(system.get("sha256"), dict)  # a folder of files has one digest
        for digest in system["sha256"].values() if is_network else ():
            key = digest, system["backend"]
            if key in digests and names.count(system["name"]) == 1:  # not one of several seeds
                name, label = digests[key]
                found.setdefault(name, {"noisy": "noisy"})[label] = system["name"]
    return found


def _check_complete(name: str, systems: dict[str, str], path: Path) -> None:
    """Refuses scores of one arithmetic alone, which would take the place of those of both."""
    files = preset_files(name)
    needed = {label: backend for label, (kind, backend) in _KINDS.items() if kind in files}
    if needed.keys() - systems.keys():
        wanted = " ".join(f"--system={name}@{backend}" for backend in needed.values())
        raise ValueError(
            "A card shows every arithmetic of a preset on the same clips. "
            f"Received {path} with {', '.join(systems)} of {name!r} alone. Score {wanted}."
        )


def page() -> str:
    """Returns the cards of all presets as Markdown."""
    return "\n".join([_HEADER, *(card(name) for name in preset_names())])


def card(name: str) -> str:
    """Returns the card of one preset as Markdown."""
    record = read_json(preset_files(name)["record"])
    parts = [f"## {name}", _cost(name), _training(record)]
    for where, scores in sorted(record.get("scores", {}).items()):
        parts += [_score_table(where, scores), _failures(scores)]
    if "scores" not in record:
        parts.append("Not scored yet.")
    return "\n\n".join(parts) + "\n"


def _scores_of(results: dict[str, Any], system: str) -> dict[str, Any]:
    """Returns group -> metric -> [mean, low, high] of a system, over SNRs and over all clips."""
    return {
        row["group"]: {
            "num_clips": row["num_clips"],
            **{m: [round(row[m][k], 4) for k in ("mean", "low", "high")] for m in METRICS},
        }
        for row in results["summary"]
        if row["system"] == system
    }


def _worse_than_noisy(rows: Sequence[dict[str, Any]], system: str) -> dict[str, Any]:
    """Returns metric -> how many clips the system made worse, and the worst of them."""
    noisy = {row["file"]: row for row in rows if row["system"] == "noisy"}
    scored = [row for row in rows if row["system"] == system]
    worse: dict[str, Any] = {}
    for metric in ("pesq_wb", "stoi", "si_sdr_db"):
        pairs = [(row, noisy[row["file"]][metric]) for row in scored]
        losses = [
            {
                "loss": round(before - row[metric], 4),
                "snr_db": row["snr_db"],
                "noise_category": row["noise_category"],
            }
            for row, before in pairs
            if None not in (row[metric], before) and row[metric] < before
        ]
        worst = max(losses, key=lambda entry: entry["loss"], default=None)
        worse[metric] = {"num_clips": len(losses), "worst": worst}
    return worse


def _cost(name: str) -> str:
    from lmkd_tf.evaluate.cost import float_cost, quantized_cost
    from lmkd_tf.models.presets import from_preset

    files = preset_files(name)
    parameters = float_cost(from_preset(name))["parameters"]
    if "tflite" not in files:
        return (
            f"Float only: {parameters:,} parameters. It hears whole utterances, so it neither "
            f"streams nor runs on a device. `from_preset({name!r})`."
        )
    cost = quantized_cost(files["tflite"])
    states = read_json(files["manifest"])["states"]
    state_bytes = sum(state["bytes"] for state in states)
    return (
        f"Causal, 32 ms of latency, float and int8: {parameters:,} parameters, "
        f"{cost['macs_per_hop']:,} MACs per hop of 16 ms; in int8 a file of {cost['bytes']:,} "
        f"bytes, {state_bytes:,} bytes of state and an arena of {cost['arena_bytes']:,} bytes.\n"
        f"`from_preset({name!r})`, `lmkd-enhance --preset={name}`."
    )


def _training(record: dict[str, Any]) -> str:
    lines = ["| trained | steps | pairs per step | highest learning rate | minutes | commit |"]
    lines.append("|---|---:|---:|---:|---:|---|")
    commands = []
    for label, stage, training in _stages(record["training"]):
        train = _train_settings(stage, training["settings"])
        steps, run = train["epochs"] * train["steps_per_epoch"], training.get("run", {})
        lines.append(
            f"| {label} | {steps:,} | {train['batch_size']} | {train['learning_rate']:g} | "
            f"{training['seconds'] / 60:.0f} | {(run.get('git_commit') or '-')[:7]} |"
        )
        commands += [f"`{public_command(run['command'])}`"] if run.get("command") else []
    last = record["record"]
    facts = [f"Seed {last['seed']}", f"configuration `{last['config']['name']}`"]
    if "corpus" in last:  # came later, as well
        corpus = last["corpus"]
        facts.append(f"corpus `{corpus['name']}`: {corpus['train_speech_hours']} h of speech")
        facts.append(f"{corpus['train_noise_hours']} h of noise")
    facts += [last["machine"], f"commit {last['git_commit'] or 'not recorded'}"]
    commands = ["Commands recorded: " + ", ".join(commands) + "."] if commands else []
    return "\n\n".join(["\n".join(lines), f"{', '.join(facts)}.", *commands])


def _stages(training: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yields label, stage and training of every stage that trained, earlier presets first."""
    for stage, entry in training.items():
        if stage == "before":
            yield from _stages(entry, "earlier preset, ")
        elif stage == "student":
            method = entry["settings"]["distill"]["method"]
            how = "alone, further" if method == "no_kd" else f"distilled (`{method}`)"
            yield prefix + how, stage, entry
        elif stage in _STAGE_LABELS:
            yield prefix + _STAGE_LABELS[stage], stage, entry


def _train_settings(stage: str, settings: dict[str, Any]) -> dict[str, Any]:
    if stage == "quantized":
        return settings["compress"]["quantization"]
    return settings["distillation_training" if stage == "student" else f"{stage}_training"]


def _score_table(where: str, scores: dict[str, Any]) -> str:
    lines = [
        f"| `{where}` | SNR | clips | " + " | ".join(title for title, _ in METRICS.values()) + " |",
        "|---|---|---:|" + "---:|" * len(METRICS),
    ]
    for label, groups in scores["systems"].items():
        for group, row in groups.items():
            if group == "mean of SNRs":
                continue
            cells = [_cell(row[m], digits, group == "all") for m, (_, digits) in METRICS.items()]
            lines.append(f"| {label} | {group} | {row['num_clips']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float], digits: int, has_interval: bool) -> str:
    mean, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{mean} [{low}, {high}]" if has_interval else mean


def _failures(scores: dict[str, Any]) -> str:
    count = next(iter(scores["systems"].values()))["all"]["num_clips"]
    label = list(scores["systems"])[-1]
    texts = []
    for metric, lost in scores["worse_than_noisy"].items():
        (title, digits), worst = METRICS[metric], lost["worst"]
        if worst is None:
            texts.append(f"{title} on no clip")
            continue
        noise = worst["noise_category"].replace("_", " ")
        where = f"{worst['snr_db']:g} dB" + ("" if noise == "benchmark" else f" of {noise}")
        texts.append(
            f"{title} on {lost['num_clips']} of {count} (at the worst by "
            f"{worst['loss']:.{digits}f}, at {where})"
        )
    return f"Below the noisy input, {label}: {'; '.join(texts)}."


def run() -> None:
    """Entry point."""
    flags.DEFINE_multi_string("scores", [], "scores.json of lmkd-evaluate; may be repeated.")
    flags.DEFINE_string("output", "docs/presets.md", "Where the page is written.")
    run_program(main, __doc__ or "", ("scores", "output"))


if __name__ == "__main__":
    run()
