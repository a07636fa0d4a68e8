"""The check of judges that read: questions side by side on what they share, beside one whole forward pass a question."""

from typing import Any

from sana_bench.metrics.selfcheck.check import Bench, Check, Tolerance, user_judge

__all__ = ["CHECKS"]

_PAD, _START, _END, _IMAGE, _VIDEO = range(5)
_VOCABULARY = 64
# Patches of 14 pixels, high and wide; four make a token. Not square, so that positions after it are not those of a count.
_GRID = (4, 6)
_BEGIN = [9, 10, _START, *[_IMAGE] * (_GRID[0] * _GRID[1] // 4), _END, 11]
_QUESTIONS = ([20, 21, 22], [20], [23, 24, 25, 26, 27])
_NUMBERS_A_PATCH = 3 * 2 * 14 * 14


def _network() -> Any:
    """A small random Qwen2.5-VL."""
    import torch

    from sana_models.libraries import without_torchao

    with without_torchao():
        from transformers import AutoConfig, AutoModelForImageTextToText

    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    text = {
        "vocab_size": _VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rope_parameters": rope,
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": _PAD,
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
        "fullatt_block_indexes": [1], "window_size": 56,
    }  # fmt: skip
    ids = {
        "image_token_id": _IMAGE, "video_token_id": _VIDEO,
        "vision_start_token_id": _START, "vision_end_token_id": _END,
    }  # fmt: skip
    config = AutoConfig.for_model("qwen2_5_vl", text_config=text, vision_config=vision, **ids)
    network = AutoModelForImageTextToText.from_config(config)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    return network.eval()


def _side_by_side(bench: Bench) -> float:
    """The largest difference of a probability."""
    import torch

    from sana_bench.judges.image_questions import ImageQuestions
    from sana_models.libraries import without_torchao

    with without_torchao():
        from transformers import BatchFeature

    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        network = _network().to(bench.device)
        patches = torch.randn(_GRID[0] * _GRID[1], _NUMBERS_A_PATCH)
        rows = []
        for question in _QUESTIONS:
            ids = torch.tensor([[*_BEGIN, *question]])
            parts = {
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                "mm_token_type_ids": (ids == _IMAGE).long(),
                "pixel_values": patches,
                "image_grid_thw": torch.tensor([[1, *_GRID]]),
            }
            rows.append(BatchFeature(parts))
        together = ImageQuestions(network, rows, len(rows))
        alone = [ImageQuestions(network, [row], 1).next_logits([0]) for row in rows]
        if not together.shared:
            return 1.0
        shares = together.next_logits(range(len(rows))).softmax(-1)
        return float((shares - torch.cat(alone).softmax(-1)).abs().max())


CHECKS = (
    Check(
        "judges that read: questions side by side",
        (user_judge("vqascore"),),
        _side_by_side,
        Tolerance(1e-5, "of a probability", "float32 sums in another order, through a few layers"),
    ),
)
