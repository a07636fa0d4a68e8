"""Small data sets in both formats: flat red or blue pictures of several shapes, with captions and CLIP scores; and the
settings of a small text encoder that learns them.
"""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

# Height and width; the first two share a bucket at 16 pixels.
SIZES = ((32, 32), (40, 40), (24, 48), (64, 32))


TEXT_ENCODER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 32,
}


def picture(index: int) -> bytes:
    height, width = SIZES[index % len(SIZES)]
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0 if index % 2 else 2] = 180 + index
    pixels[: height // 2, : width // 2] //= 2
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def caption(index: int) -> str:
    return f"a photo of a {'red' if index % 2 else 'blue'} dot"


def write_folder(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    names = []
    for index in range(count):
        key = f"{index:04d}"
        (folder / f"{key}.png").write_bytes(picture(index))
        (folder / f"{key}.txt").write_text(caption(index))
        (folder / f"{key}_vlm.json").write_text(json.dumps({key: {"vlm": f"{caption(index)} dot"}}))
        (folder / f"{key}_vlm_clip_score.json").write_text(json.dumps({key: {"vlm": "27.5"}}))
        (folder / f"{key}_prompt_clip_score.json").write_text(json.dumps({key: {"prompt": str(20 + index)}}))
        names.append(key if index % 2 else f"{key}.png")
    meta = {"name": "dots", "__kind__": "Sana-ImgDataset", "img_names": names}
    (folder / "meta_data.json").write_text(json.dumps(meta))
    return folder


def write_shards(folder: Path, counts: tuple[int, ...], *, latents: bool = False) -> Path:
    folder.mkdir(parents=True)
    shards, index = [], 0
    for number, count in enumerate(counts):
        path = folder / f"{number:05d}.tar"
        scores = {}
        with tarfile.open(path, "w") as archive:
            for _ in range(count):
                key = f"{index:06d}"
                height, width = SIZES[index % len(SIZES)]
                facts = {"height": height, "width": width, "prompt": caption(index)}
                files = {".json": json.dumps(facts).encode()}
                if latents:
                    buffer = io.BytesIO()
                    np.save(buffer, np.full((4, 2, 3), index / 10, np.float16))
                    files[".npy"] = buffer.getvalue()
                else:
                    files[".png"] = picture(index)
                for suffix, content in files.items():
                    member = tarfile.TarInfo(f"{key}{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
                scores[key] = {"prompt": str(20 + index)}
                index += 1
        (folder / f"{number:05d}_prompt_clip_score.json").write_text(json.dumps(scores))
        shards.append({"url": path.name, "nsamples": count, "filesize": path.stat().st_size})
    meta = {"name": "dots", "__kind__": "SANA-WebDataset", "wids_version": 1, "shardlist": shards}
    (folder / "wids-meta.json").write_text(json.dumps(meta))
    return folder
