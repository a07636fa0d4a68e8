"""A tiny NVILA directory in the published layout, and the same network written out plainly in float64."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

SIDE, PATCH, WIDTH_SEEN, HEADS_SEEN, LAYERS_SEEN = 56, 14, 8, 2, 3
WIDTH, HEADS, GROUPS, LAYERS, THETA = 16, 2, 1, 2, 1e6
# Entries of the embedding that no token has, as in the published files.
UNUSED_ROWS = 8
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TOP = {
    "model_type": "vila",
    "image_aspect_ratio": "dynamic",
    "min_tiles": 1,
    "max_tiles": 12,
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "cls_patch",
    "image_encoder": '{"_target_": "llava.model.encoders.BasicImageEncoder"}',
    "dynamic_s2": False,
    "s2": False,
    "chat_template": None,
}
VISION = {
    "model_type": "siglip_vision_model",
    "image_size": SIDE,
    "patch_size": PATCH,
    "hidden_size": WIDTH_SEEN,
    "intermediate_size": 12,
    "num_attention_heads": HEADS_SEEN,
    "num_hidden_layers": LAYERS_SEEN,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu_pytorch_tanh",
    "vision_use_head": False,
}
PREPARATION = {
    "image_processor_type": "SiglipImageProcessor",
    "size": {"height": SIDE, "width": SIDE},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": 3,
}
LANGUAGE = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": THETA,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "hidden_act": "silu",
}


def tokenizer():
    """Qwen2's own kind over bytes, with yes and no as whole words."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    pieces = [*sorted(ByteLevel.alphabet()), "ye", "yes", "no"]
    made = Qwen2Tokenizer(
        vocab={piece: place for place, piece in enumerate(pieces)},
        merges=[("y", "e"), ("ye", "s"), ("n", "o")],
        eos_token="<|im_end|>",
        model_max_length=4096,
    )
    made.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    made.add_tokens(["<vila/sentinel>", "<image>", "<vila/video>"], special_tokens=True)
    made.chat_template = TEMPLATE
    return made


def shapes_language(rows: int) -> dict[str, tuple[int, ...]]:
    width, inner, head = WIDTH, LANGUAGE["intermediate_size"], WIDTH // HEADS
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (rows, width)}
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        shapes |= {
            f"{at}.input_layernorm.weight": (width,),
            f"{at}.post_attention_layernorm.weight": (width,),
        }
        for name, out in (("q", width), ("k", GROUPS * head), ("v", GROUPS * head)):
            shapes |= {
                f"{at}.self_attn.{name}_proj.weight": (out, width),
                f"{at}.self_attn.{name}_proj.bias": (out,),
            }
        shapes[f"{at}.self_attn.o_proj.weight"] = (width, width)
        shapes |= {f"{at}.mlp.{name}_proj.weight": (inner, width) for name in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj.weight"] = (width, inner)
    return shapes | {"model.norm.weight": (width,)}


def shapes_vision() -> dict[str, tuple[int, ...]]:
    width, inner = WIDTH_SEEN, VISION["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.patch_embedding.weight": (width, 3, PATCH, PATCH),
        "embeddings.patch_embedding.bias": (width,),
        "embeddings.position_embedding.weight": ((SIDE // PATCH) ** 2, width),
    }
    linear = {"mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
    linear |= {f"self_attn.{name}": (width, width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
    for i in range(LAYERS_SEEN):
        for name, shape in linear.items():
            shapes |= {
                f"encoder.layers.{i}.{name}.weight": shape,
                f"encoder.layers.{i}.{name}.bias": shape[:1],
            }
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"encoder.layers.{i}.{name}.{part}": (width,) for part in ("weight", "bias")}
    shapes |= {"post_layernorm.weight": (width,), "post_layernorm.bias": (width,)}
    return {f"vision_model.{name}": shape for name, shape in shapes.items()}


def shapes_projector(merge: int) -> dict[str, tuple[int, ...]]:
    merged, middle = merge * merge * WIDTH_SEEN, 3 * WIDTH_SEEN
    sizes = {1: (merged,), 2: (WIDTH, merged), 4: (WIDTH, WIDTH)}
    if merge == 3:
        sizes = {1: (merged,), 2: (middle, merged), 4: (middle,), 5: (WIDTH, middle), 7: (WIDTH, WIDTH)}
    return {
        f"layers.{place}.{part}": size if part == "weight" else size[:1]
        for place, size in sizes.items()
        for part in ("weight", "bias")
    }


def draw(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Weights large enough that every part shows in the answer; norms near one."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in shapes.items():
        values = rng.normal(0, 0.3, shape)
        if "norm" in name and name.endswith("weight"):
            values += 1.0
        state[name] = torch.from_numpy(values.astype(np.float32))
    return state


def write_directory(folder: Path, *, merge: int = 3, seed: int = 0, **top) -> Path:
    """Write the published layout: three parts, the language model's weights in two files with an index."""
    words = tokenizer()
    rows = len(words) + UNUSED_ROWS
    for name, content in (
        ("config.json", TOP | top),
        ("llm/config.json", LANGUAGE | {"vocab_size": rows}),
        ("vision_tower/config.json", VISION),
        ("vision_tower/preprocessor_config.json", PREPARATION),
        ("mm_projector/config.json", {"mm_projector_type": f"mlp_downsample_{merge}x{merge}_fix"}),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    words.save_pretrained(folder / "llm")
    language = draw(shapes_language(rows), seed)
    files = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    index = {name: files[place % 2] for place, name in enumerate(language)}
    for file in files:
        save_file({name: language[name] for name in index if index[name] == file}, folder / "llm" / file)
    (folder / "llm/model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    save_file(draw(shapes_vision(), seed + 1), folder / "vision_tower/model.safetensors")
    save_file(draw(shapes_projector(merge), seed + 2), folder / "mm_projector/model.safetensors")
    return folder


class ByHand:
    """The network in float64, sums and loops only."""

    def __init__(self, merge: int = 3, seed: int = 0) -> None:
        self.words = tokenizer()
        self.merge = merge
        rows = len(self.words) + UNUSED_ROWS
        parts = shapes_language(rows), shapes_vision(), shapes_projector(merge)
        self.language, self.vision, self.projector = (
            {name: value.double().numpy() for name, value in draw(shapes, seed + place).items()}
            for place, shapes in enumerate(parts)
        )

    def log_probabilities(self, tiles: np.ndarray, ids: list[int]) -> np.ndarray:
        """Of every token of the tokenizer, after `ids` with its image tokens replaced by tiles (T, 3, S, S)."""
        image, newline = self.words.convert_tokens_to_ids("<image>"), self.words("\n").input_ids
        table = self.language["model.embed_tokens.weight"]
        blocks = iter([*self.project(self.see(tile)), *table[newline]] for tile in tiles)
        rows = []
        for token in ids:
            rows += next(blocks) if token == image else [table[token]]
        assert next(blocks, None) is None
        logits = self.read(np.array(rows))[: len(self.words)]
        return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()

    def see(self, tile: np.ndarray) -> np.ndarray:
        """The second last of SigLIP's hidden states, (patches, width)."""
        get = {name.removeprefix("vision_model."): value for name, value in self.vision.items()}
        kernel = get["embeddings.patch_embedding.weight"].reshape(WIDTH_SEEN, -1)
        side = SIDE // PATCH
        x = np.array(
            [
                kernel @ tile[:, r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH].reshape(-1)
                for r in range(side)
                for c in range(side)
            ]
        )
        x = x + get["embeddings.patch_embedding.bias"] + get["embeddings.position_embedding.weight"]
        for i in range(LAYERS_SEEN - 1):
            part = {
                name.removeprefix(f"encoder.layers.{i}."): value
                for name, value in get.items()
                if name.startswith(f"encoder.layers.{i}.")
            }
            y = layer_norm(x, part["layer_norm1.weight"], part["layer_norm1.bias"], 1e-6)
            q, k, v = (
                y @ part[f"self_attn.{n}_proj.weight"].T + part[f"self_attn.{n}_proj.bias"] for n in "qkv"
            )
            mixed = attend(q, k, v, HEADS_SEEN, HEADS_SEEN, causal=False)
            x = x + mixed @ part["self_attn.out_proj.weight"].T + part["self_attn.out_proj.bias"]
            y = layer_norm(x, part["layer_norm2.weight"], part["layer_norm2.bias"], 1e-6)
            y = y @ part["mlp.fc1.weight"].T + part["mlp.fc1.bias"]
            y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
            x = x + y @ part["mlp.fc2.weight"].T + part["mlp.fc2.bias"]
        return x

    def project(self, x: np.ndarray) -> np.ndarray:
        y = merge_by_hand(x, self.merge)
        places = sorted({int(name.split(".")[1]) for name in self.projector})
        for place in places:
            weight, bias = self.projector[f"layers.{place}.weight"], self.projector[f"layers.{place}.bias"]
            if weight.ndim == 1:
                y = layer_norm(y, weight, bias, 1e-5)
            else:
                y = y @ weight.T + bias
                y = y if place == places[-1] else gelu(y)
        return y

    def read(self, x: np.ndarray) -> np.ndarray:
        """Qwen2's logits after the last of the vectors (L, width)."""
        for i in range(LAYERS):
            at = f"model.layers.{i}"
            part = {n.removeprefix(f"{at}."): v for n, v in self.language.items() if n.startswith(f"{at}.")}
            y = rms_norm(x, part["input_layernorm.weight"])
            q, k, v = (
                y @ part[f"self_attn.{n}_proj.weight"].T + part[f"self_attn.{n}_proj.bias"] for n in "qkv"
            )
            mixed = attend(rotate(q, HEADS), rotate(k, GROUPS), v, HEADS, GROUPS, causal=True)
            x = x + mixed @ part["self_attn.o_proj.weight"].T
            y = rms_norm(x, part["post_attention_layernorm.weight"])
            gate, up = (y @ part[f"mlp.{n}_proj.weight"].T for n in ("gate", "up"))
            x = x + (gate / (1 + np.exp(-gate)) * up) @ part["mlp.down_proj.weight"].T
        last = rms_norm(x[-1:], self.language["model.norm.weight"])[0]
        return self.language["model.embed_tokens.weight"] @ last


def merge_by_hand(x: np.ndarray, merge: int) -> np.ndarray:
    """Every token of the result is the list of its neighbours, row by row, zeros where the grid ends."""
    side, channels = round(len(x) ** 0.5), x.shape[1]
    out = []
    for top in range(0, side, merge):
        for left in range(0, side, merge):
            token: list[float] = []
            for row in range(top, top + merge):
                for column in range(left, left + merge):
                    inside = row < side and column < side
                    token += list(x[row * side + column]) if inside else [0.0] * channels
            out.append(token)
    return np.array(out)


def layer_norm(x, weight, bias, eps):
    return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + eps) * weight + bias


def rms_norm(x, weight):
    return x / np.sqrt((x**2).mean(1, keepdims=True) + LANGUAGE["rms_norm_eps"]) * weight


def gelu(x):
    from math import erf

    return 0.5 * x * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def rotate(x: np.ndarray, heads: int) -> np.ndarray:
    """Rotary positions on halves of each head, from 0."""
    length, size = len(x), x.shape[1] // heads
    angles = np.arange(length)[:, None] * THETA ** (-np.arange(0, size, 2) / size)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    one, two = np.split(x.reshape(length, heads, size), 2, axis=2)
    return np.concatenate([one * cos - two * sin, two * cos + one * sin], axis=2).reshape(length, -1)


def attend(q, k, v, heads: int, groups: int, *, causal: bool) -> np.ndarray:
    length, size = len(q), q.shape[1] // heads
    q, k, v = q.reshape(length, heads, size), k.reshape(length, groups, size), v.reshape(length, groups, size)
    out = np.zeros_like(q)
    for head in range(heads):
        group = head * groups // heads
        scores = q[:, head] @ k[:, group].T / np.sqrt(size)
        if causal:
            scores[np.triu_indices(length, 1)] = -np.inf
        weights = np.exp(scores - scores.max(1, keepdims=True))
        out[:, head] = weights / weights.sum(1, keepdims=True) @ v[:, group]
    return out.reshape(length, -1)
