"""The checks themselves: all pass on a sound machine, and each is able to fail."""

import json
from functools import partial

import numpy as np
import pytest

from sana_bench.cli.main import execute
from sana_bench.core.registry import METRICS
from sana_bench.metrics.dpg.metric import PROTOCOLS as DPG
from sana_bench.metrics.fid import features as inception_features
from sana_bench.metrics.fid import measures
from sana_bench.metrics.geneval import mask2former
from sana_bench.metrics.geneval.metric import PROTOCOLS as GENEVAL
from sana_bench.metrics.geneval2.metric import PROTOCOLS as GENEVAL2
from sana_bench.metrics.geneval2.metric import GenEval2Metric
from sana_bench.metrics.image_reward import metric as image_reward
from sana_bench.metrics.longtext import rules as longtext
from sana_bench.metrics.longtext.metric import PROTOCOLS as LONGTEXT
from sana_bench.metrics.oneig import alignment as oneig_alignment
from sana_bench.metrics.oneig import dreamsim
from sana_bench.metrics.oneig import rules as oneig_rules
from sana_bench.metrics.oneig.alignment import PROTOCOLS as ALIGNMENT
from sana_bench.metrics.oneig.diversity import PROTOCOLS as DIVERSITY
from sana_bench.metrics.oneig.style import PROTOCOLS as STYLE
from sana_bench.metrics.oneig.style import StyleMetric
from sana_bench.metrics.oneig.text import PROTOCOLS as TEXT
from sana_bench.metrics.preference import networks
from sana_bench.metrics.preference.aesthetic import PROTOCOLS as AESTHETIC
from sana_bench.metrics.preference.hpsv3 import PROTOCOLS as HPSV3
from sana_bench.metrics.preference.metric import HPS_PROTOCOLS, PICK_PROTOCOLS
from sana_bench.metrics.selfcheck import chains, detectors, golden_files, judges, readings, sums
from sana_bench.metrics.selfcheck.check import run_checks, user_judge
from sana_bench.metrics.selfcheck.registry import all_checks, checks_for, select

PUBLISHED = (
    *GENEVAL["full"], *DPG, *GENEVAL2, *LONGTEXT, *ALIGNMENT, *TEXT, *STYLE, *DIVERSITY["full"],
    *map(user_judge, ("dpg", "geneval2", "longtext", "oneig_alignment", "oneig_text", "vqascore")),
    *inception_features.CHAINS, *image_reward.PROTOCOLS, "clip_score/sana@1", *PICK_PROTOCOLS, *AESTHETIC, *HPSV3,
    *(protocol for protocols in HPS_PROTOCOLS.values() for protocol in protocols),
)  # fmt: skip
MICRO = (
    *GENEVAL["micro"], *DIVERSITY["micro"], "clip_score/micro@1", "fid/clip-micro@1", "dpg/micro@1", "image_reward/micro@1",
    "pickscore/micro@1",
    "geneval2/micro@1", "longtext/micro@1", "oneig_alignment/micro@1", "oneig_text/micro@1",
)  # fmt: skip


def test_every_number_rests_on_checks():
    for protocol in (*PUBLISHED, *MICRO):
        assert len(checks_for([protocol])) >= 3, protocol
    served = {name.partition("/")[0] for check in all_checks() for name in check.protocols}
    assert served == set(METRICS.names())
    assert {name for check in all_checks() for name in check.protocols} == {*PUBLISHED, *MICRO}


def test_names_are_unique_and_tolerances_reasoned():
    names = [check.name for check in all_checks()]
    assert len(set(names)) == len(names)
    for check in all_checks():
        for tolerance in (check.tolerance, check.on_device or check.tolerance):
            assert tolerance.limit >= 0
            assert tolerance.because
            assert tolerance.unit
        # A looser tolerance where the device computes otherwise, never a tighter one.
        assert check.on_device is None or check.on_device.limit > check.tolerance.limit


def test_stored_values_stay_small():
    # Package data of every installation: some tens of kilobytes.
    assert sum(path.stat().st_size for path in golden_files.FOLDER.iterdir()) < 160_000


def test_the_command_passes_here(tmp_path, capsys):
    """Every check of every metric, as a user runs them."""
    assert execute(["selfcheck", "--device", "cpu", "--json", "--output", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    states = {result["name"]: result["status"] for result in told["checks"]}
    assert set(states.values()) == {"ok"}, {
        result["name"]: result["reason"] or result["error"] for result in told["checks"]
    }
    assert list(states) == [check.name for check in all_checks()]
    assert set(told["protocols"]) == {*PUBLISHED, *MICRO}
    assert told["protocols"]["geneval/official@1"] == "passed"
    assert (tmp_path / "cache" / "selfcheck" / f"{told['key']}.json").is_file()


def outcome(name):
    """Status of one check."""
    (check,) = [check for check in all_checks() if check.name == name]
    (result,) = run_checks([check], "cpu")
    return result.status


@pytest.mark.parametrize(
    ("module", "function", "wrong", "name"),
    [
        (sums, "frechet_distance", lambda *_: 1.0, "Fréchet distance: closed form"),
        (
            sums,
            "distance_between",
            lambda first, second: float(np.sum((first.mean - second.mean) ** 2)),
            "Fréchet distance: scipy's matrix root, full rank",
        ),
        (sums, "unbiased_mmd", lambda x, y: float(((x.mean(0) - y.mean(0)) ** 2).sum()), "kernel distance: clean-fid's"),
        (
            sums,
            "kernel_distance",
            partial(sums.kernel_distance, n_subsets=99),
            "kernel distance: clean-fid's mean over 100 subsets, drawn from a seed",
        ),
        (
            sums,
            "kernel_distance",
            partial(sums.kernel_distance, largest_subset=999),
            "kernel distance: clean-fid's mean over 100 subsets, drawn from a seed",
        ),
        (
            mask2former,
            "_HUB_RULES",
            [(old.replace("query", "key") if "query" in old else old.replace("key", "query"), new)
             for old, new in mask2former._HUB_RULES],
            "GenEval: mmdet's detections by the hub's files",
        ),
        (chains, "as_jpeg", lambda image: image, "JPEG of quality 75"),
        (chains, "clip_pixels", lambda image, size: np.zeros((3, size, size), np.float32), "CLIP's pixels: torchvision's"),
        (
            detectors,
            "decide",
            lambda metadata, detections: detectors_decide(metadata, detections, threshold=0.29),
            "GenEval: the official rules",
        ),
        (judges, "score_official", judges.score_strict, "DPG: the published and the corrected rules"),
        (
            readings,
            "GenEval2Metric",
            lambda protocol, judge: GenEval2Metric("geneval2/official@1", judge),
            "GenEval 2: soft scores and their means",
        ),
        (
            networks,
            "fitted_pixels",
            lambda image, side, antialias: chains.clip_pixels(image, side),
            "HPS: the original package's scores",
        ),
        (networks.math, "floor", round, "PickScore: the model card's scores"),
        (
            dreamsim,
            "_IMAGENET_MEAN",
            dreamsim.CLIP_MEAN,
            "DreamSim: the package's embeddings of a small ensemble",
        ),
        (oneig_alignment, "_YES", "No", "OneIG-Bench: alignment through a graph of questions"),
        (oneig_rules, "HALLUCINATED", (), "OneIG-Bench: text"),
        (
            readings,
            "StyleMetric",
            lambda protocol, judged, sha256: StyleMetric(protocol, judged[:1], sha256),
            "OneIG-Bench: nearest references of two encoders",
        ),
        (
            measures,
            "NEAREST",
            3,
            "precision, recall, density, coverage, Vendi, CMMD: worked out by hand",
        ),
        (
            measures,
            "_BANDWIDTH",
            1.0,
            "precision, recall, density, coverage, Vendi, CMMD: worked out by hand",
        ),
        (longtext, "HALLUCINATED", ("No text recognized.", "addCriterion"), "LongText-Bench: words and characters"),
    ],
)  # fmt: skip
def test_a_wrong_number_is_caught(monkeypatch, module, function, wrong, name):
    assert outcome(name) == "ok"
    monkeypatch.setattr(module, function, wrong)
    assert outcome(name) == "failed"


detectors_decide = detectors.decide


def test_other_bootstrap_draws_are_caught(monkeypatch):
    name = "bootstrap intervals of a fixed sample"
    draw = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: draw(seed + 1))
    assert outcome(name) == "failed"


def test_a_detector_that_sees_nothing_is_caught(monkeypatch):
    monkeypatch.setattr("sana_bench.metrics.geneval.detector.MicroDetector.detect", lambda *_: [])
    assert outcome("GenEval: micro detector on drawn scenes") == "failed"


def test_other_micro_weights_are_not_vouched_for(monkeypatch, tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "model.safetensors").write_bytes(b"others")
    monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(tmp_path))
    assert outcome("micro CLIP: scores of stored images") == "skipped"


def test_metrics_and_protocols_select(tmp_path, capsys):
    assert {name for check in select(["kid"]) for name in check.protocols if name.startswith("kid")} == {
        "kid/clean@1"
    }
    assert [check.name for check in select(["image_reward/official@1"])] == [
        check.name for check in checks_for(["image_reward/official@1"])
    ]
    assert execute(["selfcheck", "genevl", "--output", str(tmp_path)]) == 2
    assert "did you mean 'geneval'?" in capsys.readouterr().err
