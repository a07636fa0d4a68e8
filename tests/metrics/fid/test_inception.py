"""Inception features against pytorch-fid, torch-fidelity and clean-fid on shared random weights, and the resizes."""

import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from sana_bench.core.errors import AssetError
from sana_bench.core.images import ImageError
from sana_bench.core.preprocess import as_jpeg, crop_resized
from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics.fid import features as own
from sana_bench.metrics.fid.features import InceptionFeatures
from sana_bench.metrics.fid.inception import load_inception
from tests.float64 import assert_as_exact, in_float64
from tests.metrics.fid.inception_cases import random_state, torchscript_file


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """The whole network is slow on a CPU: pad to two images instead of sixteen."""
    monkeypatch.setattr(own, "_BATCH", 2)


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def files(state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inception")
    torch.save(state, folder / "pt_inception-2015-12-05-6726825d.pth")
    torchscript_file(folder / "inception-2015-12-05.pt", state)
    return folder / "pt_inception-2015-12-05-6726825d.pth", folder / "inception-2015-12-05.pt"


@pytest.fixture(scope="module")
def inputs():
    return torch.rand(2, 3, 299, 299, generator=torch.Generator().manual_seed(5)) * 2 - 1


def relative(ours, theirs):
    theirs = np.asarray(theirs, np.float64)
    return np.linalg.norm(np.asarray(ours, np.float64) - theirs) / np.linalg.norm(theirs)


def picture(width, height, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return (smooth + rng.integers(-20, 21, (height, width, 3))).clip(0, 255).astype(np.uint8)


# 1e-5 relative: float32 convolutions in another order, with the batch normalisation folded into them.
TOLERANCE = 1e-5


def test_features_are_those_of_pytorch_fid(files, inputs, monkeypatch, state):
    inception = pytest.importorskip("pytorch_fid.inception")
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: _with_counters(state))
    theirs = inception.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    with torch.inference_mode():
        assert relative(load_inception(files[0])(inputs), theirs(inputs)[0][:, :, 0, 0]) <= TOLERANCE


def _with_counters(state):
    counters = {
        key.replace("running_var", "num_batches_tracked"): torch.tensor(0) for key in state if "_var" in key
    }
    return state | counters


def test_features_are_those_of_torch_fidelity(files, state, tmp_path):
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.save(_with_counters(state), tmp_path / "weights.pth")
    theirs = extractor.FeatureExtractorInceptionV3("inception", ["2048"], str(tmp_path / "weights.pth"))
    # Of the size that the network wants, so that no resize takes part.
    images = torch.from_numpy(
        np.stack([picture(299, 299, seed) for seed in range(2)]).transpose(0, 3, 1, 2).copy()
    )
    np.testing.assert_array_equal(own.clean_pixels(picture(299, 299)), images[0])
    with torch.inference_mode():
        ours = load_inception(files[0])((images.float() - 128) / 128)
        assert relative(ours, theirs(images)[0]) <= TOLERANCE


def test_features_are_those_of_clean_fid(files, inputs):
    from cleanfid.inception_torchscript import InceptionV3W

    theirs = InceptionV3W(str(files[1].parent), download=False)
    grey = (inputs + 1) * 127.5
    with torch.inference_mode():
        assert relative(load_inception(files[1])((grey - 128) / 128), theirs(grey)) <= TOLERANCE


def test_both_files_give_one_network(files, inputs):
    with torch.inference_mode():
        first, second = (load_inception(path)(inputs) for path in files)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize(("width", "height"), [(1024, 1024), (301, 512), (200, 260)])
def test_clean_resize_is_clean_fids(width, height):
    from cleanfid.resize import build_resizer

    image = picture(width, height)
    # Item of the protocol: 1e-3 of 255. Pillow sums in double, torch in float.
    theirs = build_resizer("clean")(image).transpose(2, 0, 1)
    assert np.abs(own.clean_pixels(image) - theirs).max() <= 1e-3 * 255


def test_legacy_resize_is_pytorch_fids():
    from torchvision.transforms.functional import to_tensor

    image = picture(512, 512)
    theirs = torch.nn.functional.interpolate(
        to_tensor(image)[None], (299, 299), mode="bilinear", align_corners=False
    )
    # 1e-3 of 255 asked for; both scale before or after the same sums.
    assert np.abs(own.legacy_pixels(image) - 255 * theirs[0].numpy()).max() <= 1e-3


@pytest.mark.parametrize(("width", "height"), [(1024, 1024), (700, 600), (601, 707), (300, 400)])
@pytest.mark.parametrize("mode", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_crop_is_torchvisions(width, height, mode):
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    modes = {
        Image.Resampling.BILINEAR: InterpolationMode.BILINEAR,
        Image.Resampling.BICUBIC: InterpolationMode.BICUBIC,
    }
    image = picture(width, height)
    theirs = Compose([Resize(512, modes[mode]), CenterCrop(512)])(Image.fromarray(image))
    np.testing.assert_array_equal(crop_resized(image, 512, mode), np.asarray(theirs))


def samples_in(folder, sizes):
    out = []
    for place, (width, height) in enumerate(sizes):
        path = folder / f"{place}.png"
        Image.fromarray(picture(width, height, place)).save(path)
        out.append(Sample("v", "mjhq30k", Prompt(str(place), "x", "people"), 0, path))
    return out


def test_sana_chain_end_to_end(files, tmp_path, state):
    """Its whole published chain, written with the libraries it uses, against ours."""
    from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

    samples = samples_in(tmp_path, [(160, 160), (190, 150)])
    chain = Compose([Resize(128), CenterCrop(128), ToTensor()])
    planes = torch.stack(
        [chain(Image.fromarray(as_jpeg(np.asarray(Image.open(s.image_path))))) for s in samples]
    )
    planes = torch.nn.functional.interpolate(planes, (299, 299), mode="bilinear", align_corners=False)
    with torch.inference_mode():
        theirs = load_inception(files[0])(2 * planes - 1)
    ours = InceptionFeatures("fid/sana@1", files[0], {"image_size": 128}).of_samples(samples)
    assert relative(ours, theirs) <= TOLERANCE


def test_protocols_are_told_apart(files, tmp_path):
    samples = samples_in(tmp_path, [(320, 320)])
    found = {
        protocol: InceptionFeatures(protocol, files[0]).of_samples(samples)
        for protocol in ("fid/sana@1", "fid/pytorch-fid@1", "fid/clean@1")
    }
    names = list(found)
    for first, second in zip(names, names[1:] + names[:1], strict=True):
        assert relative(found[first], found[second]) > 1e-3
    keys = {InceptionFeatures(protocol, files[0]).key for protocol in names}
    assert len(keys) == 3
    clean, kid = (InceptionFeatures(protocol, files[1]) for protocol in ("fid/clean@1", "kid/clean@1"))
    assert clean.key == kid.key
    smaller = InceptionFeatures("fid/sana@1", files[0], {"image_size": 256})
    assert smaller.key != InceptionFeatures("fid/sana@1", files[0]).key


def test_features_do_not_depend_on_batches_or_order(files, tmp_path):
    """Batches are padded to one size, but a row's place in its batch may change the order of sums: whole, single and
    reversed runs are equally far from float64.
    """
    samples = samples_in(tmp_path, [(40, 40)] * 5)
    features = InceptionFeatures("fid/clean@1", files[1])
    whole = features.of_samples(samples)
    exact = in_float64(lambda: features.of_samples(samples))
    assert_as_exact(features.of_samples(samples[3:4]), whole[3:4], exact[3:4])
    assert_as_exact(features.of_samples(samples[::-1])[::-1], whole, exact)


def test_a_damaged_image_is_named(files, tmp_path):
    samples = samples_in(tmp_path, [(40, 40)] * 3)
    samples[1].image_path.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"1\.png"):
        InceptionFeatures("fid/clean@1", files[1]).of_samples(samples)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda s: {k: v for k, v in s.items() if k != "fc.bias"}, "no weight 'fc.bias'", id="missing"
        ),
        pytest.param(
            lambda s: s | {"AuxLogits.fc.bias": torch.zeros(1)}, "unknown layers: AuxLogits", id="surplus"
        ),
        pytest.param(
            lambda s: s | {"fc.bias": torch.zeros(1000)}, r"shape \(1000,\)", id="ImageNet's classes"
        ),
    ],
)
def test_other_weights_are_refused(state, tmp_path, change, message):
    torch.save(change(state), tmp_path / "x.pth")
    with pytest.raises(AssetError, match=message):
        load_inception(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["x.pth", "x.pt"])
def test_damaged_weights_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"x" * 100)
    with pytest.raises(AssetError, match="not an Inception weight file"):
        load_inception(tmp_path / name)
    with pytest.raises(AssetError, match="is missing"):
        load_inception(tmp_path / f"other-{name}")


def test_no_network_is_asked(files, inputs, monkeypatch):
    monkeypatch.setitem(sys.modules, "requests", types.ModuleType("requests"))
    with torch.inference_mode():
        assert load_inception(files[0])(inputs[:1]).shape == (1, 2048)
