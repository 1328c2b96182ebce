"""What a model's answer must be before it is a caption: the answer alone, no talk around it, no loops.

First the wrapping that models put around a caption is cut (这张图片显示了……, 描述：, quotes, a block of thinking);
what then is no caption is refused with one word:

    refusal       the model speaks of itself, or declines (作为一个AI, 抱歉，我无法……)
    prompt_leak   the prompt's own words, or marks of its chat format
    repetition    a piece three times in a row, or too many character triples that occurred before
    too_short     fewer letters than asked for
    too_long      more letters than asked for
"""

from __future__ import annotations

import re

_THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.S)
_PICTURE = r"(?:这|该|此|本|上)?(?:是)?(?:一)?(?:张|幅|个|副)?(?:图片|照片|图像|画面|影像|相片|图)"
_SHOWS = r"(?:主要)?(?:显示|展示|展现|描绘|描述|呈现|拍摄|记录|捕捉)(?:了|出|的是|的|着)*"
_WRAPPING = (
    re.compile(r"^(?:\*\*|#+|>|[-•·])+\s*"),
    re.compile(r"^(?:好的|当然|没问题|以下是|下面是)[^：:。\n]{0,20}[：:。！!，,]\s*"),
    re.compile(
        r"^(?:图片|图像|照片|中文|一句话)?(?:描述|说明|标题|内容|答案|回答|输出|caption)(?:如下|为)?\s*[:：]\s*", re.I
    ),
    re.compile(rf"^{_PICTURE}(?:中|里|上)?[，,]?{_SHOWS}[：:，,]?\s*"),
    re.compile(rf"^(?:在)?{_PICTURE}(?:中|里)(?:可以看到|能看到|我们可以看到|我们看到|有着|是)?[，,：:]?\s*"),
    re.compile(rf"^{_PICTURE}(?:的内容)?是[：:]?\s*"),
)
_HAN = "[\u3007\u3400-\u4dbf\u4e00-\u9fff]"
_SIGN = "[,;:!?，。；：！？、]"
_APART = re.compile(rf"(?<={_HAN})\s+(?={_HAN}|{_SIGN})|(?<={_SIGN})\s+(?={_HAN})")
_COMMA = re.compile(rf"(?<={_HAN})([,;:!?])(?={_HAN}|$)")
_WIDE = dict(zip(",;:!?", "，；：！？", strict=True))
_OPENING, _CLOSING = "“\"‘'「『《`", "”\"’'」』》`"

_REFUSAL = re.compile(
    r"作为(?:一个|一名|一款|一种)?(?:AI|人工智能|大?语言模型|大模型|智能助手|虚拟助手)"
    r"|^(?:很|非常|十分)?(?:抱歉|遗憾)[，,。！!]|^对不起[，,。！!]?我"
    r"|(?:我|本模型|本助手)(?:暂时|目前|现在)?(?:无法|不能|没有办法|没法)(?:直接)?"
    r"(?:查看|看到|看见|识别|描述|提供|访问|帮助|确定|满足|处理|打开|回答|协助)"
    r"|\bas an ai\b|\bi(?:['’]| a)?m sorry\b|\bi(?: am unable|['’]m unable| can ?not| can['’]t)\b",
    re.I,
)
_FORMAT = re.compile(
    r"<\|[^|>]{1,30}\|>|</?s>|\[/?INST\]|<image>|<\|?(?:user|assistant|system)\|?>|^(?:user|assistant|system)\s*[:：]"
    r"|^(?:用户|助手|系统)[:：]",
    re.I,
)
_LOOP = re.compile(r"(.{2,20}?)\1\1", re.S)
_DIGIT_LOOP = re.compile(r"[\d.\-]+")

LEAK = 6
"""Characters in a row that caption and prompt share: six Chinese characters are a clause, five may be chance."""


def unwrap(answer: str) -> str:
    """The caption inside ``answer``: one line, without what models say before and around it."""
    text = re.sub(r"\s*\n+\s*", "", _THINKING.sub("", answer).strip())
    # Tokenizers of the BERT family set Han characters apart and fold their punctuation.
    text = _APART.sub("", text)
    text = _COMMA.sub(lambda m: _WIDE[m.group(1)], text)
    for _ in range(4):
        before = text
        for pattern in _WRAPPING:
            text = pattern.sub("", text, count=1)
        text = text.removesuffix("**").strip()
        for first, last in zip(_OPENING, _CLOSING, strict=True):
            if len(text) > 2 and text[0] == first and text[-1] == last and first not in text[1:-1]:
                text = text[1:-1].strip()
        if text == before:
            break
    return text


def repeats(caption: str) -> float:
    """Share of character triples that occurred before: decoders that lost the thread repeat themselves."""
    triples = [caption[i : i + 3] for i in range(len(caption) - 2)]
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


def loops(caption: str) -> bool:
    """Whether a piece of two to twenty characters stands three times in a row; digits may (2000000)."""
    return any(not _DIGIT_LOOP.fullmatch(match.group(1)) for match in _LOOP.finditer(caption))


def leaks(caption: str, prompt: str) -> bool:
    """Whether the caption repeats a clause of the prompt, or marks of a chat format."""
    if _FORMAT.search(caption):
        return True
    pieces = {prompt[i : i + LEAK] for i in range(len(prompt) - LEAK + 1)}
    return any(caption[i : i + LEAK] in pieces for i in range(len(caption) - LEAK + 1))


def refused(caption: str, prompt: str, shortest: int, longest: int, max_repetition: float) -> str | None:
    """Why ``caption`` (after ``unwrap``) must not ship, as one word; None where nothing speaks against it."""
    if _REFUSAL.search(caption):
        return "refusal"
    if leaks(caption, prompt):
        return "prompt_leak"
    if loops(caption) or repeats(caption) > max_repetition:
        return "repetition"
    letters = sum(map(str.isalnum, caption))
    return "too_short" if letters < shortest else "too_long" if letters > longest else None
