from __future__ import annotations

import pytest

from tuwen.scoring.caption_gates import leaks, loops, refused, repeats, unwrap
from tuwen.scoring.captioner import PROMPT

CAPTION = "草地上，一只橙色的小狗在一辆蓝色的汽车旁边。"


@pytest.mark.parametrize(
    "answer",
    [
        CAPTION,
        f"这张图片显示了{CAPTION}",
        f"图片中，{CAPTION}",
        f"这是一张图片，展示的是{CAPTION}",
        f"描述：{CAPTION}",
        f"好的，以下是图片的描述：\n\n{CAPTION}",
        f"“{CAPTION}”",
        f"**{CAPTION}**",
        f"<think>先看左边。\n再看右边。</think>\n{CAPTION}\n",
        f"图片描述：「{CAPTION}」",
        " ".join(CAPTION).replace("，", ","),
        f"在画面中可以看到{CAPTION}",
    ],
)
def test_what_models_say_around_a_caption_is_cut(answer: str) -> None:
    assert unwrap(answer) == CAPTION


@pytest.mark.parametrize(
    "caption",
    [
        "图书馆里有一个男孩在看书",
        "好大的一只狗",
        "画家在画室里画画",
        "“福”字贴在门上，旁边写着“春”",
        "照片墙前站着两个人",
    ],
)
def test_captions_that_only_begin_alike_stay(caption: str) -> None:
    assert unwrap(caption) == caption
    assert refused(caption, PROMPT, 4, 200, 0.3) is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("作为一个AI语言模型，我无法查看图片。", "refusal"),
        ("抱歉，我不能描述这张图片。", "refusal"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("对不起，我看不清。", "refusal"),
        (PROMPT, "prompt_leak"),
        ("只写这一句，不要评论：一只狗", "prompt_leak"),
        ("一只狗<|im_end|>在草地上", "prompt_leak"),
        ("红色的车红色的车红色的车红色的车", "repetition"),
        ("一只狗和一只猫和一只狗和一只猫和一只狗和一只猫", "repetition"),
        ("狗。", "too_short"),
        ("".join(chr(0x4E00 + i) for i in range(201)), "too_long"),
        (CAPTION, None),
    ],
)
def test_what_is_no_caption_is_refused_with_one_word(answer: str, reason: str | None) -> None:
    assert refused(answer, PROMPT, 4, 200, 0.3) == reason


def test_repetition_is_measured() -> None:
    assert repeats("红色的车在路边") == 0
    assert repeats("红色红色红色红色红色") > 0.5
    assert loops("汪汪汪汪汪汪")
    assert not loops("售价2000000元")


def test_a_prompt_leaks_by_a_clause_and_not_by_a_word() -> None:
    assert leaks("请描述这张图片里的内容", "请描述这张图片")
    assert not leaks("墙上写着请描述", "请描述这张图片")
    assert not leaks(CAPTION, "")
