"""The embedded engine: ComfyUI's protocol, executing the model-free core nodes.

It stands where a machine has no ComfyUI: same endpoints, same messages, same
errors, real pixels. It knows nothing of the control plane and imports none of it.
"""

ENGINE_NAME = "comfyplane-embedded"
ENGINE_VERSION = "1.0"
# The server whose recorded behaviour this engine reproduces.
COMPATIBLE_WITH = "0.8.0"
