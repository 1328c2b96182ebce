"""Which captioner a recipe's word means, and whether it can be used at all.

embedded                the decoder that ships (knows the sample world only)
coca:NAME/WEIGHTS       an open_clip CoCa; weights come from where open_clip finds them
folder                  open_clip's format (open_clip_config.json) or an image-to-text model of transformers
http://host:8000/v1     an endpoint that speaks OpenAI's chat completions
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

from ..pipeline.errors import RecipeError
from ..pipeline.once import once
from . import caption_coca, caption_vlm
from .caption_http import Endpoint, HttpCaptioner
from .caption_meter import Meter
from .caption_written import Captioner
from .scorer import EMBEDDED, embedded_folder, fingerprint

COCA = "coca:"
WEB = ("http://", "https://")


def identity(spec: str, model: str, prompt: str, api_key_env: str) -> str:
    """What the captions depend on besides the recipe's fields, as 16 hex digits, without loading anything.

    Raises ``RecipeError`` where ``spec`` cannot be a captioner, so that a run says so before it begins.
    """
    if spec.startswith(WEB):
        _check_endpoint(spec, model, api_key_env)
        return hashlib.sha256(json.dumps([spec, model, prompt]).encode()).hexdigest()[:16]
    if spec == EMBEDDED or spec.startswith(COCA):
        return fingerprint(spec)
    folder = Path(spec)
    if not folder.is_dir():
        raise RecipeError(
            f"captioner {spec!r} is no folder; expected embedded, coca:NAME/WEIGHTS, a folder of a CoCa (open_clip) or "
            "of an image-to-text model (transformers), or the address of an endpoint such as http://127.0.0.1:8000/v1"
        )
    if not any((folder / name).is_file() for name in ("open_clip_config.json", "config.json")):
        raise RecipeError(f"{spec} holds neither open_clip_config.json (open_clip) nor config.json (transformers)")
    return fingerprint(spec)


def _check_endpoint(spec: str, model: str, api_key_env: str) -> None:
    try:
        parts = urlsplit(spec)
        usable = bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.fragment)
    except ValueError:
        usable = False
    # What the address holds is not repeated: it may be the password.
    if not usable:
        raise RecipeError("the captioner's address is none; expected one such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise RecipeError(
            "the captioner's address holds a user or password, which run.json would tell; put the key into an "
            "environment variable and name that in synthetic_captions.api_key_env"
        )
    if not model:
        raise RecipeError(f"captioner {spec} needs the name of a model in synthetic_captions.model")
    if api_key_env and not os.environ.get(api_key_env):
        raise RecipeError(f"synthetic_captions.api_key_env names {api_key_env}, which is not set in the environment")


def load_model(spec: str, prompt: str, max_tokens: int, device: str, batch: int) -> Captioner:
    """The captioner that ``spec`` names, other than an endpoint; loaded once per process."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return _load(spec, prompt, max_tokens, device, batch)


@once(2)
def _load(spec: str, prompt: str, max_tokens: int, device: str, batch: int) -> Captioner:
    if spec == EMBEDDED:
        # Greedy decoding of a model this small: where it runs must not decide what it writes.
        return caption_coca.from_folder(embedded_folder(), "cpu", batch)
    if spec.startswith(COCA):
        return caption_coca.from_name(spec.removeprefix(COCA), device, batch)
    folder = Path(spec)
    if (folder / "open_clip_config.json").is_file():
        return caption_coca.from_folder(folder, device, batch)
    return caption_vlm.from_folder(folder, prompt, max_tokens, device, batch)


@once(2)
def load_endpoint(endpoint: Endpoint, meter: str, per_second: float, requests: int, tokens: int) -> HttpCaptioner:
    """The endpoint's captioner, one per process, with limits that all processes share through the file ``meter``."""
    return HttpCaptioner(endpoint, Meter(meter, per_second, requests, tokens))
