"""Reasons in words, in English and Chinese, for people who read a report."""

from __future__ import annotations

from ..pipeline.stage import StageModel

FIELDS: dict[str, tuple[str, str]] = {
    "language.min_han": ("share of Han characters", "汉字占比"),
    "boilerplate.max_share": ("share of boilerplate", "套话占比"),
    "sensitive.drop": ("drop captions with sensitive words", "丢弃含敏感词的文字"),
    "length.shortest": ("fewest characters", "最少字数"),
    "length.longest": ("most characters", "最多字数"),
    "length.min_distinct": ("distinct characters", "不同字数"),
    "length.max_repetition": ("repetition", "重复度"),
    "length.require_noun": ("a noun is needed", "须含名词"),
    "names.drop_captions": ("drop captions with names", "丢弃含人名的文字"),
    "decode.shorter_side": ("shorter side", "短边"),
    "decode.max_aspect": ("longer over shorter side", "长宽比"),
    "decode.max_border": ("plain border", "边框占比"),
    "decode.min_entropy": ("entropy of the picture", "图片信息熵"),
    "decode.min_sharpness": ("sharpness", "清晰度"),
    "decode.max_transparency": ("transparency", "透明度"),
    "decode.allow_animated": ("keep moving images", "保留动图"),
    "image_safety.threshold": ("unsafe probability", "不安全概率"),
    "image_safety.blocklist_bits": ("distance to the blocklist", "与屏蔽名单的距离"),
    "score.threshold": ("score of image and caption", "图文分数"),
    "score.ceiling": ("score, at most", "图文分数上限"),
    "score.prompt_margin": ("nearness to unsafe prompts", "与不安全提示词的接近度"),
    "score_percentile.best": ("best share of the run", "全局前列占比"),
    "rank_rule.top": ("rank within its block", "组内名次"),
    "rank_rule.needs": ("directions in which it must rank", "须入列的方向"),
    "templates.pages": ("pages of a site with the caption", "同站重复页数"),
    "caption_frequency.most": ("pairs with the same caption", "相同文字的图文对数"),
}
"""Thresholds in words; one that is missing here is shown by its own description."""

REASONS: dict[str, tuple[str, str]] = {
    "kept": ("kept", "保留"),
    "caption_empty": ("no caption is left after cleaning", "清洗后没有文字"),
    "not_chinese": ("the caption is not Chinese", "文字不是中文"),
    "boilerplate": ("the caption is mostly page boilerplate", "文字多为网页套话"),
    "sensitive_word": ("a sensitive word of a category that drops", "含有需丢弃类别的敏感词"),
    "caption_too_short": ("the caption is too short", "文字太短"),
    "caption_too_long": ("the caption is too long", "文字太长"),
    "caption_uninformative": ("the caption says nothing", "文字没有信息"),
    "personal_name": ("a personal name", "含有人名"),
    "caption_too_frequent": ("too many pairs carry the caption", "相同文字的图文对过多"),
    "image_missing": ("there is no image", "没有图片"),
    "image_bomb": ("the image claims more pixels than are decoded", "图片声称的像素过多"),
    "image_unsupported": ("a kind of image that cannot be read", "不支持的图片格式"),
    "image_corrupt": ("the image is broken or cut short", "图片损坏或不完整"),
    "image_animated": ("a moving image", "动图"),
    "image_too_small": ("the image is too small", "图片太小"),
    "image_bad_aspect": ("the image is too long or too wide", "图片长宽比过大"),
    "image_flat": ("the image shows next to nothing", "图片几乎没有内容"),
    "image_blurred": ("the image is blurred", "图片模糊"),
    "image_unsafe": ("the detector finds the image unsafe", "检测为不安全图片"),
    "image_blocklisted": ("the image stands on the blocklist", "图片在屏蔽名单中"),
    "unsafe_by_prompt": ("the image is nearest to an unsafe prompt", "图片最接近不安全提示词"),
    "low_score": ("image and caption do not match", "图文不匹配"),
    "high_score": ("the score is above the ceiling", "分数高于上限"),
    "below_percentile": ("the score is not among the best of the run", "分数未进入前列"),
    "low_rank": ("others of its block match better", "同组中有更匹配的图文"),
    "same_pair": ("the very same pair stands elsewhere", "完全相同的图文对"),
    "pair_duplicate": ("image and caption repeat a better pair", "图文与更好的一对重复"),
    "template_caption": ("a caption that the site repeats on many pages", "网站在多个页面重复的文字"),
    "image_repeated": ("the image has enough other captions", "该图片已有足够文字"),
    "caption_repeated": ("the caption has enough other images", "该文字已有足够图片"),
    "semantic_duplicate": ("image and caption mean the same as a better pair", "图文与更好的一对语义重复"),
    "straddles_splits": ("near pairs of several splits", "与多个划分中的图文相近"),
    "removed": ("removed on request", "应要求删除"),
    "image_bordered": ("mostly plain border", "边框过大"),
    "image_qr_code": ("shows a QR code", "含二维码"),
    "image_text": ("text covers much of the image", "图中文字过多"),
    "image_watermarked": ("a watermark is repeated over the image", "带有重复水印"),
    "in_evaluation_set": ("the pair is part of an evaluation set", "属于评测集"),
    "not_measured": ("never measured: the first run dropped it before", "原运行未测量"),
    "bytes_missing": ("the image's bytes cannot be read any more", "无法再读取图片数据"),
    "stage_error": ("the stage could not process it", "处理出错"),
    "broken_archive": ("the archive breaks off", "归档文件损坏"),
    "bad_line": ("the line cannot be read", "无法解析的行"),
    "caption_missing": ("there is no caption", "没有文字"),
    "data_url": ("the image is inlined in the page", "内嵌图片"),
    "failed_to_download": ("img2dataset did not get the image", "img2dataset 未能下载图片"),
    "failed_to_resize": ("img2dataset could not decode the image", "img2dataset 未能解码图片"),
    "relative_url": ("a relative address in a page of unknown address", "相对地址无法解析"),
    "bad_url": ("the address cannot be fetched", "地址无效"),
}


FETCH: dict[str, tuple[str, str]] = {
    "opted_out": ("the site opted out", "网站声明不可采集"),
    "robots": ("robots.txt forbids it", "robots.txt 禁止"),
    "dns": ("no such host", "找不到主机"),
    "tls": ("no trusted connection", "证书或加密连接无效"),
    "timeout_connect": ("the host did not answer in time", "连接超时"),
    "timeout_read": ("the answer took too long", "读取超时"),
    "reset": ("the connection broke", "连接中断"),
    "refused": ("the host refused the connection", "主机拒绝连接"),
    "bad_response": ("an answer that is no HTTP", "返回内容不合协议"),
    "network": ("network error", "网络错误"),
    "blocked_address": ("an address that is not public", "非公网地址"),
    "redirect_loop": ("redirected without end", "重定向过多"),
    "too_large": ("too many bytes", "文件过大"),
    "empty": ("nothing came", "返回内容为空"),
    "not_an_image": ("what came is no image", "返回的不是图片"),
    "bad_url": ("the address cannot be fetched", "地址无效"),
}
"""Causes of a failed fetch; those of the form http_404 are spelled out."""


def words(reason: str) -> tuple[str, str]:
    """(English, Chinese) for a reason; a fetch's class is spelled out, an unknown reason stands for itself."""
    if reason in REASONS:
        return REASONS[reason]
    if reason.startswith("fetch_"):
        cause = reason.removeprefix("fetch_")
        plain = cause.replace("http_", "HTTP ").replace("_", " ")
        english, chinese = FETCH.get(cause, (plain, plain))
        return f"fetch failed: {english}", f"下载失败：{chinese}"
    plain = reason.replace("_", " ")
    return plain, plain


def field_words(stage: StageModel, field: str) -> tuple[str, str]:
    """(English, Chinese) for a threshold; one that has no words here stands for itself."""
    name = f"{stage.name}.{field}"
    plain = field.replace("_", " ")
    return FIELDS.get(name, (f"{stage.name}: {plain}", f"{stage.name}: {plain}"))
