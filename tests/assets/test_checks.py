"""Weight files of arbitrary bytes: each reader says so in one line."""

import pytest

from sana_bench.assets.checks import check_fit
from sana_bench.core.errors import AssetError
from sana_bench.judges.mplug.files import _tensors as read_mplug
from sana_bench.metrics.fid.inception import _read as read_inception
from sana_bench.metrics.image_reward.network import _read as read_reward
from tests import ROOT

# Pickles that stop, pop from nothing, recall what was not kept, or call what is no function.
JUNK = (
    b"",
    b"\x80",
    b"\x80\x02.",
    b"0.",
    b"h\x07.",
    b"\x80\x02)R.",
    b"\x80\x02K\x01b.",
    b"\x89PNG\r\n",
    b"PK\x03\x04",
)


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("read", [read_reward, read_inception, read_mplug])
@pytest.mark.parametrize("name", ["w.bin", "w.safetensors"])
def test_junk_is_one_line(read, name, junk, tmp_path):
    path = tmp_path / name
    path.write_bytes(junk)
    with pytest.raises(AssetError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


INFO = {"missing_keys": {"b", "a"}, "unexpected_keys": ["c"], "mismatched_keys": [("d", (1,), (2,))]}


def test_weights_that_do_not_fit_are_counted_by_what_is_wrong(tmp_path):
    check_fit(tmp_path, "a network", dict.fromkeys(INFO, ()))
    check_fit(tmp_path, "a network", {})
    told = r"do not fit a network: 2 missing \(a, b\); 1 of unknown layers \(c\); 1 of another shape \(\('d',"
    with pytest.raises(AssetError, match=told):
        check_fit(tmp_path, "a network", INFO)
    for key in INFO:
        with pytest.raises(AssetError, match=r"do not fit a network: \d "):
            check_fit(tmp_path, "a network", {key: INFO[key]})
    many = {"missing_keys": [f"layer{place}" for place in range(9)]}
    with pytest.raises(AssetError, match=r"9 missing \(layer0, layer1, layer2\)$"):
        check_fit(tmp_path, "a network", many)


def test_every_reader_that_is_told_what_does_not_fit_checks_it():
    readers = [
        path for path in (ROOT / "sana_bench").rglob("*.py") if "output_loading_info" in path.read_text()
    ]
    assert len(readers) >= 5
    assert [path.name for path in readers if "check_fit(" not in path.read_text()] == []
