"""`sana_bench.run` and `sana_bench.score`: the command line's work and numbers, as calls that raise instead of exiting."""

import threading

import numpy as np
import pytest

import sana_bench
from tests import suite_files
from tests.runner import fakes
from tests.runner import numbers_of_runs as numbers

N = 4 * fakes.N_PROMPTS


@pytest.fixture
def run(world):
    """The world's suite as a call."""

    def call(**given):
        return sana_bench.run(world.suite, output=world.output, **{"tier": "micro", "quiet": True, **given})

    return call


def test_a_call_is_the_command(world, run) -> None:
    assert world.run() == 0
    before = numbers.summaries(world.output), numbers.image_bytes(world.output)
    found = run()
    assert found.complete
    assert (numbers.summaries(world.output), numbers.image_bytes(world.output)) == before
    assert fakes.FakeGenerator.batches == [N, N]
    assert numbers.sessions(world.output)[1]["command"] == (
        f"sana_bench.run({str(world.suite)!r}, tier='micro', output={str(world.output)!r})"
    )


def test_options_of_a_call(world, run) -> None:
    found = run(limit=2, variants="fake-4", set={"variants.fake-4.sampler.steps": 3}, allow_incomplete=True)
    assert found.variants == ["fake-4[steps=3]", "fake-2"]
    table = found.table()
    assert table["variant"].unique().tolist() == ["fake-4[steps=3]"]
    assert not table["complete"].any()
    assert table["n_samples"].tolist() == [2, 2]
    assert not found.complete
    assert found.reasons["fake-4[steps=3]"][0] == f"shapes has 2/{N} images"


def test_quiet_prints_nothing_and_otherwise_plain_lines(run, capsys) -> None:
    run()
    assert capsys.readouterr() == ("", "")
    run(quiet=False)
    out, error = capsys.readouterr()
    assert out.startswith("tier: micro")
    assert not {"\r", "\x1b"} & set(out)
    assert error == ""


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"variants": ["fake-3"]}, "no micro variant 'fake-3'"),
        ({"tier": "small"}, "tier 'small': one of auto, micro, full"),
        ({"limit": 0}, "limit: 0 is not a whole number from 1 up"),
        ({"batch_size": -1}, "batch_size: -1 is not a whole number from 1 up"),
        ({"workers": 0}, "workers: 0 is not a whole number from 1 up"),
        ({"engine": "rey"}, "engine 'rey': one of auto, local, ray (did you mean 'ray'?)"),
        ({"worker_timeout": 0}, "worker_timeout 0: expected seconds"),
        ({"worker_timeout": 5.0}, "--worker-timeout goes with --workers, --address or --engine ray"),
        ({"limit": 2.5}, "limit: 2.5 is not a whole number from 1 up"),
        ({"set": {"sed": 3}}, "unknown key 'sed' (did you mean 'seed'?)"),
        ({"set": {"seed": object()}}, "set: seed: Object of type object is not JSON serializable"),
        ({"set": {"seed": float("nan")}}, "set: seed: Out of range float values"),
    ],
)
def test_errors_are_types_of_one_line_and_nothing_is_written(world, run, given, line) -> None:
    with pytest.raises(sana_bench.UsageError) as caught:
        run(**given)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not world.output.exists()


def test_a_stop_is_a_keyboard_interrupt_and_the_same_call_goes_on(world, run, monkeypatch, capsys) -> None:
    draw = fakes.FakeGenerator.generate

    def generate(self, requests):
        if fakes.FakeGenerator.batches:
            raise KeyboardInterrupt
        return draw(self, requests)

    with monkeypatch.context() as patch:
        patch.setattr(fakes.FakeGenerator, "generate", generate)
        with pytest.raises(KeyboardInterrupt):
            run(quiet=False)
    assert "interrupted: 24 of 48 images are done and kept" in capsys.readouterr().out
    assert run().complete


def test_a_run_works_in_a_thread(run) -> None:
    found = []
    worker = threading.Thread(target=lambda: found.append(run()))
    worker.start()
    worker.join()
    assert found[0].complete


@pytest.mark.parametrize("several", [False, True])
def test_one_folder_to_compare_with_is_a_name_and_not_its_letters(tmp_path, monkeypatch, several) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("grey.py").write_text("def grey(image, prompt):\n    return image.mean()\n")
    for name, value in (("a", 10), ("b", 20)):
        image = np.full((8, 8, 3), value, np.uint8)
        suite_files.write_images(
            tmp_path / name, [({"id": str(i), "prompt": f"{i}", "file": f"{i}.png"}, image) for i in range(3)]
        )
    given = (
        {"compare": ["b"], "metrics": ["./grey.py:grey"]}
        if several
        else {"compare": "b", "metrics": "./grey.py:grey"}
    )
    found = sana_bench.score("a", tier="micro", quiet=True, **given)
    assert found.table()["value"].tolist() == [10, 20]
    (comparison,) = found.comparisons
    assert comparison.table().set_index("metric").loc["grey", "difference"] == 10
