"""Which folder under models/ a loader's input reads, and which words in its place are no file.

`object_info` lists files but not their folder. Core folders follow the `folder_paths` names that
ComfyUI's own loaders ask for (nodes.py and comfy_extras, ComfyUI 0.8.0); pack folders follow what the
widely used packs document. What neither says is told by the words in class and input name, and else
stays open.
"""

from __future__ import annotations

from typing import Any

from builds.links import MODEL_INPUTS, MODEL_SUFFIXES

BY_CLASS: dict[tuple[str, str], str] = {
    ("CLIPVisionLoader", "clip_name"): "clip_vision",
    ("UpscaleModelLoader", "model_name"): "upscale_models",
    ("LatentUpscaleModelLoader", "model_name"): "latent_upscale_models",
    ("ModelPatchLoader", "name"): "model_patches",
    ("LTXVAudioVAELoader", "ckpt_name"): "checkpoints",
    ("LTXAVTextEncoderLoader", "text_encoder"): "text_encoders",
    ("DiffusersLoader", "model_path"): "diffusers",
    ("IPAdapterModelLoader", "ipadapter_file"): "ipadapter",
    ("InstantIDModelLoader", "instantid_file"): "instantid",
    ("PulidModelLoader", "pulid_file"): "pulid",
    ("PulidFluxModelLoader", "pulid_file"): "pulid",
    ("SAMLoader", "model_name"): "sams",
    ("UltralyticsDetectorProvider", "model_name"): "ultralytics",
    ("ADE_LoadAnimateDiffModel", "model_name"): "animatediff_models",
    ("ADE_AnimateDiffLoaderGen1", "model_name"): "animatediff_models",
    ("ADE_AnimateDiffLoRALoader", "lora_name"): "animatediff_motion_lora",
    ("WanVideoModelLoader", "model"): "diffusion_models",
    ("WanVideoVAELoader", "model_name"): "vae",
    ("WanVideoLoraSelect", "lora"): "loras",
    ("LoadWanVideoT5TextEncoder", "model_name"): "text_encoders",
    ("LoadWanVideoClipTextEncoder", "model_name"): "text_encoders",
    ("ReActorFaceSwap", "face_restore_model"): "facerestore_models",
    ("ReActorFaceSwap", "swap_model"): "insightface",
    ("UNETLoader", "unet_name"): "diffusion_models",
}
BY_INPUT: dict[str, str] = {
    "ckpt_name": "checkpoints",
    "base_ckpt_name": "checkpoints",
    "refiner_ckpt_name": "checkpoints",
    "lora_name": "loras",
    "lora": "loras",
    "lora_01": "loras",
    "vae_name": "vae",
    "vae": "vae",
    "unet_name": "diffusion_models",
    "clip_name": "text_encoders",
    "clip_name1": "text_encoders",
    "clip_name2": "text_encoders",
    "clip_name3": "text_encoders",
    "clip_name4": "text_encoders",
    "text_encoder": "text_encoders",
    "clip_vision": "clip_vision",
    "control_net_name": "controlnet",
    "controlnet_name": "controlnet",
    "style_model_name": "style_models",
    "gligen_name": "gligen",
    "hypernetwork_name": "hypernetworks",
    "photomaker_model_name": "photomaker",
    "audio_encoder_name": "audio_encoders",
    "upscale_model": "upscale_models",
    "ipadapter_file": "ipadapter",
    "ipadapter_model": "ipadapter",
    "sam_model": "sams",
    "latent_upscale_model": "latent_upscale_models",
}
# The first word found in the class or input name decides.
_WORDS: tuple[tuple[str, str], ...] = (
    ("lora", "loras"),
    ("controlnet", "controlnet"),
    ("control_net", "controlnet"),
    ("clipvision", "clip_vision"),
    ("clip_vision", "clip_vision"),
    ("ipadapter", "ipadapter"),
    ("upscale", "upscale_models"),
    ("textencoder", "text_encoders"),
    ("text_encoder", "text_encoders"),
    ("vae", "vae"),
    ("unet", "diffusion_models"),
    ("diffusion", "diffusion_models"),
    ("checkpoint", "checkpoints"),
    ("ckpt", "checkpoints"),
    ("clip", "text_encoders"),
    ("embedding", "embeddings"),
)
ALIASES: dict[str, str] = {"clip": "text_encoders", "unet": "diffusion_models", "t2i_adapter": "controlnet"}
# Folder → what kind of file lies in it.
KINDS: dict[str, str] = {
    "checkpoints": "checkpoint",
    "diffusion_models": "diffusion_model",
    "loras": "lora",
    "vae": "vae",
    "vae_approx": "vae",
    "text_encoders": "text_encoder",
    "clip_vision": "clip_vision",
    "controlnet": "controlnet",
    "style_models": "style_model",
    "upscale_models": "upscale_model",
    "latent_upscale_models": "latent_upscale_model",
    "embeddings": "embedding",
    "hypernetworks": "hypernetwork",
    "gligen": "gligen",
    "model_patches": "model_patch",
    "audio_encoders": "audio_encoder",
}
# Choices that loaders offer beside files.
NO_FILE = frozenset({"", "none", "default", "auto", "automatic", "baked vae", "pixel_space", "disabled", "off", "undefined", "null", "random", "any", "[none]"})
# VAELoader's names for pairs of small files (nodes.py, VAELoader.load_taesd).
TAESD = frozenset({"taesd", "taesdxl", "taesd3", "taef1", "taef2"})


def of_input(class_type: str, name: str) -> str:
    """The folder that an input reads, or empty."""
    exact = BY_CLASS.get((class_type, name))
    if exact:
        return exact
    for part in reversed(name.split(".")):
        if part in BY_INPUT:
            return BY_INPUT[part]
    for text in (name.lower(), class_type.lower()):
        for word, folder in _WORDS:
            if word in text:
                return folder
    return ""


def canonical(directory: object) -> str:
    """A folder under models/ in today's spelling: its first part, old names replaced."""
    text = directory.replace("\\", "/").strip("/ ") if isinstance(directory, str) else ""
    first = text.removeprefix("models/").partition("/")[0][:120]
    return ALIASES.get(first, first) if not first.startswith(".") else ""


def is_file_name(value: object) -> bool:
    """Whether a literal names a model file by its ending."""
    return isinstance(value, str) and value.lower().rstrip().endswith(MODEL_SUFFIXES) and "\n" not in value and len(value) <= 1_000


def is_no_file(value: str) -> bool:
    """Whether a loader's choice stands for no file at all."""
    return value.strip().lower() in NO_FILE


def is_loader_input(class_type: str, name: str, spec: Any) -> bool:
    """Whether an input chooses a model file, by what is known of it: its place, its name, or the files it lists."""
    if (class_type, name) in BY_CLASS or name.rpartition(".")[2] in MODEL_INPUTS:
        return True
    options = getattr(spec, "options", None) or ()
    return not getattr(spec, "upload", "") and any(is_file_name(option) for option in options[:200])


def kind_of(directory: str) -> str:
    """What lies in a folder, for people."""
    return KINDS.get(directory, directory.rstrip("s"))


def suffix_is_pickle(name: str) -> bool:
    """Whether loading the file may run code in it."""
    return name.lower().endswith((".ckpt", ".pt", ".pth", ".bin", ".pkl"))
