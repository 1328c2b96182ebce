"""From a teacher's folder and a stream of pairs to a student's: open_clip's format, ONNX, int8 (``train_student``).

OUT/open_clip_config.json, open_clip_model.safetensors, tokenizer files    the student, as open_clip loads it
OUT/onnx/     both towers for onnxruntime          OUT/int8/     the same in 8-bit integers
OUT/fusion.jsonl, OUT/student.jsonl                the losses            OUT/student.json     what was made, and how
OUT/checkpoints/                                   what an interrupted training goes on from
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ...pipeline.errors import UsageError
from ...scoring.export_scorer import export_scorer
from ...scoring.pictures import opened
from ...scoring.scorer import EMBEDDED, embedded_folder, fingerprint, model_and_tokenizer
from .. import settings
from ..distributed import ALONE, World, gather_objects, start, stop
from ..shards import every, find
from ..stream import DataConfig, PairStream, loader
from .export import quantise
from .fusion import FusedTeacher, FusionConfig
from .search import write_sums
from .student import DistilConfig, Kept, Prepare, Targets, Teacher, fit_fusion, fit_student, parameters

CHECKPOINTS = "checkpoints"
CALIBRATE = 256
"""Samples that the int8 scales are calibrated on and checked against."""
KEPT = ("pad_id", "eos_id")
SIZES = ("context_length", "vocab_size")
"""What the student's text tower has of its teacher's; the sizes as the model has them, not its configuration."""
TOKENIZER = ("tokenizer", "vocab", "special_tokens_map", "added_tokens", "merges", "sentencepiece", "spiece")


@dataclass(frozen=True)
class StudentConfig:
    """What is made of the teacher."""

    share: float = 0.25
    """Parameters of the student at most, as a share of the teacher's two towers."""
    side: int = 0
    """Pixels: the side of the student's square images; 0 takes the teacher's. Half of it costs a quarter."""
    fusion_steps: int = 0
    """Batches for which fusion over the teacher's towers is trained first; 0 distils from the towers alone."""


SECTIONS: dict[str, type[Any]] = {
    "student": StudentConfig,
    "distil": DistilConfig,
    "fusion": FusionConfig,
    "data": DataConfig,
}


def train_student(
    teacher: str,
    batches: Callable[[int, Sequence[int], int], Iterable[Any]],
    calibrate: tuple[Sequence[Image.Image], Sequence[str]],
    out: Path,
    config: StudentConfig,
    distil: DistilConfig,
    fusion: FusionConfig,
    world: World = ALONE,
    data: DataConfig | None = None,
    fresh: bool = False,
) -> dict[str, Any]:
    """Make a student of ``teacher`` (a folder in open_clip's format, or ``embedded``) in ``out``.

    ``batches`` gives a stream of ``Pairs`` at the teacher's size whenever it is called: with the number of the training
    (0 for the first), the positions of its readers and the steps done, as ``Kept.left`` tells them; ``data`` are the
    settings it reads with. ``calibrate`` are pictures and captions for the int8 scales. A training that was
    interrupted in ``out`` goes on, unless it shall begin ``fresh``. Returns what ``student.json`` says. Under
    torchrun every rank calls this with its ``world`` and its own batches; the first writes, the others return {}.
    """
    folder, told = teacher_config(teacher)
    held = out.is_dir() and any(out.iterdir())
    if held and not ((out / "student.json").is_file() or (out / CHECKPOINTS).is_dir()):
        raise UsageError(f"{out} is not empty and holds no student; give an empty or new folder")
    gather_objects(None)  # all have looked before the first writes
    if world.first:
        if fresh:
            shutil.rmtree(out, ignore_errors=True)
        # From the start, so that the folder is known again if the training ends before its first checkpoint.
        (out / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    gather_objects(None)
    parts = {"student": asdict(config), "distil": asdict(distil), "fusion": asdict(fusion)}
    asked = {"teacher": fingerprint(str(folder)), **parts, "data": asdict(data) if data else {}}
    where = world.device
    model, _, tokenize = model_and_tokenizer(folder, str(where))
    small = shrink(model, told["model_cfg"], config.share, config.side)
    preprocess = told.get("preprocess_cfg") or {}
    mean, std = (tuple(preprocess.get(k) or getattr(model.visual, f"image_{k}")) for k in ("mean", "std"))
    prepare = Prepare(mean, std, tokenize, where)
    records: dict[str, Any] = {}
    source: nn.Module = model
    if config.fusion_steps:
        torch.manual_seed(distil.seed)
        fused = FusedTeacher(model, fusion).to(where)
        training = DistilConfig(steps=config.fusion_steps, seed=distil.seed, precision=distil.precision)
        log = out / "fusion.jsonl" if world.first else None
        kept = Kept(out / CHECKPOINTS / "fusion", asked, world)
        records["fusion"] = fit_fusion(fused, prepare, batches(0, *kept.left()), training, log, kept)[-1]
        source = fused
    torch.manual_seed(distil.seed)
    student = build(small).to(where)
    side = int(small["vision_cfg"]["image_size"])

    def seen(pixels: Tensor) -> Tensor:
        return pixels if pixels.shape[-1] == side else F.interpolate(pixels, (side, side), mode="area")

    learned: Callable[[Tensor, Tensor], Targets] = Teacher(source, world)
    log = out / "student.jsonl" if world.first else None
    kept = Kept(out / CHECKPOINTS / "student", asked, world)
    stream = batches(bool(config.fusion_steps), *kept.left())
    records["student"] = fit_student(student, prepare, stream, distil, learned, log, seen, kept)[-1]
    if not world.first:
        return {}
    save(student.cpu().eval(), small, {**preprocess, "size": side, "mean": mean, "std": std}, folder, out)
    for name in ("onnx", "int8"):
        shutil.rmtree(out / name, ignore_errors=True)
    exported = export_scorer(str(out), out / "onnx")
    write_sums(out / "onnx")
    record = {
        "teacher": {"name": folder.name, "hash": asked["teacher"], "parameters": towers(model)},
        "parameters": parameters(student),
        "share": round(parameters(student) / towers(model), 4),
        "settings": parts,
        "last": records,
        "onnx_difference": exported["difference"],
        "int8": quantise(out / "onnx", out / "int8", *calibrate),
        "torch": torch.__version__,
    }
    (out / "student.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return record


def train_from_shards(
    shards: Sequence[str],
    out: Path,
    teacher: str = EMBEDDED,
    config: Path | None = None,
    sets: Sequence[str] = (),
    device: str = "auto",
    fresh: bool = False,
) -> dict[str, Any]:
    """``train_student`` on WebDataset shards, whose first usable samples calibrate the int8 models.

    ``config`` is a YAML file with the sections of ``SECTIONS``, ``sets`` change single fields of it. Under torchrun
    every rank calls this, and ``data.batch`` is shared by them.
    """
    parts = settings.read(SECTIONS, config, sets)
    found, data = find(shards), parts["data"]
    held = list(islice(every(found), CALIBRATE))
    side = _side(teacher_config(teacher)[1]["model_cfg"]["vision_cfg"])
    world = start(device)

    def batches(number: int, positions: Sequence[int], done: int) -> Iterable[Any]:
        own = replace(data, seed=data.seed + number)
        return loader(PairStream(found, own, side, world.rank, world.ranks, positions, done))

    calibrate = ([opened(s.image) for s in held], [s.caption for s in held])
    try:
        return train_student(
            teacher,
            batches,
            calibrate,
            out,
            parts["student"],
            parts["distil"],
            parts["fusion"],
            world,
            data,
            fresh,
        )
    finally:
        stop()


def teacher_config(teacher: str) -> tuple[Path, dict[str, Any]]:
    """The folder of a teacher and its ``open_clip_config.json``; ``UsageError`` where it has none."""
    folder = embedded_folder() if teacher == EMBEDDED else Path(teacher.removeprefix("local-dir:"))
    path = folder / "open_clip_config.json"
    if not path.is_file():
        raise UsageError(f"{teacher} holds no {path.name}; the teacher is a folder in open_clip's format")
    return folder, json.loads(path.read_text("utf-8"))


def _side(vision: dict[str, Any]) -> int:
    size = vision.get("image_size", 224)
    return int(size if isinstance(size, int) else size[0])


def towers(model: Any) -> int:
    """Parameters of both towers of a model, without a decoder or fusion."""
    return parameters(model.visual) + parameters(model.text) if hasattr(model, "text") else parameters(model)


def build(model_cfg: dict[str, Any]) -> Any:
    """A dual stream of open_clip with towers of its own for images and captions."""
    import open_clip

    return open_clip.CustomTextCLIP(**{k: v for k, v in model_cfg.items() if k != "custom_text"})


def shrink(teacher: Any, model_cfg: dict[str, Any], share: float, side: int = 0) -> dict[str, Any]:
    """The configuration of a dual stream of two transformers with at most ``share`` of the parameters of ``teacher``.

    Widths and depths of the towers are scaled together (depth by the square root of the width), patches keep their
    size, so that half the side is a quarter of the work, and the embedding keeps its own, so that features can be
    compared. The student's text tower sees both directions and takes the teacher's tokenizer.
    """
    if not 0 < share <= 1:
        raise UsageError(f"share {share} is none; give the student's part of the teacher's parameters, as in 0.25")
    vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    whole = towers(teacher)
    depth = vision.get("layers", 12)
    depth, width = (12, 768) if not isinstance(depth, int) else (depth, vision.get("width", 768))
    size = _side(vision)
    patch = vision.get("patch_size", 16)
    if (side or size) % patch:
        raise UsageError(f"images of {side} pixels are not cut into patches of {patch}; give a multiple of {patch}")
    published, tower = "hf_model_name" in text, getattr(teacher, "text", teacher)
    text_width, text_depth = (768, 12) if published else (text.get("width", 512), text.get("layers", 12))
    kept = {k: text[k] for k in KEPT if k in text} | {k: int(getattr(tower, k)) for k in SIZES}
    if published or "hf_tokenizer_name" in text:
        kept["hf_tokenizer_name"] = "local"  # it lies in the folder
    for step in range(99, 1, -1):
        factor = step / 100
        deep = factor**0.5
        wide, narrow = (max(16, 8 * round(w * factor / 8)) for w in (width, text_width))
        seen = {
            "image_size": side or size,
            "patch_size": patch,
            "width": wide,
            "layers": max(1, round(depth * deep)),
            "head_width": wide // _heads(wide),
            "pool_type": "avg",
        }
        read = {**kept, "width": narrow, "heads": _heads(narrow), "layers": max(1, round(text_depth * deep))}
        read |= {"no_causal_mask": True, "pool_type": "first"}
        made = {
            "embed_dim": model_cfg["embed_dim"],
            "vision_cfg": seen,
            "text_cfg": read,
            "custom_text": True,
        }
        with torch.device("meta"):
            if parameters(build(made)) <= share * whole:
                return made
    raise UsageError(f"no student of {share:.1%} of {whole:,} parameters: its vocabulary alone is larger")


def _heads(width: int) -> int:
    """Heads of at most 64 channels, at least 4 heads where they divide the width (by 8, always)."""
    return max(4, next(n for n in range(1, width) if width % n == 0 and width // n <= 64))


def save(model: nn.Module, model_cfg: dict[str, Any], preprocess: dict[str, Any], tokenizer: Path, out: Path) -> None:
    """Write ``model`` to ``out`` in open_clip's format, with the tokenizer of the folder ``tokenizer``."""
    from safetensors.torch import save_file

    weights = {k: v.detach().contiguous() for k, v in model.state_dict().items()}
    save_file(weights, out / "open_clip_model.safetensors", metadata={"format": "pt"})
    for path in tokenizer.iterdir():
        if path.is_file() and path.name.startswith(TOKENIZER):
            shutil.copy(path, out)
    text = json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess}, indent=1)
    (out / "open_clip_config.json").write_text(text + "\n", "utf-8")
