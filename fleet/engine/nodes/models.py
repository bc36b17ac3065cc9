"""Nodes of models: described and validated here, and refused when they would run.

What the engine can do without weights (choosing a sampler, drawing noise) it does.
"""

from __future__ import annotations

from typing import Any

from fleet.engine.nodes.samplers import SAMPLERS, SCHEDULERS
from fleet.engine.run import Run
from fleet.engine.specs import choice, declared, integer, link, model_choice, node_v3, number, text

SEED = integer(default=0, min=0, max=18446744073709551615, control_after_generate=True)
MODEL = link("MODEL")
CLIP = link("CLIP")
VAE = link("VAE")
CONDITIONING = link("CONDITIONING")
IMAGE = link("IMAGE")
LATENT = link("LATENT")
STRENGTH = number(default=1.0, min=-100.0, max=100.0, step=0.01)


@node_v3(
    "KSamplerSelect",
    category="sampling/custom_sampling/samplers",
    module="comfy_extras.nodes_custom_sampler",
    outputs=["SAMPLER"],
    inputs={"sampler_name": choice(SAMPLERS)},
)
def k_sampler_select(run: Run, sampler_name: str) -> dict[str, Any]:
    return {"sampler": sampler_name}


@node_v3("RandomNoise", category="sampling/custom_sampling/noise", module="comfy_extras.nodes_custom_sampler", outputs=["NOISE"], inputs={"noise_seed": SEED})
def random_noise(run: Run, noise_seed: int) -> dict[str, Any]:
    return {"seed": noise_seed}


declared(
    "CheckpointLoaderSimple",
    category="loaders",
    module="nodes",
    title="Load Checkpoint",
    outputs=["MODEL", "CLIP", "VAE"],
    inputs={"ckpt_name": model_choice("checkpoints")},
)

declared(
    "UNETLoader",
    category="advanced/loaders",
    module="nodes",
    title="Load Diffusion Model",
    outputs=["MODEL"],
    inputs={"unet_name": model_choice("diffusion_models"), "weight_dtype": choice(["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"])},
)

declared("VAELoader", category="loaders", module="nodes", title="Load VAE", outputs=["VAE"], inputs={"vae_name": model_choice("vae", "pixel_space")})

declared(
    "CLIPLoader",
    category="advanced/loaders",
    module="nodes",
    title="Load CLIP",
    outputs=["CLIP"],
    inputs={
        "clip_name": model_choice("text_encoders"),
        "type": choice(
            [
                "stable_diffusion",
                "stable_cascade",
                "sd3",
                "stable_audio",
                "mochi",
                "ltxv",
                "pixart",
                "cosmos",
                "lumina2",
                "wan",
                "hidream",
                "chroma",
                "ace",
                "omnigen2",
                "qwen_image",
                "hunyuan_image",
                "flux2",
                "ovis",
            ]
        ),
    },
    optional={"device": choice(["default", "cpu"], advanced=True)},
)

declared(
    "DualCLIPLoader",
    category="advanced/loaders",
    module="nodes",
    outputs=["CLIP"],
    inputs={
        "clip_name1": model_choice("text_encoders"),
        "clip_name2": model_choice("text_encoders"),
        "type": choice(
            ["sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image", "hunyuan_video_15", "kandinsky5", "kandinsky5_image", "ltxv", "newbie"]
        ),
    },
    optional={"device": choice(["default", "cpu"], advanced=True)},
)

declared(
    "LoraLoader",
    category="loaders",
    module="nodes",
    title="Load LoRA",
    outputs=["MODEL", "CLIP"],
    inputs={"model": MODEL, "clip": CLIP, "lora_name": model_choice("loras"), "strength_model": STRENGTH, "strength_clip": STRENGTH},
)

declared(
    "LoraLoaderModelOnly",
    category="loaders",
    module="nodes",
    outputs=["MODEL"],
    inputs={"model": MODEL, "lora_name": model_choice("loras"), "strength_model": STRENGTH},
)

declared(
    "ControlNetLoader",
    category="loaders",
    module="nodes",
    title="Load ControlNet Model",
    outputs=["CONTROL_NET"],
    inputs={"control_net_name": model_choice("controlnet")},
)

declared(
    "ControlNetApplyAdvanced",
    category="conditioning/controlnet",
    module="nodes",
    title="Apply ControlNet",
    outputs=["CONDITIONING", "CONDITIONING"],
    names=["positive", "negative"],
    inputs={
        "positive": CONDITIONING,
        "negative": CONDITIONING,
        "control_net": link("CONTROL_NET"),
        "image": IMAGE,
        "strength": number(default=1.0, min=0.0, max=10.0, step=0.01),
        "start_percent": number(default=0.0, min=0.0, max=1.0, step=0.001),
        "end_percent": number(default=1.0, min=0.0, max=1.0, step=0.001),
    },
    optional={"vae": VAE},
)

declared(
    "StyleModelLoader",
    category="loaders",
    module="nodes",
    title="Load Style Model",
    outputs=["STYLE_MODEL"],
    inputs={"style_model_name": model_choice("style_models")},
)

declared(
    "CLIPVisionLoader", category="loaders", module="nodes", title="Load CLIP Vision", outputs=["CLIP_VISION"], inputs={"clip_name": model_choice("clip_vision")}
)

declared(
    "CLIPTextEncode",
    category="conditioning",
    module="nodes",
    title="CLIP Text Encode (Prompt)",
    outputs=["CONDITIONING"],
    inputs={"text": text(multiline=True, dynamicPrompts=True), "clip": CLIP},
)

declared(
    "CLIPSetLastLayer",
    category="conditioning",
    module="nodes",
    title="CLIP Set Last Layer",
    outputs=["CLIP"],
    inputs={"clip": CLIP, "stop_at_clip_layer": integer(default=-1, min=-24, max=-1, step=1)},
)

declared(
    "ConditioningCombine",
    category="conditioning",
    module="nodes",
    title="Conditioning (Combine)",
    outputs=["CONDITIONING"],
    inputs={"conditioning_1": CONDITIONING, "conditioning_2": CONDITIONING},
)

declared("ConditioningZeroOut", category="advanced/conditioning", module="nodes", outputs=["CONDITIONING"], inputs={"conditioning": CONDITIONING})

declared(
    "FluxGuidance",
    v3=True,
    category="advanced/conditioning/flux",
    module="comfy_extras.nodes_flux",
    outputs=["CONDITIONING"],
    inputs={"conditioning": CONDITIONING, "guidance": number(default=3.5, min=0.0, max=100.0, step=0.1)},
)

declared("LotusConditioning", v3=True, category="conditioning/lotus", module="comfy_extras.nodes_lotus", outputs=["CONDITIONING"], names=["conditioning"])

declared(
    "KSampler",
    category="sampling",
    module="nodes",
    outputs=["LATENT"],
    inputs={
        "model": MODEL,
        "seed": SEED,
        "steps": integer(default=20, min=1, max=10000),
        "cfg": number(default=8.0, min=0.0, max=100.0, step=0.1, round=0.01),
        "sampler_name": choice(SAMPLERS),
        "scheduler": choice(SCHEDULERS),
        "positive": CONDITIONING,
        "negative": CONDITIONING,
        "latent_image": LATENT,
        "denoise": number(default=1.0, min=0.0, max=1.0, step=0.01),
    },
)

declared(
    "KSamplerAdvanced",
    category="sampling",
    module="nodes",
    title="KSampler (Advanced)",
    outputs=["LATENT"],
    inputs={
        "model": MODEL,
        "add_noise": choice(["enable", "disable"]),
        "noise_seed": SEED,
        "steps": integer(default=20, min=1, max=10000),
        "cfg": number(default=8.0, min=0.0, max=100.0, step=0.1, round=0.01),
        "sampler_name": choice(SAMPLERS),
        "scheduler": choice(SCHEDULERS),
        "positive": CONDITIONING,
        "negative": CONDITIONING,
        "latent_image": LATENT,
        "start_at_step": integer(default=0, min=0, max=10000),
        "end_at_step": integer(default=10000, min=0, max=10000),
        "return_with_leftover_noise": choice(["disable", "enable"]),
    },
)

declared("VAEDecode", category="latent", module="nodes", title="VAE Decode", outputs=["IMAGE"], inputs={"samples": LATENT, "vae": VAE})

declared("VAEEncode", category="latent", module="nodes", title="VAE Encode", outputs=["LATENT"], inputs={"pixels": IMAGE, "vae": VAE})

declared(
    "BasicGuider",
    v3=True,
    category="sampling/custom_sampling/guiders",
    module="comfy_extras.nodes_custom_sampler",
    outputs=["GUIDER"],
    inputs={"model": MODEL, "conditioning": CONDITIONING},
)

declared(
    "BasicScheduler",
    v3=True,
    category="sampling/custom_sampling/schedulers",
    module="comfy_extras.nodes_custom_sampler",
    outputs=["SIGMAS"],
    inputs={
        "model": MODEL,
        "scheduler": choice(SCHEDULERS),
        "steps": integer(default=20, min=1, max=10000),
        "denoise": number(default=1.0, min=0.0, max=1.0, step=0.01),
    },
)

declared(
    "SamplerCustomAdvanced",
    v3=True,
    category="sampling/custom_sampling",
    module="comfy_extras.nodes_custom_sampler",
    outputs=["LATENT", "LATENT"],
    names=["output", "denoised_output"],
    inputs={"noise": link("NOISE"), "guider": link("GUIDER"), "sampler": link("SAMPLER"), "sigmas": link("SIGMAS"), "latent_image": LATENT},
)

declared(
    "ModelSamplingSD3",
    category="advanced/model",
    module="comfy_extras.nodes_model_advanced",
    outputs=["MODEL"],
    inputs={"model": MODEL, "shift": number(default=3.0, min=0.0, max=100.0, step=0.01)},
)

declared(
    "ModelSamplingFlux",
    category="advanced/model",
    module="comfy_extras.nodes_model_advanced",
    outputs=["MODEL"],
    inputs={
        "model": MODEL,
        "max_shift": number(default=1.15, min=0.0, max=100.0, step=0.01),
        "base_shift": number(default=0.5, min=0.0, max=100.0, step=0.01),
        "width": integer(default=1024, min=16, max=16384, step=8),
        "height": integer(default=1024, min=16, max=16384, step=8),
    },
)
