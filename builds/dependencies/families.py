"""Model families: what a safetensors header's names and shapes, or a list's words, say a file is made for.

The rules follow what ComfyUI itself looks at before it loads a model (`comfy/model_detection.py`:
key names of the diffusion model, width of its cross attention), what trainers write into LoRA headers
(kohya's `ss_base_model_version`, the ModelSpec field `modelspec.architecture`), and the layer names of
kohya, diffusers and original LoRA keys. What no rule fits stays open; a family is never guessed from a
file name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

TITLES: dict[str, str] = {
    **{"sd15": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "SDXL", "sdxl_refiner": "SDXL refiner", "sd3": "Stable Diffusion 3"},
    **{"flux": "FLUX.1", "flux2": "FLUX.2", "chroma": "Chroma", "qwen_image": "Qwen-Image", "wan": "Wan", "hunyuan_video": "Hunyuan Video"},
    **{"ltxv": "LTX-Video", "svd": "Stable Video Diffusion", "cascade": "Stable Cascade", "pixart": "PixArt", "hunyuan_dit": "Hunyuan-DiT"},
    **{"lumina2": "Lumina 2", "z_image": "Z-Image", "hidream": "HiDream", "mochi": "Mochi", "cosmos": "Cosmos", "auraflow": "AuraFlow"},
    **{
        "hunyuan3d": "Hunyuan3D",
        "ace_step": "ACE-Step",
        "kolors": "Kolors",
        "omnigen2": "OmniGen 2",
        "stable_audio": "Stable Audio",
        "kandinsky5": "Kandinsky 5",
    },
}
# What the public model list writes in `base`.
_LISTED: dict[str, str] = {
    **dict.fromkeys(("sd1", "sd1.x", "sd1.4", "sd1.5", "sd15"), "sd15"),
    **dict.fromkeys(("sd2", "sd2.x", "sd2.0", "sd2.1"), "sd2"),
    **dict.fromkeys(("sdxl", "sdxl turbo", "sdxl lightning", "pony", "illustrious", "ssd-1b", "segmind-vega"), "sdxl"),
    **dict.fromkeys(("sd3", "sd3.5"), "sd3"),
    **dict.fromkeys(("flux.1", "flux1", "flux"), "flux"),
    **dict.fromkeys(("flux.2", "flux2"), "flux2"),
    **dict.fromkeys(("qwen-image", "qwen-image-edit"), "qwen_image"),
    **dict.fromkeys(("wan2.1", "wan2.2", "wan"), "wan"),
    **{"ltx-video": "ltxv", "stable cascade": "cascade", "svd": "svd", "hunyuan video": "hunyuan_video", "hunyuan-dit": "hunyuan_dit", "kolors": "kolors"},
    **{"pixart-sigma": "pixart", "pixart-alpha": "pixart", "cosmos-1.0": "cosmos", "omnigen2": "omnigen2", "hidream": "hidream", "chroma": "chroma"},
}
_TRAINED: tuple[tuple[str, str], ...] = (
    *(("sdxl", "sdxl"), ("sd_v1", "sd15"), ("sd_1", "sd15"), ("sd1", "sd15"), ("sd_v2", "sd2"), ("sd_2", "sd2"), ("sd3", "sd3"), ("sd_3", "sd3")),
    *(
        ("flux2", "flux2"),
        ("flux.2", "flux2"),
        ("flux", "flux"),
        ("chroma", "chroma"),
        ("qwen", "qwen_image"),
        ("wan", "wan"),
        ("hunyuan_video", "hunyuan_video"),
    ),
    *(("hunyuan-video", "hunyuan_video"), ("lumina", "lumina2"), ("zimage", "z_image"), ("z_image", "z_image"), ("ltx", "ltxv")),
)
_SPECIFIED: tuple[tuple[str, str], ...] = (
    *(("stable-diffusion-xl-v1-refiner", "sdxl_refiner"), ("stable-diffusion-xl", "sdxl"), ("stable-diffusion-v1", "sd15"), ("stable-diffusion-v2", "sd2")),
    *(("stable-diffusion-v3", "sd3"), ("stable-diffusion-3", "sd3"), ("flux-2", "flux2"), ("flux.2", "flux2"), ("flux-1", "flux"), ("flux.1", "flux")),
    *(("qwen-image", "qwen_image"), ("wan2", "wan"), ("hunyuan-video", "hunyuan_video"), ("lumina-2", "lumina2"), ("stable-cascade", "cascade")),
)
_WIDTHS = {768: "sd15", 1024: "sd2", 2048: "sdxl", 1280: "sdxl_refiner"}
_LORA = re.compile(r"\.(?:lora_(?:up|down|A|B)(?:\.|$)|hada_w[12]_[ab]|lokr_w[12]|oft_blocks|lora\.(?:up|down)|alpha$|diff$|dora_scale)")
_CONTROL = ("control_model.", "controlnet_cond_embedding.", "controlnet_x_embedder.", "input_hint_block.", "pos_embed_input.", "controlnet_blocks.")


@dataclass(frozen=True)
class Verdict:
    """What a file is: kind (checkpoint, lora, vae, …), family, and which fact said so."""

    kind: str = ""
    family: str = ""
    because: str = ""


def title(family: str) -> str:
    """A family's name for people."""
    return TITLES.get(family, family)


def listed(base: object) -> str:
    """The family a public list means by `base`, or empty."""
    return _LISTED.get(base.strip().lower(), "") if isinstance(base, str) else ""


def judge(shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> Verdict:
    """What a file is, by tensor names with their shapes and the header's own metadata."""
    if _is_lora(shapes):
        return _lora(shapes, metadata)
    control = next((one for one in _CONTROL if any(name.startswith(one) for name in shapes)), "")
    if control:
        found = _diffusion(_without(shapes, "control_model."))
        return Verdict("controlnet", found.family, f"tensors {control}*")
    if set(shapes) <= {"emb_params", "clip_g", "clip_l", "string_to_param"} and shapes:
        return _embedding(shapes)
    inner = next(
        (one for one in ("model.diffusion_model.", "diffusion_model.", "net.", "model.model.", "transformer.") if any(n.startswith(one) for n in shapes)), ""
    )
    found = _diffusion(_without(shapes, inner) if inner else shapes)
    if found.family or found.kind:
        whole = any(name.startswith(("first_stage_model.", "cond_stage_model.", "conditioner.", "vae.", "text_encoders.")) for name in shapes)
        return Verdict("checkpoint" if whole else "diffusion_model", found.family, found.because)
    if any(name.startswith(("decoder.conv_in.", "first_stage_model.decoder.", "decoder.middle.", "decoder.conv1.", "decoder.mid_block.")) for name in shapes):
        return Verdict("vae", "", "tensors decoder.*")
    if any(name.startswith(("text_model.", "encoder.block.0.", "model.layers.0.", "model.embed_tokens", "transformer.text_model.")) for name in shapes):
        return Verdict("text_encoder", "", "tensors of a text encoder")
    if any(name.startswith("vision_model.") for name in shapes):
        return Verdict("clip_vision", "", "tensors vision_model.*")
    spoken = _from_metadata(metadata)
    return Verdict("", spoken, "its own metadata" if spoken else "")


def _is_lora(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    hits = sum(1 for name in shapes if _LORA.search(name))
    return hits > 0 and hits * 2 >= len(shapes)


def _from_metadata(metadata: Mapping[str, str]) -> str:
    trained = metadata.get("ss_base_model_version", "").lower()
    specified = metadata.get("modelspec.architecture", "").lower()
    for said, rules in ((trained, _TRAINED), (specified, _SPECIFIED)):
        for word, family in rules:
            if said.startswith(word) or (said and f"/{word}" in said):
                return family
    return ""


def _lora(shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> Verdict:
    by_tensor = _lora_family(shapes)
    if by_tensor.family:
        # The tensors are what will be applied; what the trainer wrote beside them is only said.
        return by_tensor
    spoken = _from_metadata(metadata)
    return Verdict("lora", spoken, "its trainer's metadata" if spoken else "")


def _lora_family(shapes: Mapping[str, tuple[int, ...]]) -> Verdict:
    names = [re.sub(r"[._]+", ".", name) for name in shapes]

    def has(*parts: str) -> bool:
        return any(all(part in name for part in parts) for name in names)

    def verdict(family: str, because: str) -> Verdict:
        return Verdict("lora", family, because)

    if has("double.blocks.") or has("single.blocks."):
        if has("individual.token.refiner") or has("double.blocks.19.") or (has("double.blocks.") and has("single.blocks.38.")):
            return verdict("hunyuan_video", "layers double_blocks 19 and beyond")
        if has("distilled.guidance.layer"):
            return verdict("chroma", "layer distilled_guidance_layer")
        wide = _input_width(shapes, "double.blocks.0.img.attn.qkv") or _input_width(shapes, "single.blocks.0.linear1")
        return verdict("flux2" if wide and wide > 3_072 else "flux", "layers double_blocks and single_blocks")
    if has("single.transformer.blocks."):
        wide = _input_width(shapes, "single.transformer.blocks.0.attn")
        return verdict("flux2" if wide and wide > 3_072 else "flux", "layers single_transformer_blocks")
    if has("joint.blocks.") or (
        has("transformer.blocks.", "add.k.proj") and not has("img.mod") and _input_width(shapes, "transformer.blocks.0.attn.to.k") in (1_536, 2_432)
    ):
        return verdict("sd3", "layers joint_blocks")
    if has("transformer.blocks.", "img.mlp") or has("transformer.blocks.", "img.mod") or (
        has("transformer.blocks.", "add.k.proj") and _input_width(shapes, "transformer.blocks.0.attn.to.k") == 3_072
    ):  # fmt: skip
        return verdict("qwen_image", "layers transformer_blocks with img_mlp")
    if has("blocks.", ".self.attn.") and has("blocks.", ".cross.attn."):
        return verdict("wan", "layers blocks with self_attn and cross_attn")
    if has("noise.refiner.") or has("context.refiner."):
        wide = _input_width(shapes, "layers.0.attention")
        return verdict("z_image" if wide == 3_840 else "lumina2" if wide == 2_304 else "", "layers noise_refiner")
    if has("te2."):
        return verdict("sdxl", "layers of a second text encoder")
    width = 0
    for name, shape in shapes.items():
        plain = re.sub(r"[._]+", ".", name)
        if "attn2.to.k." in plain and ("down" in plain.rpartition("attn2.to.k.")[2] or "lora.A" in plain) and len(shape) in (2, 4):
            width = shape[1]
            break
    if width in _WIDTHS:
        return verdict(_WIDTHS[width], f"cross attention {width} wide")
    return verdict("", "")


def _input_width(shapes: Mapping[str, tuple[int, ...]], layer: str) -> int:
    """How wide the input of the first low-rank matrix at `layer` is; 0 when there is none."""
    for name, shape in shapes.items():
        plain = re.sub(r"[._]+", ".", name)
        if layer in plain and ("lora.down" in plain or "lora.A" in plain) and len(shape) == 2:
            return shape[1]
    return 0


def _embedding(shapes: Mapping[str, tuple[int, ...]]) -> Verdict:
    if "clip_g" in shapes:
        return Verdict("embedding", "sdxl", "tensors clip_g and clip_l")
    widths = {shape[-1] for shape in shapes.values() if shape}
    family = {768: "sd15", 1024: "sd2"}.get(next(iter(widths)), "") if len(widths) == 1 else ""
    return Verdict("embedding", family, f"vectors {', '.join(map(str, sorted(widths)))} wide")


def _without(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def _first(shapes: Mapping[str, tuple[int, ...]], names: Iterable[str]) -> tuple[int, ...]:
    return next((shapes[name] for name in names if name in shapes), ())


def _diffusion(shapes: Mapping[str, tuple[int, ...]]) -> Verdict:
    """The family of a diffusion model's own tensors, prefix taken off; the order follows ComfyUI's detection."""
    for family, keys in _KEYS:
        if all(key in shapes for key in keys):
            return Verdict("diffusion_model", family, f"tensor {keys[-1]}")
    if "noise_refiner.0.attention.k_norm.weight" in shapes or "cap_embedder.1.weight" in shapes:
        wide = _first(shapes, ("cap_embedder.1.weight", "noise_refiner.0.attention.qkv.weight"))
        width = wide[0] if len(wide) == 2 and "cap_embedder.1.weight" in shapes else wide[1] if len(wide) == 2 else 0
        return Verdict("diffusion_model", {3_840: "z_image", 2_304: "lumina2"}.get(width, ""), f"noise refiner {width} wide")
    for name, shape in shapes.items():
        if name.endswith("attn2.to_k.weight") and len(shape) == 2 and (name.startswith(("input_blocks.", "down_blocks.", "middle_block.", "mid_block."))):
            if any(".time_stack." in one or ".temporal_transformer_blocks." in one for one in shapes):
                return Verdict("diffusion_model", "svd", "tensors time_stack")
            return Verdict("diffusion_model", _WIDTHS.get(shape[1], ""), f"cross attention {shape[1]} wide")
    return Verdict()


# Every key named must be there; the order is the one ComfyUI asks in.
_KEYS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("sd3", ("joint_blocks.0.context_block.attn.qkv.weight",)),
    ("cascade", ("clf.1.weight",)),
    ("stable_audio", ("transformer.rotary_pos_emb.inv_freq",)),
    ("auraflow", ("double_layers.0.attn.w1q.weight",)),
    ("hunyuan_dit", ("mlp_t5.0.weight",)),
    ("hunyuan_video", ("txt_in.individual_token_refiner.blocks.0.norm1.weight",)),
    ("chroma", ("double_blocks.0.img_attn.norm.key_norm.scale", "distilled_guidance_layer.0.norms.0.scale")),
    ("chroma", ("double_blocks.0.img_attn.norm.key_norm.scale", "distilled_guidance_layer.norms.0.scale")),
    ("flux2", ("double_blocks.0.img_attn.norm.key_norm.scale", "double_stream_modulation_img.lin.weight")),
    ("flux", ("double_blocks.0.img_attn.norm.key_norm.scale", "img_in.weight")),
    ("mochi", ("t5_yproj.weight",)),
    ("pixart", ("adaln_single.emb.timestep_embedder.linear_1.bias", "pos_embed.proj.bias")),
    ("ltxv", ("adaln_single.emb.timestep_embedder.linear_1.bias",)),
    ("ace_step", ("genre_embedder.weight",)),
    ("pixart", ("t_block.1.weight",)),
    ("cosmos", ("blocks.block0.blocks.0.block.attn.to_q.0.weight",)),
    ("wan", ("head.modulation",)),
    ("hunyuan3d", ("latent_in.weight",)),
    ("hidream", ("caption_projection.0.linear.weight",)),
    ("cosmos", ("blocks.0.mlp.layer1.weight",)),
    ("omnigen2", ("time_caption_embed.timestep_embedder.linear_1.bias",)),
    ("qwen_image", ("txt_norm.weight",)),
)
