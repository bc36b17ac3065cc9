"""Safetensors files made of a header and zeros, as sparse as the file system allows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

BITS = {"F16": 16, "BF16": 16, "F32": 32, "F8_E4M3": 8}


def header(tensors: dict[str, tuple[int, ...]], *, dtype: str = "F16", metadata: dict[str, str] | None = None) -> tuple[bytes, int]:
    """The header's JSON, and how many bytes of weights it promises."""
    table: dict[str, Any] = {"__metadata__": metadata} if metadata is not None else {}
    at = 0
    for name, shape in tensors.items():
        size = math.prod(shape) * BITS[dtype] // 8
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    return json.dumps(table).encode(), at


def write(path: Path, tensors: dict[str, tuple[int, ...]], **more: Any) -> Path:
    """A file of these tensors; its weights are a hole."""
    said, room = header(tensors, **more)
    with path.open("wb") as stream:
        stream.write(len(said).to_bytes(8, "little") + said)
        stream.truncate(8 + len(said) + room)
    return path


SDXL = {
    "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
}
SD15 = {"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768), "cond_stage_model.transformer.x": (1,)}
FLUX = {"double_blocks.0.img_attn.norm.key_norm.scale": (128,), "img_in.weight": (3072, 64)}
LORA_SDXL = {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (8, 1280), "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha": ()}
LORA_SD15 = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (8, 768),
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight": (320, 8),
}
LORA_FLUX = {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (16, 3072), "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": (9216, 16)}
LORA_WAN = {"diffusion_model.blocks.0.self_attn.q.lora_A.weight": (16, 5120), "diffusion_model.blocks.0.cross_attn.q.lora_B.weight": (5120, 16)}
LORA_QWEN = {
    "transformer.transformer_blocks.0.img_mlp.net.2.lora_A.weight": (16, 12288),
    "transformer.transformer_blocks.0.img_mlp.net.2.lora_B.weight": (3072, 16),
}
