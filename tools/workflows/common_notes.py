"""Sentences that several notes have."""

# ruff: noqa: E501, because wide characters count twice
from __future__ import annotations

OWN_FILE = {
    "en": "**Your own recording:** choose or upload a file in *{Load Audio}*.",
    "zh": "**使用自己的录音：** 在*{Load Audio}*中选择或上传文件。",
    "ja": "**自分の録音を使う:** *{Load Audio}* でファイルを選択またはアップロードします。",
}
REAL = {
    "en": "*nano* is a tiny demo. For real music, open template **02 Real model**.",
    "zh": "*nano* 只是微型演示模型。要生成真正的音乐，请打开模板 **02 Real model**。",
    "ja": "*nano* は小さなデモ用モデルです。本格的な音楽にはテンプレート **02 Real model** を開いてください。",
}
