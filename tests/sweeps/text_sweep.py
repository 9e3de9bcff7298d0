"""A sweep on text, and stored weights for its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from unlearn_core.models import Gpt2, build_model

SIZE = {"layers": 1, "width": 8, "heads": 1}


def checkpoint(folder: Path, seed: int) -> Path:
    """The same file name, header and size for every seed."""
    folder.mkdir(exist_ok=True)
    net = build_model(Gpt2(**SIZE), input_shape=(24, 300), classes=2, seed=seed)
    state = {
        k.replace("embedding.", "").replace("h0.", "h.0.").replace("head.", ""): v for k, v in net.state_dict().items()
    }
    save_file(
        {k: v.T.contiguous() if k.startswith("h") and v.dim() == 2 else v for k, v in state.items()},
        folder / "model.safetensors",
    )
    return folder


TEXT: dict[str, Any] = {
    "dataset": {"name": "opinions", "rows": 200},
    "rows": {},
    "model": {"name": "gpt2", "layers": 1, "width": 16},
    "methods": ["gd"],
}
