"""Weight files of arbitrary bytes: each reader says so in one line."""

import pytest

from sana_bench.core.errors import AssetError
from sana_bench.judges.mplug.files import _tensors as read_mplug
from sana_bench.metrics.fid.inception import _read as read_inception
from sana_bench.metrics.image_reward.network import _read as read_reward

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
