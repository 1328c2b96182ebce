"""The dataset card, in Hugging Face's format: YAML head, data statement, files, loading.

Everything on it is counted or read from the run. What only its owner knows (licence, contact, intended use) is
marked as to be filled in, and nothing is claimed in its place.
"""

from __future__ import annotations

import io
import json
import re
from typing import Any

from ruamel.yaml import YAML

from ..pipeline import files
from ..pipeline.columns import COLUMNS
from ..pipeline.ledger import scan_ledger
from ..pipeline.registry import stage_class
from .loading import TITLES, snippets
from .statement import facts as counted
from .words import words

_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
_IN_JSON = (
    *("caption_raw", "caption_origin", "image_url", "page_url", "lang", "score", "scorer", "nsfw", "phash"),
    *("width", "height", "image_sha256", "caption_synthetic", "negatives", "captions_merged", "sensitive", "names"),
)


def write_card(run: str) -> None:
    """Write ``README.md`` of a finished run from its run.json, its ledger and the names of its shards."""
    told = json.loads(files.read_bytes(files.join(run, "run.json")))
    text = card(told, counted(scan_ledger(run)), files.names(files.join(run, "shards"), ".tar"))
    files.write_bytes(files.join(run, "README.md"), text.encode("utf-8", "replace"))


def card(told: dict[str, Any], facts: dict[str, Any], shards: list[str]) -> str:
    """The card's text from run.json, ``statement.facts`` of the ledger, and the shards' file names."""
    parts = [
        f"---\n{_head(told, shards)}---\n\n# Chinese image-text pairs\n",
        _summary(told),
        *(f"> **Note.** {notice}\n" for notice in told["notices"]),
        "## Data statement\n",
        _sources(told, facts),
        _opt_outs(told, facts),
        _recipe(told),
        _models(told),
        _composition(facts),
        _privacy(told["recipe"], facts),
        _gaps(told, facts),
        "### For the owner to fill in\n\nLicence of the collection, contact for removals, and intended use. Removals "
        "are carried out with `curate remove`, which also keeps them out of later runs.\n",
        _structure(told, shards),
        "## Loading\n\nEach of these was run as it stands, in this folder.\n",
        *_loading(told, shards),
    ]
    return "\n".join(parts)


def _head(told: dict[str, Any], shards: list[str]) -> str:
    head: dict[str, Any] = {
        "language": ["zh"],
        "pretty_name": f"Chinese image-text pairs ({told['recipe']['name']})",
        "license": "other",
        "license_name": "see-the-card",
        "license_link": "README.md",
        "task_categories": ["image-to-text", "text-to-image", "zero-shot-image-classification"],
        "annotations_creators": ["found"],
        "language_creators": ["found"],
        "multilinguality": ["monolingual"],
        "source_datasets": ["original"],
        "size_categories": [_size(told["counts"]["kept"])],
        "tags": ["image-text", "webdataset", "croissant", "tuwen"],
    }
    if shards:
        splits = {("validation" if s == "val" else s): f"shards/{s}-*.tar" for s in told["splits"]}
        columns = {"__key__": "string", "__url__": "string", "jpg": "image", "json": "json", "txt": "string"}
        head["configs"] = [
            {"config_name": "default", "data_files": [{"split": s, "path": p} for s, p in splits.items()]}
        ]
        # Told beforehand, because what loaders guess from a few samples does not hold for the next.
        head["dataset_info"] = {"features": [{"name": n, "dtype": t} for n, t in columns.items()]}
    out = io.StringIO()
    YAML(typ="rt").dump(head, out)
    return out.getvalue()


def _summary(told: dict[str, Any]) -> str:
    counts, recipe = told["counts"], told["recipe"]
    kept = f"{counts['kept']:,} kept, {counts['dropped']:,} dropped, {counts['failed']:,} failed"
    return (
        f"Made by tuwen {told['version']} on {told['created'][:10]} with the recipe `{recipe['name']}` "
        f"({recipe['hash']}): {counts['inputs']:,} pairs were read, {kept}. `ledger/` has one row for each of them, "
        "with every measure and the reason.\n"
    )


def _sources(told: dict[str, Any], facts: dict[str, Any]) -> str:
    named = [str(name).rstrip("/").rsplit("/", 1)[-1] for name in told["inputs"]]
    lines = ["### Sources\n", f"Read from {len(named)} input{'s' * (len(named) != 1)}:", ""]
    lines += [f"- {_code(name)}" for name in named[:20]]
    lines += [f"- and {len(named) - 20} more; run.json names all"] if len(named) > 20 else []
    if facts["hosts"]:
        lines += ["", f"Kept images come from {facts['hosts']:,} host{'s' * (facts['hosts'] != 1)}. The largest:", ""]
        lines += ["| host | kept pairs |", "|---|---|", *(f"| {_code(h)} | {n:,} |" for h, n in facts["top_hosts"])]
    if facts["caption_origins"]:
        lines += ["", f"Captions stood in: {_listed(facts['caption_origins'])}."]
    return "\n".join(lines) + "\n"


def _opt_outs(told: dict[str, Any], facts: dict[str, Any]) -> str:
    fetch = next((s for s in told["recipe"]["stages"] if s["name"] == "fetch"), None)
    lost = _lost(told)
    lines = ["### Opt-outs\n"]
    if fetch is None or not any(name == "fetch" and row["in"] for name, row in told["stages"].items()):
        lines.append("The recipe fetches nothing: images came with the input, and no opt-out was asked for.")
    else:
        asked = {
            "X-Robots-Tag (noai, noimageai, noml) and TDM-Reservation": fetch["honour_opt_out"],
            "robots.txt of each host": fetch["robots"],
            "/.well-known/tdmrep.json of each host": fetch["tdm_file"],
        }
        lines.append("Where images were fetched over the network, this was asked for and honoured:")
        lines += ["", *(f"- {what}: {'yes' if yes else '**no**'}" for what, yes in asked.items()), ""]
        refused = {r: n for r, n in lost.items() if r in ("fetch_opted_out", "fetch_robots")}
        told_ = ", ".join(f"{n:,} {words(r)[0]} (`{r}`)" for r, n in refused.items())
        lines.append(f"Left out for it: {told_ or 'none'}.")
        if facts["opt_outs"]:
            lines.append(f"Directives found: {_listed([(_code(v), n) for v, n in facts['opt_outs'][:10]])}.")
    if removed := lost.get("removed", 0):
        lines.append(f"\n{removed:,} pairs were removed on request after the run.")
    return "\n".join(lines) + "\n"


def _recipe(told: dict[str, Any]) -> str:
    recipe = told["recipe"]
    lines = ["### Recipe and counts\n"]
    lines += [f"{recipe['about']}\n"] if recipe.get("about") else []
    lines += [f"Source of the recipe: {recipe['source']}\n"] if recipe.get("source") else []
    lines += ["| stage | in | kept | dropped and failed |", "|---|---|---|---|"]
    for name, row in told["stages"].items():
        lost = ", ".join(f"{r} {n:,}" for r, n in {**row["dropped"], **row["failures"]}.items())
        lines.append(f"| {name} | {row['in']:,} | {row['kept']:,} | {lost} |")
    reasons = sorted(_lost(told))
    lines += ["", *(f"- `{r}`: {words(r)[0]}" for r in reasons)]
    out = io.StringIO()
    stages = [{s["name"]: _fields(s)} for s in recipe["stages"]]
    YAML(typ="rt").dump({"name": recipe["name"], "stages": stages, "shards": recipe["shards"]}, out)
    lines += ["", "<details><summary>The recipe with all thresholds</summary>", "", "```yaml"]
    lines += [out.getvalue().rstrip(), "```", "", "</details>"]
    return "\n".join(lines) + "\n"


def _fields(stage: dict[str, Any]) -> dict[str, Any]:
    """What a stage decides by: no address, proxy or folder of the machine that it ran on."""
    hidden = {"name", *stage_class(stage["name"]).operational()}
    return {k: _base(v) if isinstance(v, str) else v for k, v in stage.items() if k not in hidden}


def _models(told: dict[str, Any]) -> str:
    used = [(stage, name, digest) for stage, all_ in told["resources"].items() for name, digest in all_.items()]
    if not used:
        return "### Models and lexicons\n\nThe recipe uses none.\n"
    rows = (f"| {stage} | {_code(_base(name))} | `{digest}` |" for stage, name, digest in used)
    return "\n".join(["### Models and lexicons\n", "| stage | file or name | hash |", "|---|---|---|", *rows]) + "\n"


def _composition(facts: dict[str, Any]) -> str:
    lines = ["### What is in it\n", "| of the kept pairs | 5 % have at most | median | 95 % have at most |"]
    lines.append("|---|---|---|---|")
    for column, values in facts["spread"].items():
        if all(v is not None for v in values):
            doc, unit = COLUMNS[column].doc, COLUMNS[column].unit
            lines.append(f"| {column}: {doc} ({unit}) | " + " | ".join(f"{v:.4g}" for v in values) + " |")
    lines += ["", f"- languages: {_listed(facts['languages'])}", f"- formats received: {_listed(facts['formats'])}"]
    lines.append(f"- distinct captions: {facts['distinct_captions']:,}")
    lines.append(f"- with a synthetic caption beside the found one: {facts['synthetic']:,}")
    lines.append(f"- with hard negatives: {facts['negatives']:,}")
    return "\n".join(lines) + "\n"


def _privacy(recipe: dict[str, Any], facts: dict[str, Any]) -> str:
    stages = {s["name"]: s for s in recipe["stages"]}
    marked = facts["marked"]
    told = []
    if "names" in stages:
        told.append(
            f"Personal names in captions were replaced by {stages['names']['placeholder']} "
            f"({marked.get('names', 0):,} kept captions). Names of public figures are treated alike."
        )
    if "jpeg" in stages:
        ways = {"passed": "had none", "stripped": "had it cut out", "encoded": "were encoded anew"}
        made = ", ".join(f"{facts['jpeg'].get(w, 0):,} {ways[w]}" for w in ways)
        told.append(f"EXIF, XMP and IPTC metadata (place, device, author) was removed from the images: {made}.")
    if "sensitive" in stages:
        told.append(
            f"Sensitive words were masked or dropped by category ({marked.get('sensitive', 0):,} kept captions)."
        )
    if "image_safety" in stages:
        told.append(
            f"Images that the detector {_code(_base(stages['image_safety']['detector']))} finds unsafe were dropped."
        )
    told = told or ["No stage of the recipe treats personal data."]
    beyond = (
        "Faces are not blurred. The ledger and each sample's JSON hold captions as they were found (`caption_raw`), "
        "names included, and addresses of pages: drop those columns before sharing further where that matters."
    )
    return "\n".join(["### Personal and sensitive information\n", *(f"- {t}" for t in told), "", beyond]) + "\n"


def _gaps(told: dict[str, Any], facts: dict[str, Any]) -> str:
    counts, lost = told["counts"], _lost(told)
    held = {s["name"] for s in told["recipe"]["stages"]}
    lines = ["### Known gaps\n"]
    failed = sorted(((n, r) for row in told["stages"].values() for r, n in row["failures"].items()), reverse=True)
    if failed:
        share = counts["failed"] / counts["inputs"]
        why = ", ".join(f"{words(r)[0]} {n:,}" for n, r in failed[:5])
        lines.append(f"- {counts['failed']:,} pairs ({share:.1%}) could not be judged and are missing: {why}.")
    if facts["top_hosts"] and counts["kept"]:
        host, most = facts["top_hosts"][0]
        lines.append(f"- {most / counts['kept']:.0%} of the kept pairs come from {_code(host)}.")
    if unjudged := lost.get("not_measured"):
        lines.append(f"- {unjudged:,} pairs were never measured to the end.")
    missing = {
        "score": "No score was taken: whether image and caption match is unchecked.",
        "image_safety": "No detector of unsafe images was run.",
        "names": "Personal names were not looked for.",
        "pair_duplicates": "Near duplicates were not looked for.",
        "decontaminate": "Evaluation sets were not looked for among the pairs.",
        "split": "There are no splits by cluster: near pairs may stand on both sides of any split made later.",
    }
    lines += [f"- {text}" for stage, text in missing.items() if stage not in held]
    lines.append(
        "- Captions are what pages say, with their errors and their bias towards what is published and who "
        "publishes. Rules and thresholds err in both directions; the ledger shows every decision."
    )
    lines.append("- The rights in the images and texts stay with their owners.")
    return "\n".join(lines) + "\n"


def _structure(told: dict[str, Any], shards: list[str]) -> str:
    lines = ["## Files\n"]
    if shards:
        lines.append(
            f"{told['shards']['count']} shards, {told['shards']['bytes']:,} bytes, with their SHA-256 in "
            "`shards/index.json`. A sample is `KEY.jpg`, `KEY.txt` (caption, UTF-8) and `KEY.json`, whose fields are "
            "the ledger's columns that have a value, among them:"
        )
        lines += ["", "| field | what |", "|---|---|", *(f"| `{c}` | {_cell(COLUMNS[c].doc)} |" for c in _IN_JSON), ""]
    else:
        lines.append("This run has no shards: its verdicts are in the ledger.\n")
    lines += [*(f"- {split}: {n:,} pairs" for split, n in told["splits"].items())]
    return "\n".join(lines) + "\n"


def _loading(told: dict[str, Any], shards: list[str]) -> list[str]:
    needs = {
        "webdataset": "",
        "open_clip": " (a Chinese text encoder; needs `open_clip_torch[training]` and its `webdataset<0.3`)",
        "datasets": ' (5.0 or later; `load_dataset("FOLDER")` reads this card and does the same)',
        "polars": " on the ledger",
        "duckdb": " on the ledger",
    }
    found = snippets(shards, told["splits"])
    return [f"**{t}**{needs[t]}\n\n```{found[t][0]}\n{found[t][1]}```\n" for t in TITLES if t in found]


def _lost(told: dict[str, Any]) -> dict[str, int]:
    """Pairs by reason, over all stages."""
    found: dict[str, int] = {}
    for row in told["stages"].values():
        for reason, n in (*row["dropped"].items(), *row["failures"].items()):
            found[reason] = found.get(reason, 0) + n
    return found


def _listed(counts: list[tuple[str, int]]) -> str:
    return ", ".join(f"{v} {n:,}" for v, n in counts) or "none"


def _base(name: str) -> str:
    """A model's or lexicon's name without the folders of the machine it lay on."""
    kind, colon, path = name.rpartition(":")
    return f"{kind}{colon}{path.rstrip('/').rsplit('/', 1)[-1]}" if path.startswith(("/", ".", "~")) else name


def _code(text: str) -> str:
    """``text``, which may come from the web, as a code span that stays one within a table."""
    plain = re.sub(r"[`|\s]+", " ", text)[:120]
    return f"`{plain or ' '}`"


def _cell(text: str) -> str:
    return text.replace("|", "/")


def _size(n: int) -> str:
    """Hugging Face's word for a number of samples."""
    bounds = [1000 * 10**i for i in range(len(_SIZES))]
    at = next((i for i, bound in enumerate(bounds) if n < bound), len(bounds))
    if at == 0:
        return "n<1K"
    return f"{_SIZES[at - 1]}<n<{_SIZES[at]}" if at < len(bounds) else "n>1T"
