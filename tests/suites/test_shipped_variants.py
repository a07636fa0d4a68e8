"""The variant files under `suites/variants`: each is valid and is what it says."""

from tests import ROOT

FOLDER = ROOT / "suites" / "variants"


def test_every_variant_file_is_valid() -> None:
    from sana_bench.suites.find import variant_files
    from sana_bench.suites.load import load_variant

    files = variant_files(FOLDER)
    assert {"sana-micro", "sana-micro-8-steps", "sana-1.6b-1024"} <= set(files)
    for name, path in files.items():
        assert load_variant(path).name == name


def test_variants_made_from_the_published_models_differ_from_their_origin_as_they_say() -> None:
    from sana_bench.assets.table import repositories_of
    from sana_bench.suites.find import variant_files
    from sana_bench.suites.load import load_variant
    from sana_models import SANA_CONFIGS

    found = {name: load_variant(path) for name, path in variant_files(FOLDER).items()}
    whole = found["sana-1.5-4.8b-1024"]
    same = {"model", "sampler", "precision", "quantization"}
    for candidates in (32, 2048):
        best = found[f"{whole.name}-best-of-{candidates}"]
        assert (best.kind, best.derived_from) == ("inference_scaled", whole.name)
        assert best.model_dump(include=same) == whole.model_dump(include=same)
        assert (best.best_of_n.candidates, best.best_of_n.keep) == (candidates, 4)
        assert (best.best_of_n.generator, best.best_of_n.judge.name) == ("sana", "vila")
    names = [repository.name for repository in repositories_of([best], FOLDER)]
    assert names == [whole.model.weights, "Efficient-Large-Model/NVILA-Lite-2B-Verifier"]
    for size in ("2.4b", "3.2b"):
        pruned = found[f"sana-1.5-{size}-1024"]
        assert (pruned.kind, pruned.derived_from) == ("pruned", whole.name)
        # The description tells the depth of the size that the library knows.
        assert f"{SANA_CONFIGS[f'sana1.5-{size}-1024'].num_layers} of 60 blocks" in pruned.description
        assert pruned.sampler == whole.sampler


def test_every_row_of_sana_in_the_published_tables_has_a_variant() -> None:
    from sana_bench.suites.find import variant_files
    from sana_bench.suites.load import load_variant
    from sana_reports.published import PUBLISHED

    found = [title for path in variant_files(FOLDER).values() for title in load_variant(path).published]
    assert len(set(found)) == len(found)
    own = {
        row.title for row in PUBLISHED if row.model.startswith(("Sana-", "SANA")) and "OneIG" not in row.paper
    }
    assert own <= set(found)
