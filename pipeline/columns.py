"""Every column that a pair can carry: its type, unit, who writes it, and what it means.

This table is the single source for the batch schema, for the ledger's parquet schema and
for ``docs/ledger.md``. A stage may only write columns that stand here; a test holds that.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

SPAN = pl.Struct(
    {
        "start": pl.UInt32,
        "end": pl.UInt32,
        "word": pl.String,
        "category": pl.String,
        "action": pl.String,
    }
)
"""A piece of a caption that a rule marked.

``start`` and ``end`` are code-point offsets into ``caption_raw`` (half open), ``word`` is what
matched as the rule knows it, ``action`` is ``mask``, ``cut``, ``drop`` or ``flag``.
"""

NEGATIVE = pl.Struct({"kind": pl.String, "caption": pl.String})


@dataclass(frozen=True)
class Column:
    """One column of a batch.

    ``ledger`` is false for columns that live only inside a run (image bytes, offset maps).
    ``writer`` names the stage, or ``read``, ``shell``, ``relate``, ``emit``.
    """

    name: str
    dtype: pl.DataType | type[pl.DataType]
    writer: str
    doc: str
    unit: str = ""
    ledger: bool = True


_ALL = (
    # source
    Column(
        "key",
        pl.String,
        "read",
        "BLAKE2b, 32 hex digits, of the image (URL, else bytes) and the raw caption",
    ),
    Column("unit", pl.String, "read", "the unit that read this pair"),
    Column("ordinal", pl.UInt32, "read", "the pair's place within its unit, from 0"),
    Column("origin", pl.String, "read", "file#record#ordinal, relative to the input"),
    Column("page_url", pl.String, "read", "the page the pair stood on"),
    Column(
        "image_url",
        pl.String,
        "read",
        "absolute http(s) URL of the image; where its bytes came with the input, the one a sidecar names, else null",
    ),
    Column("caption_origin", pl.String, "read", "alt, title, figcaption, nearby, sidecar or column"),
    Column("caption_raw", pl.String, "read", "the caption as found (lone surrogates and NULs replaced by U+FFFD)"),
    # text
    Column("caption", pl.String, "normalise", "the caption as it will ship"),
    Column(
        "caption_offsets",
        pl.List(pl.UInt32),
        "normalise",
        "for each character of caption its index in caption_raw; null means the identity",
        ledger=False,
    ),
    Column("normalised_chars", pl.UInt32, "normalise", "length of the caption in its one spelling", "characters"),
    Column("social", pl.List(SPAN), "social", "emoji and hashtags, or their marks, that were cut"),
    Column("emoji_count", pl.UInt32, "social", "emoji of the caption", "emoji"),
    Column("hashtag_count", pl.UInt32, "social", "hashtags of the caption (#话题# or #tag)", "hashtags"),
    Column("lang", pl.String, "language", "BCP 47: zh, yue, wuu, ja, ko, en, … or und"),
    Column("han_ratio", pl.Float32, "language", "Han characters over letters", "share"),
    Column("fragments", pl.List(SPAN), "fragments", "fragments in other languages that were cut"),
    Column("boilerplate", pl.List(SPAN), "boilerplate", "phrases and patterns cut or dropped"),
    Column("boilerplate_share", pl.Float32, "boilerplate", "words cut over words (a Han character is one)", "share"),
    Column("template_count", pl.UInt32, "templates", "pages of the same site that carry this caption", "pages"),
    Column("site_tails", pl.List(SPAN), "site_tails", "tails and heads of the site that were cut"),
    Column("tail_count", pl.UInt32, "site_tails", "pages of the same site with this caption's tail", "pages"),
    Column("head_count", pl.UInt32, "site_tails", "pages of the same site with this caption's head", "pages"),
    Column("sensitive", pl.List(SPAN), "sensitive", "sensitive words found, with category and action"),
    Column("chars", pl.UInt32, "length", "letters and digits of the caption", "characters"),
    Column("distinct_chars", pl.UInt32, "length", "distinct letters and digits of the caption", "characters"),
    Column("repetition", pl.Float32, "length", "share of the caption that repeats an earlier character pair", "share"),
    Column("char_entropy", pl.Float32, "length", "Shannon entropy of the characters", "bits"),
    Column("has_noun", pl.Boolean, "length", "a noun was tagged in the caption"),
    Column("names", pl.List(SPAN), "names", "personal names replaced by a placeholder"),
    # fetch and image
    Column("image", pl.Binary, "read", "the image's bytes", "bytes", ledger=False),
    Column("http_status", pl.UInt16, "fetch", "last HTTP status"),
    Column("fetch_error", pl.String, "fetch", "class of the failed fetch (dns, refused, tls, timeout_connect, …)"),
    Column("fetch_ms", pl.UInt32, "fetch", "time of the fetch", "ms", ledger=False),
    Column("opt_out", pl.String, "fetch", "the opt-out directive found on the response, as sent"),
    Column("image_sha256", pl.String, "decode", "SHA-256 of the bytes as received"),
    Column("format", pl.String, "decode", "file kind by content: jpeg, png, webp, gif, bmp, tiff, avif, …"),
    Column("width", pl.UInt32, "decode", "after EXIF orientation", "pixels"),
    Column("height", pl.UInt32, "decode", "after EXIF orientation", "pixels"),
    Column("frames", pl.UInt32, "decode", "frames in the file", "frames"),
    Column("colour_space", pl.String, "decode", "samples of the file: grey, palette, rgb, cmyk or lab"),
    Column("colour_profile", pl.String, "decode", "the colour profile's own name; null where none is embedded"),
    Column("bit_depth", pl.UInt8, "decode", "bits of a sample in the file", "bits"),
    Column("transparency", pl.Float32, "decode", "mean transparency: 0 opaque, 1 nothing to be seen", "share"),
    Column("decode_error", pl.String, "decode", "why the image cannot be decoded; null where it can"),
    Column("phash", pl.UInt64, "decode", "64-bit perceptual hash (DCT)"),
    Column("phash_mirrored", pl.UInt64, "decode", "the same of the picture mirrored left and right"),
    Column("phash_inside", pl.UInt64, "decode", "the same of what plain borders hold; null where there are none"),
    Column("image_grid", pl.Binary, "decode", "means of Y, Cr and Cb in 6 x 6 cells, 108 bytes"),
    Column("image_grid_inside", pl.Binary, "decode", "the same of what plain borders hold; null where there are none"),
    Column("border", pl.Float32, "decode", "area of the plain borders over the image's", "share"),
    Column(
        "sharpness",
        pl.Float32,
        "decode",
        "variance of the Laplacian at a shorter side of at most 256",
        "grey levels squared",
    ),
    Column("image_entropy", pl.Float32, "decode", "Shannon entropy of the grey histogram", "bits"),
    Column("saturation", pl.Float32, "decode", "mean HSV saturation", "share"),
    Column("text_share", pl.Float32, "overlays", "area that looks like text over the image's", "share"),
    Column("qr_codes", pl.UInt8, "overlays", "QR codes found", "codes"),
    Column("watermark", pl.Float32, "overlays", "likelihood of a mark that is repeated over the image", "share"),
    Column("nsfw", pl.Float32, "image_safety", "probability of the unsafe classes", "share"),
    Column("unsafe_class", pl.String, "image_safety", "the likeliest unsafe class"),
    Column(
        "blocklisted", pl.UInt8, "image_safety", "distance to the nearest blocklisted hash; null without a list", "bits"
    ),
    Column("jpeg", pl.String, "jpeg", "passed (bytes untouched), stripped (metadata removed losslessly) or encoded"),
    Column("image_bytes", pl.UInt32, "jpeg", "size of the image as it ships", "bytes"),
    Column("shipped_width", pl.UInt32, "jpeg", "of the image as it ships", "pixels"),
    Column("shipped_height", pl.UInt32, "jpeg", "of the image as it ships", "pixels"),
    # relation
    Column("score", pl.Float32, "score", "cosine of image and caption, rounded to 4 decimals", "cosine"),
    Column("scorer", pl.String, "score", "name and hash of the scorer"),
    Column("image_embedding", pl.Binary, "score", "unit vector of the image, 16-bit floats, little endian"),
    Column("caption_embedding", pl.Binary, "score", "unit vector of the caption, 16-bit floats, little endian"),
    Column("prompt_margin", pl.Float32, "score", "nearest unsafe prompt less nearest safe one, to the image", "cosine"),
    Column("prompt_class", pl.String, "score", "class of the nearest unsafe prompt"),
    Column("score_better", pl.Float64, "score_percentile", "scored pairs of the run with a higher score", "share"),
    Column(
        "rank_caption", pl.UInt32, "rank_rule", "captions of its block nearer to the image than its own", "captions"
    ),
    Column("rank_image", pl.UInt32, "rank_rule", "images of its block nearer to the caption than its own", "images"),
    Column("rank_block", pl.UInt32, "rank_rule", "size of that block", "pairs"),
    Column("taken_down", pl.String, "removed", "when an earlier run's copy was removed on request"),
    Column("caption_count", pl.UInt32, "caption_frequency", "pairs of the run that carry this caption", "pairs"),
    Column("duplicate_of", pl.String, "relate", "key of the pair that stays in this one's place"),
    Column("duplicate_kind", pl.String, "relate", "what matched: key, pair, image or caption"),
    Column("captions_merged", pl.List(pl.String), "relate", "captions of dropped pairs that show the same image"),
    Column(
        "captions_beside",
        pl.List(pl.String),
        "relate",
        "captions of other pairs that show the very same image",
        ledger=False,
    ),
    Column("cluster", pl.String, "relate", "smallest key of the cluster that must stay in one split"),
    Column("contaminates", pl.String, "relate", "evaluation set and item that this pair matches"),
    # made
    Column("caption_synthetic", pl.String, "emit", "a caption made by the captioner"),
    Column("synthetic_score", pl.Float32, "emit", "score of what the captioner wrote, shipped or not", "cosine"),
    Column("synthetic_reason", pl.String, "emit", "why no synthetic caption ships; null where one does"),
    Column("synthetic_detail", pl.String, "emit", "the same for people: the answer refused, values, error message"),
    Column("synthetic_tokens", pl.UInt32, "emit", "what the endpoint says the caption cost", "tokens"),
    Column("negatives", pl.List(NEGATIVE), "emit", "hard negatives: kind and caption"),
    # verdict
    Column("status", pl.String, "shell", "kept, dropped or failed"),
    Column("stage", pl.String, "shell", "the stage that dropped or failed the pair"),
    Column("reason", pl.String, "shell", "why, as one stable word"),
    Column("detail", pl.String, "shell", "the same for people: values, error message"),
    Column("blocked", pl.String, "shell", "with --measure-all: stage:reason where measuring a dropped pair failed"),
    # placement
    Column("split", pl.String, "relate", "train, val or test"),
    Column("shard", pl.String, "relate", "file name of the shard that holds the pair"),
    Column("part", pl.String, "shell", "part file that holds the bytes", ledger=False),
    Column("offset", pl.UInt64, "shell", "where the bytes start in the part file", "bytes", ledger=False),
    Column("length", pl.UInt32, "shell", "how many bytes", "bytes", ledger=False),
)

COLUMNS: dict[str, Column] = {c.name: c for c in _ALL}

SOURCE_COLUMNS = tuple(c.name for c in _ALL if c.writer == "read")
LEDGER_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {c.name: c.dtype for c in _ALL if c.ledger}


def empty(*names: str) -> pl.DataFrame:
    """A frame of no rows with the named columns, in their registered types."""
    return pl.DataFrame(schema={name: COLUMNS[name].dtype for name in names})


def with_missing(frame: pl.DataFrame, names: list[str] | tuple[str, ...]) -> pl.DataFrame:
    """``frame`` with every named column present (null where it was absent) and of its type."""
    held = frame.schema
    # An expression goes through the query engine, which costs more than most of these frames' rows.
    if casts := [pl.col(n).cast(COLUMNS[n].dtype) for n in names if n in held and held[n] != COLUMNS[n].dtype]:
        frame = frame.with_columns(casts)
    nulls = [pl.Series(n, [], COLUMNS[n].dtype).extend_constant(None, frame.height) for n in names if n not in held]
    return frame.hstack(nulls) if nulls else frame


def without(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    """``frame`` without the named columns, those that it has."""
    return pl.DataFrame([column for column in frame.get_columns() if column.name not in names])
