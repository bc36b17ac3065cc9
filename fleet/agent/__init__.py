"""The worker agent: pulls jobs from the control plane and drives one ComfyUI.

It ships inside worker images, so it imports nothing of Django and nothing of the other rooms.
"""

VERSION = "0.1.0"
