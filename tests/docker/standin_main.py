"""A stand-in for ComfyUI's main.py: the same command line and packs, the embedded engine behind them.

Not imported by tests: it is put into a source tree and built into an image.
"""

import argparse
import importlib.util
import sys
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from fleet.engine import __main__ as engine  # noqa: E402
from fleet.engine import specs  # noqa: E402


def wanted(section):
    """A pack's INPUT_TYPES section as the engine's inputs."""
    found = {}
    for name, (kind, *options) in section.items():
        said = dict(options[0]) if options else {}
        found[name] = specs.Input("COMBO", said, tuple(kind)) if isinstance(kind, list) else specs.Input(kind, said)
    return found


def adopt(name, node_class, folder):
    types = node_class.INPUT_TYPES()

    def body(run, **values):
        return getattr(node_class(), node_class.FUNCTION)(**values)

    specs.node(
        name,
        category=node_class.CATEGORY,
        module=f"custom_nodes.{folder}",
        outputs=list(node_class.RETURN_TYPES),
        inputs=wanted(types.get("required", {})),
        optional=wanted(types.get("optional", {})),
        terminal=getattr(node_class, "OUTPUT_NODE", False),
    )(body)


def load(folder):
    spec = importlib.util.spec_from_file_location(folder.name.replace("-", "_"), folder / "__init__.py", submodule_search_locations=[str(folder)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    for name, node_class in module.NODE_CLASS_MAPPINGS.items():
        adopt(name, node_class, folder.name)


def main():
    parser = argparse.ArgumentParser()
    for flag in ("--listen", "--port", "--output-directory", "--temp-directory", "--input-directory"):
        parser.add_argument(flag)
    known, _ = parser.parse_known_args()
    for folder in sorted((HERE / "custom_nodes").iterdir()):
        if (folder / "__init__.py").is_file():
            try:
                load(folder)
            except Exception:  # one broken pack does not stop ComfyUI either
                traceback.print_exc()
                print(f"Cannot import {folder} module for custom nodes", file=sys.stderr)
    words = [word for flag, value in vars(known).items() if value for word in (f"--{flag.replace('_', '-')}", value)]
    return engine.main(words)


if __name__ == "__main__":
    sys.exit(main())
